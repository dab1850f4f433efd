"""How a cluster that nobody has named, or that is named wrongly, is told of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.kube.client import connect
from experiments.kube.cluster import Cluster
from probes.errors import ConfigError

CONNECT = "from experiments.kube.client import connect; from experiments.kube.cluster import Cluster\n"
KUBECONFIG = """
{"apiVersion": "v1", "kind": "Config", "current-context": "staging",
 "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
 "users": [{"name": "u", "user": {}}],
 "contexts": [{"name": "staging", "context": {"cluster": "c", "user": "u"}}]}
"""


def test_without_any_kubeconfig_the_next_step_is_said(tmp_path: Path) -> None:
    code = f"{CONNECT}connect(Cluster(namespaces=()))"
    env = {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}

    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)

    said = done.stderr.splitlines()[-1]
    assert "kubernetes: context 'current' of kubeconfig: " in said
    assert said.endswith(
        "; set KUBECONFIG, `kubeconfig:` of the target or --kubeconfig to a file that is there"
    )


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"of .*/nowhere: .*; set KUBECONFIG, `kubeconfig:`"):
        connect(Cluster(namespaces=(), kubeconfig=str(tmp_path / "nowhere")))


def test_a_context_that_is_not_there_says_how_to_list_those_that_are(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG)

    with pytest.raises(
        ConfigError, match=rf"context 'production' of .*; `kubectl --kubeconfig {path} config"
    ):
        connect(Cluster(namespaces=(), context="production", kubeconfig=str(path)))

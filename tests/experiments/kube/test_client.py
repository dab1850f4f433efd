"""How a cluster that nobody has named, that is named wrongly, or that is none, is told of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.kube.client import ApiRefused, connect
from experiments.kube.cluster import Cluster
from probes.errors import ConfigError, TargetError
from tests.answering_api import Answer, answering

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


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b"<html>Welcome to nginx!</html>"),
        Answer(body=b""),
        Answer(body=b"[1, 2]"),
        Answer(body={"ok": True}),
    ],
)
def test_what_is_no_api_at_all_is_told_of_in_one_line(tmp_path: Path, answer: Answer) -> None:
    with (
        answering(tmp_path, {"GET": [answer]}) as (_, client),
        pytest.raises(
            TargetError, match=r"^cluster c at http://\S+: what answers GET \S+ is no Kubernetes API"
        ),
    ):
        client.identity()


def test_a_list_without_a_version_is_none_of_an_api(tmp_path: Path) -> None:
    with (
        answering(tmp_path, {"GET": [Answer(body={"ok": True})]}) as (_, client),
        pytest.raises(TargetError, match=r"is no Kubernetes API: '\{\"ok\": true\}'"),
    ):
        client.listed("/api/v1/nodes")


def test_an_api_that_sends_us_elsewhere_has_refused(tmp_path: Path) -> None:
    with (
        answering(tmp_path, {"GET": [Answer(status=302, body=b"<a>Found</a>")]}) as (_, client),
        pytest.raises(ApiRefused, match=r"GET \S+: <a>Found</a> \(302\)"),
    ):
        client.identity()


def test_an_answer_that_comes_byte_by_byte_has_to_be_there_in_time_too(tmp_path: Path) -> None:
    with (
        answering(tmp_path, {"GET": [Answer(body=b" " * 100_000, gap_s=0.1)]}) as (_, client),
        pytest.raises(TargetError, match=r"no answer to GET /slow: \d+ bytes came in 1 s, and not all"),
    ):
        client.ask("GET", "/slow", within_s=1.0)


def test_one_connection_serves_call_after_call(tmp_path: Path) -> None:
    with answering(tmp_path, {"GET": [Answer(body={"a": 1})]}) as (api, client):
        seen = [client.ask("GET", "/") for _ in range(5)]

    assert seen == [{"a": 1}] * 5
    assert api.connections == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [b", "while parsing a flow sequence"),
        (KUBECONFIG.replace("https://127.0.0.1:1", "127.0.0.1:1"), "server: wanted https://ADDRESS"),
        (KUBECONFIG.replace('"server": "https://127.0.0.1:1"', ""), "server: wanted https://ADDRESS"),
    ],
)
def test_a_kubeconfig_that_is_none_is_refused_before_anything_is_asked(
    tmp_path: Path, text: str, why: str
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)

    with pytest.raises(ConfigError, match=f"kubernetes: context 'current' of {path}: {why}"):
        connect(Cluster(namespaces=(), kubeconfig=str(path)))

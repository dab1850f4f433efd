"""The shipped experiments on a cluster: each is sound, breaks one thing, and says who heals it."""

from __future__ import annotations

import inspect
from itertools import chain
from pathlib import Path

import pytest
import yaml

from experiments.catalogue_list import FOLDER, read_catalogue
from experiments.experiment import load_experiment
from experiments.faults.fault import FAULTS, PLATFORM, load_fault
from experiments.kube import actions, api_actions, network_actions, node_actions
from experiments.kube.cluster import Cluster, cluster_from_json
from experiments.plan import HARMLESS
from probes.errors import ConfigError

MODULES = (actions, node_actions, network_actions, api_actions)
FILES = sorted((FOLDER / "kubernetes").glob("*.yaml"))
LISTED = {entry.path: entry for entry in read_catalogue()}
OURS = [name for name, where in FAULTS.items() if where.startswith("experiments.kube.")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_is_sound_and_breaks_what_its_name_says(path: Path) -> None:
    experiment = load_experiment(path)
    (breaks,) = LISTED[path].breaks
    tags, (rollback,) = experiment.document["tags"], experiment.document["rollbacks"]

    assert f"overproof gameday run experiments/catalogue/kubernetes/{path.name}" in path.read_text()
    assert breaks.fault.replace(".", "-") == path.stem
    assert experiment.target.kind == "kubernetes"
    assert ("heals" in tags) == (load_fault(breaks.fault).ends_by == PLATFORM)
    assert rollback["provider"]["func"] == "undo_faults"
    assert experiment.guards
    assert breaks.fidelity == ("P" if path.stem.startswith("container-") else "K")


def test_every_fault_has_an_action_and_an_experiment() -> None:
    every = [inspect.getmembers(module, inspect.isfunction) for module in MODULES]
    functions = dict(chain(*every))
    acting = {name.replace(".", "_").replace("-", "_") for name in OURS}

    assert acting <= functions.keys()
    assert {path.stem for path in FILES} >= {name.replace(".", "-") for name in OURS}
    assert {"faults_healed", "undo_faults", "replicas_ready", "nodes_schedulable"} <= HARMLESS


def test_a_cluster_survives_the_ledger() -> None:
    cluster = Cluster(namespaces=("a", "b"), context="c", kubeconfig="/k")

    assert cluster_from_json(cluster.to_json()) == cluster


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kubernetes": {"namespaces": []}}, "namespaces"),
        ({"kubernetes": {"namespace": ["a"]}}, "namespace"),
        ({"kubernetes": {"namespaces": ["a"]}, "hosts": ["b"]}, "not mixed with hosts"),
    ],
)
def test_a_target_that_is_no_cluster_is_refused(tmp_path: Path, wrong: dict[str, object], said: str) -> None:
    document = yaml.safe_load(FILES[0].read_text())
    (extension,) = document["extensions"]
    extension["target"] = {"name": "t", "endpoint": "http://t"} | wrong
    extension["workload"] = str(FOLDER / "workloads" / "steady-chat.yaml")
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(document))

    with pytest.raises(ConfigError, match=said):
        load_experiment(path)

"""Nodes of the real cluster tainted on a FAIL and given back after a PASS, within the limits, by us alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client

from burnin.fleet.judging import judge_fleet
from burnin.fleet.taints import ANNOTATION, EFFECT, TAINT
from probes.json_types import JsonObject
from reports.session import rejudge
from tests.burnin.fleet.fleet_record import FleetRecord, fails
from tests.cluster.kube_accounts import grant, kubeconfig_of
from tests.cluster.kube_days import overproof

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

NODES = ["node-1", "node-2", "node-3"]
OTHERS = {"key": "maintenance", "effect": "PreferNoSchedule"}


class _Nodes(FleetRecord):
    """A fleet of the nodes of the tests' cluster."""

    def names(self) -> list[str]:
        return NODES


@pytest.fixture
def core(
    api: client.ApiClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[client.CoreV1Api]:
    """Nodes without taints, and our commands with the shipped rights; as before afterwards."""
    grant("0-namespace", "burnin/rights", "burnin/taints")
    monkeypatch.setenv("KUBECONFIG", kubeconfig_of(api, "overproof-burnin", tmp_path))
    yield client.CoreV1Api(api)
    for name in NODES:
        bare = {"metadata": {"annotations": {ANNOTATION: None}}, "spec": {"taints": None}}
        client.CoreV1Api(api).patch_node(name, bare)


def act(folder: Path, *bad: str, spec: JsonObject | None = None) -> subprocess.CompletedProcess[str]:
    """Record a run in which these nodes failed, and act on it."""
    record = _Nodes(hosts=len(NODES), gpus=1, outcome=dict.fromkeys(bad, "fail"), spec=spec or {})
    record.findings = [fails(host, "ecc") for host in bad]
    run = record.write(folder / "runs")
    rejudge(run, judge_fleet)
    words = ["burnin", "act", run.path, "--drain", "kubernetes", "--log", folder / "log.ndjson", "--json"]
    return overproof(*words, timeout_s=60)


def acted_on(folder: Path, *bad: str) -> list[tuple[str, str, str]]:
    """Return host, state and reason of each step that was taken."""
    done = act(folder, *bad)
    assert done.returncode in (0, 3), done.stderr
    steps = json.loads(done.stdout)["steps"]
    assert not [step["detail"] for step in steps if step["state"] == "failed"]
    return [(step["host"], step["state"], step["reason"]) for step in steps]


def taints(core: client.CoreV1Api, name: str) -> list[tuple[str, str]]:
    """Return key and effect of each taint, those of the platform apart."""
    found = [(taint.key, taint.effect) for taint in core.read_node(name).spec.taints or ()]
    return [taint for taint in found if "kubernetes.io" not in taint[0]]


def test_a_node_that_failed_is_tainted_with_the_finding_and_given_back_by_a_pass(
    core: client.CoreV1Api, tmp_path: Path
) -> None:
    core.patch_node("node-2", {"spec": {"taints": [OTHERS]}})

    failed = acted_on(tmp_path, "node-2")
    during, node = taints(core, "node-2"), core.read_node("node-2")
    passed = acted_on(tmp_path)

    ours = next(taint for taint in node.spec.taints if taint.key == TAINT)
    assert [step[:2] for step in failed] == [("node-2", "done")]
    assert during == [(OTHERS["key"], OTHERS["effect"]), (TAINT, EFFECT)]
    assert "-fleet-" in ours.value
    assert "host:node-2: its burn-in came to fail: ecc" in node.metadata.annotations[ANNOTATION]
    assert [step[:2] for step in passed] == [("node-2", "done")]
    assert taints(core, "node-2") == [(OTHERS["key"], OTHERS["effect"])]
    assert ANNOTATION not in (core.read_node("node-2").metadata.annotations or {})


def test_no_second_node_of_a_small_cluster_is_tainted_within_the_hour(
    core: client.CoreV1Api, tmp_path: Path
) -> None:
    acted_on(tmp_path, "node-1")

    second = acted_on(tmp_path, "node-3")

    reason = "1 of cluster drained within the hour, and 1 of 3 is the most"
    assert ("node-3", "held", reason) in second
    assert taints(core, "node-3") == []


def test_a_taint_that_somebody_has_made_his_own_stays(core: client.CoreV1Api, tmp_path: Path) -> None:
    acted_on(tmp_path, "node-1")
    core.patch_node("node-1", {"metadata": {"annotations": {ANNOTATION: "waits for a new cable"}}})

    passed = acted_on(tmp_path)

    assert passed == [("node-1", "nothing", "the drain is somebody else's: waits for a new cable")]
    assert taints(core, "node-1") == [(TAINT, EFFECT)]


def test_a_taint_of_ours_that_no_log_knows_is_left_to_people(core: client.CoreV1Api, tmp_path: Path) -> None:
    acted_on(tmp_path, "node-1")
    (tmp_path / "log.ndjson").unlink()

    assert acted_on(tmp_path) == []
    assert taints(core, "node-1") == [(TAINT, EFFECT)]


def test_the_run_of_another_cluster_taints_nobody(core: client.CoreV1Api, tmp_path: Path) -> None:
    done = act(tmp_path, "node-1", spec={"cluster": {"uid": "another"}})

    assert done.returncode == 2
    assert "is not the cluster of" in done.stderr
    assert all(taints(core, name) == [] for name in NODES)

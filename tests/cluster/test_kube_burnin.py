"""Burn-ins as Jobs on the nodes of the real cluster: a verdict for each, and nothing left, come what may."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client

from probes.child import wait_until
from probes.outcome import Outcome
from reports.run import load_run
from tests.cluster.kube_accounts import grant, kubeconfig_of
from tests.cluster.kube_days import overproof, told
from tests.cluster.kube_fleet import (
    burning,
    fleet_command,
    image_by_digest,
    is_burning,
    pods_of_burnins,
    run_of,
    states,
    write_fleet,
)
from tests.cluster.plan import KUBECONFIG_VARIABLE
from tests.cluster.running import Hosts
from tests.cluster.workload import is_node_well

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

SPACE = "overproof-burnin"
NODES = ["node-1", "node-2", "node-3"]
AGENT = "burnin.node.agent"
LEAVE_WITHIN_S = 20  # the agent's own silence is 10


@pytest.fixture(scope="session")
def image(hosts: Hosts) -> str:
    return image_by_digest(hosts)


@pytest.fixture(autouse=True)
def rights(api: client.ApiClient) -> Iterator[None]:
    """The shipped rights, and no Job that another test or somebody else has left."""
    grant("0-namespace", "burnin/rights")
    clear(api)
    yield
    clear(api)


def clear(api: client.ApiClient) -> None:
    client.BatchV1Api(api).delete_collection_namespaced_job(SPACE, propagation_policy="Background")
    assert wait_until(lambda: not jobs(api), timeout_s=30)


@pytest.fixture
def as_account(api: client.ApiClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have our commands do what the shipped account may do, and nothing else."""
    monkeypatch.setenv("KUBECONFIG", kubeconfig_of(api, "overproof-burnin", tmp_path))


@pytest.fixture
def as_administrator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", os.environ[KUBECONFIG_VARIABLE])


def burn(fleet: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = fleet_command(fleet, *options)
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def jobs(api: client.ApiClient) -> list[client.V1Job]:
    return list(client.BatchV1Api(api).list_namespaced_job(SPACE).items)


def agents(hosts: Hosts, *nodes: str) -> list[str]:
    """Return the agents that run on these nodes."""
    shown = [hosts.ask(node, "ps", "-e", "-o", "args") for node in nodes]
    return [line for text in shown for line in text.splitlines() if AGENT in line]


@pytest.mark.usefixtures("as_account")
def test_every_node_gets_a_verdict_with_the_shipped_rights_and_a_name_without_node_is_told(
    api: client.ApiClient, image: str, tmp_path: Path
) -> None:
    fleet = write_fleet(tmp_path, image, SPACE, [*NODES, "node-9"])
    (tmp_path / "own.yaml").write_text("thresholds: {busy_pct_min: 1}\n")  # three of them share a core

    done = burn(fleet, "--no-network", "--expectations", str(tmp_path / "own.yaml"), "--duration-s", "10")

    run = run_of(fleet)
    assert done.returncode == 3, done.stderr  # of node-9 nobody knows
    assert {name: state for name, (state, _) in states(run).items()} == {
        **dict.fromkeys(NODES, "finished"),
        "node-9": "unreachable",
    }
    assert states(run)["node-9"][1].startswith("the cluster has no node of this name")
    for name in NODES:
        own = load_run(run.path / "hosts" / name)
        assert own.header.host == name
        assert own.outcome is Outcome.PASS, told(own)
        assert "exact" in {f.rule for f in own.findings if f.outcome is Outcome.PASS}
    assert jobs(api) == []


def test_an_eviction_and_a_lost_node_are_named_while_the_other_node_finishes(
    api: client.ApiClient, hosts: Hosts, image: str, tmp_path: Path, as_administrator: None
) -> None:
    evicted, lost, well = NODES
    fleet = write_fleet(tmp_path, image, SPACE, NODES)

    with burning(fleet, "--no-network", "--duration-s", "20") as running:
        try:
            assert wait_until(is_burning(fleet, *NODES), timeout_s=90), (tmp_path / "said").read_text()
            name = pods_of_burnins(api, SPACE)[evicted]
            client.CoreV1Api(api).create_namespaced_pod_eviction(name, SPACE, {"metadata": {"name": name}})
            hosts.cut(lost)
            status = running.wait(timeout=150)
            left_on_lost = wait_until(lambda: not agents(hosts, lost), timeout_s=LEAVE_WITHIN_S)
        finally:
            hosts.mend(lost)
    found = states(run_of(fleet))

    assert status in (1, 3), (tmp_path / "said").read_text()
    assert found[well][0] == "finished"
    assert found[evicted] == (
        "lost",
        f"{evicted}: its pod was taken away: EvictionByEvictionAPI: Eviction API: evicting",
    )
    assert found[lost][0] == "lost"
    assert "not ready" in found[lost][1] or "silent" in found[lost][1]
    assert left_on_lost
    assert jobs(api) == []
    assert wait_until(lambda: is_node_well(api, lost), timeout_s=60)
    assert wait_until(lambda: not pods_of_burnins(api, SPACE), timeout_s=60)


def test_nothing_runs_on_after_kill_9_of_the_controller_and_resume_completes_the_run(
    api: client.ApiClient, hosts: Hosts, image: str, tmp_path: Path, as_administrator: None
) -> None:
    fleet = write_fleet(tmp_path, image, SPACE, NODES[:2])

    with burning(fleet, "--no-network") as running:
        assert wait_until(is_burning(fleet, *NODES[:2]), timeout_s=90), (tmp_path / "said").read_text()
        before = agents(hosts, *NODES[:2])
        running.kill()
        running.wait(timeout=10)
        is_gone = wait_until(lambda: not agents(hosts, *NODES[:2]), timeout_s=LEAVE_WITHIN_S)

    left, before_resume = jobs(api), run_of(fleet)
    assert len(before) >= 2
    assert is_gone
    assert len(left) == 2
    assert all(job.spec.active_deadline_seconds and job.spec.ttl_seconds_after_finished for job in left)
    assert wait_until(lambda: all(not job.status.active for job in jobs(api)), timeout_s=30)
    assert before_resume.state == "interrupted"
    resumed = overproof("burnin", "run", "--resume", before_resume.path, timeout_s=150)
    assert states(run_of(fleet)) == dict.fromkeys(NODES[:2], ("finished", "")), resumed.stderr


def test_an_image_that_cannot_be_had_is_told_by_what_the_node_said(
    api: client.ApiClient, image: str, tmp_path: Path, as_administrator: None
) -> None:
    missing = f"{image.split('@')[0]}@sha256:{'0' * 64}"
    fleet = write_fleet(tmp_path, missing, SPACE, NODES[:1])

    done = burn(fleet, "--start-within-s", "25")

    state, detail = states(run_of(fleet))["node-1"]
    assert done.returncode == 3, done.stderr
    assert state == "failed to start"
    assert "its pod does not run: " in detail
    assert "ImagePull" in detail
    assert jobs(api) == []


def test_a_right_that_is_missing_is_named_before_anything_is_created(
    api: client.ApiClient, image: str, tmp_path: Path, as_account: None
) -> None:
    client.RbacAuthorizationV1Api(api).delete_namespaced_role_binding("overproof-burnin", SPACE)
    fleet = write_fleet(tmp_path, image, SPACE, NODES[:1])

    done = burn(fleet)

    assert done.returncode == 2
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("overproof:")]
    assert "does not let us create jobs, patch jobs, delete jobs, watch pods" in said
    assert not (tmp_path / "runs").exists()

"""Whether a host is free, asked of a real Slurm and of an HTTP server that answers like Kubernetes."""

from __future__ import annotations

import getpass
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from burnin.fleet.host import Host
from burnin.fleet.permission import ask_kubernetes, ask_slurm, judge_slurm_node, with_permission
from probes.errors import TargetError
from probes.kubernetes_api import KubeClient
from tests.answering_api import Answer, answering
from tests.slurm import Slurm, silent_slurm


@pytest.mark.needs("slurmctld", "munged", "slurmd", "srun")
def test_slurm_frees_drained_and_reserved_nodes_and_no_others(slurm: Slurm) -> None:
    idle = ask_slurm(["node1", "node2", "node9"], environment=slurm.environment)
    slurm.ask("scontrol", "update", "nodename=node1", "state=drain", "reason=new rack")
    wanted = ("nodes=node2", "starttime=now", "duration=5", f"users={getpass.getuser()}", "flags=ignore_jobs")
    slurm.ask("scontrol", "create", "reservation", "reservationname=intake", *wanted)

    said = ask_slurm(["node1", "node2"], environment=slurm.environment)
    slurm.ask("scontrol", "delete", "reservationname=intake")
    slurm.ask("scontrol", "update", "nodename=node1", "state=resume")

    assert [idle[name].kind for name in ("node1", "node2", "node9")] == [None, None, None]
    assert (said["node1"].kind, "new rack" in said["node1"].detail) == ("drained", True)
    assert (said["node2"].kind, said["node2"].detail) == (
        "reserved",
        f"reservation intake for {getpass.getuser()}",
    )


@pytest.mark.needs("slurmctld", "munged", "slurmd", "srun")
def test_a_slurm_that_does_not_answer_permits_nothing(slurm: Slurm) -> None:
    with (
        silent_slurm(slurm) as environment,
        pytest.raises(TargetError, match="no answer within 1 s; see whether slurmctld runs"),
    ):
        ask_slurm(["node1"], environment=environment, within_s=1)


@pytest.mark.parametrize("state", ["ALLOCATED+DRAIN", "MIXED+DRAIN", "IDLE+DRAIN+COMPLETING", "MIXED*"])
def test_a_node_that_still_runs_jobs_is_not_free(state: str) -> None:
    said = judge_slurm_node("a", {"State": state, "Reason": "x"}, {"a": "reservation r"}, {})

    assert said.kind is None
    assert "runs jobs" in said.detail


def test_a_down_node_that_is_drained_is_free_and_the_nodes_of_our_own_exclusive_job_are() -> None:
    assert judge_slurm_node("a", {"State": "DOWN*+DRAIN", "Reason": "x"}, {}, {}).kind == "drained"
    assert (
        judge_slurm_node("a", {"State": "ALLOCATED"}, {}, {"a": "our own exclusive job 3"}).kind == "reserved"
    )


def test_a_host_listed_by_hand_stays_listed() -> None:
    hosts = with_permission([Host(name="a", permission="listed"), Host(name="b")], {})

    assert [host.permission for host in hosts] == ["listed", None]


def _node(name: str, *, is_cordoned: bool) -> dict[str, object]:
    return {"metadata": {"name": name}, "spec": {"unschedulable": True} if is_cordoned else {}}


def _pod(name: str, node: str, *, gpus: int) -> dict[str, object]:
    resources = {"limits": {"nvidia.com/gpu": str(gpus)}} if gpus else {}
    container = {"name": "main", "image": "x", "resources": resources}
    return {
        "metadata": {"name": name, "namespace": "team"},
        "spec": {"nodeName": node, "containers": [container]},
    }


_LISTS = {
    "nodes": [
        _node("busy", is_cordoned=True),
        _node("free", is_cordoned=True),
        _node("in", is_cordoned=False),
    ],
    "pods": [_pod("train", "busy", gpus=8), _pod("logs", "free", gpus=0)],
}


def _listed(kind: str) -> Answer:
    return Answer(body={"items": _LISTS[kind], "metadata": {"resourceVersion": "1"}})


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubeClient]:
    with answering(tmp_path, {"GET": [_listed("nodes"), _listed("pods")]}) as (_, client):
        yield client


def test_kubernetes_frees_cordoned_nodes_whose_gpus_nobody_holds(cluster: KubeClient) -> None:
    said = ask_kubernetes(["free", "busy", "in", "none"], cluster)

    assert {name: permission.kind for name, permission in said.items()} == {
        "free": "drained",
        "busy": None,
        "in": None,
        "none": None,
    }
    assert "team/train holds GPUs" in said["busy"].detail


def test_where_idle_is_enough_a_node_in_service_is_free_unless_somebody_holds_a_gpu(
    cluster: KubeClient,
) -> None:
    said = ask_kubernetes(["free", "busy", "in", "none"], cluster, is_idle_enough=True)

    assert {name: permission.kind for name, permission in said.items()} == {
        "free": "drained",
        "busy": None,
        "in": "idle",
        "none": None,
    }


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(status=401, body={"kind": "Status", "message": "Unauthorized"}), "does not know us: "),
        (Answer(body=b"<html>Welcome to nginx!</html>"), "is no Kubernetes API"),
    ],
)
def test_a_cluster_that_does_not_say_permits_nothing_and_one_line_tells_why(
    tmp_path: Path, answer: Answer, why: str
) -> None:
    with (
        answering(tmp_path, {"GET": [answer]}) as (api, client),
        pytest.raises(TargetError, match=rf"^cluster c at http://\S+: [^\n]*{why}[^\n]*$"),
    ):
        ask_kubernetes(["a"], client)

    assert len(api.asked) == 1  # it is not asked again and again


def test_without_a_cluster_nothing_is_permitted_and_the_result_stays_clean(tmp_path: Path) -> None:
    lines = (
        "from burnin.fleet.host import Fleet, Host",
        "from burnin.fleet.permitted import ask_permission",
        "ask_permission(Fleet(name='n', hosts=(Host(name='gpu-1', ask='kubernetes'),)))",
    )
    env = {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}

    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], env=env, capture_output=True, text=True, check=False
    )

    assert "ConfigError: kubernetes: context 'current' of kubeconfig: " in done.stderr.splitlines()[-1]
    assert done.stdout == ""

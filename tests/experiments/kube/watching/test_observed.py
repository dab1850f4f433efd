"""What probes say of a cluster's objects: well, not well, and nothing to judge."""

from __future__ import annotations

import pytest

from experiments.kube.watching.observed import (
    job_state,
    judge_budgets,
    judge_gpus,
    judge_job,
    judge_restarts,
    judge_warnings,
    node_state,
    node_trouble,
)
from probes.json_types import JsonObject
from tests.experiments.kube.objects import pod

NOW_S = 1_795_284_000.0  # 2026-11-21T18:00:00Z
GPU = "nvidia.com/gpu"


def restarted(name: str, times: int, *, finished: str = "2026-11-21T17:59:00Z") -> JsonObject:
    found = pod(name)
    (status,) = found["status"]["containerStatuses"]
    end = {"reason": "OOMKilled", "exitCode": 137, "finishedAt": finished}
    status |= {"restartCount": times, "lastState": {"terminated": end}}
    return found


def test_restarts_are_counted_with_what_ended_the_last_one() -> None:
    seen = judge_restarts([pod("a"), restarted("b", 3)], restarts_max=2, window_s=None, now_s=NOW_S)

    assert seen["outcome"] == "fail"
    assert seen["restarts"] == {"inference/b": 3}
    assert "OOMKilled (exit code 137)" in seen["observed"]


@pytest.mark.parametrize(("window_s", "outcome"), [(30.0, "pass"), (120.0, "fail")])
def test_with_a_window_only_restarts_within_it_count(window_s: float, outcome: str) -> None:
    seen = judge_restarts([restarted("b", 1)], restarts_max=0, window_s=window_s, now_s=NOW_S)

    assert seen["outcome"] == outcome


def test_no_pods_is_no_proof_that_none_was_restarted() -> None:
    assert judge_restarts([], restarts_max=0, window_s=None, now_s=NOW_S)["outcome"] == "inconclusive"


def warning(reason: str, *, last: str = "2026-11-21T17:59:00Z", kind: str = "Warning") -> JsonObject:
    about = {"kind": "Pod", "name": "chat-1"}
    return {"type": kind, "reason": reason, "message": "no", "lastTimestamp": last, "involvedObject": about}


def test_warnings_are_counted_by_reason_and_old_ones_and_others_are_not() -> None:
    old = warning("Unhealthy", last="2026-11-21T10:00:00Z")
    modern = warning("BackOff", last="") | {"eventTime": "2026-11-21T17:59:30.123456Z"}
    events = [old, modern, warning("Unhealthy"), warning("Pulled", kind="Normal"), warning("FailedMount")]
    since_s = NOW_S - 300

    every = judge_warnings(events, reasons=(), besides=("FailedMount",), count_max=0, since_s=since_s)
    one = judge_warnings(events, reasons=("BackOff",), besides=(), count_max=1, since_s=since_s)
    none = judge_warnings([old], reasons=(), besides=(), count_max=0, since_s=since_s)

    assert (every["outcome"], every["warnings"]) == ("fail", {"BackOff": 1, "Unhealthy": 1})
    assert "Pod chat-1: no" in every["observed"]
    assert (one["outcome"], one["warnings"]) == ("pass", {"BackOff": 1})
    assert (none["outcome"], none["observed"]) == ("pass", "no warnings")


def budget(allowed: int, *, observed: int = 2) -> JsonObject:
    status = {"disruptionsAllowed": allowed, "currentHealthy": 3, "desiredHealthy": 3 - allowed}
    return {
        "metadata": {"name": "chat", "generation": 2},
        "status": status | {"observedGeneration": observed},
    }


@pytest.mark.parametrize(
    ("rows", "outcome"),
    [
        ([budget(1)], "pass"),
        ([budget(0)], "fail"),
        ([budget(1, observed=1)], "inconclusive"),
        ([], "inconclusive"),
    ],
)
def test_headroom_of_budgets_counts_where_somebody_keeps_them(rows: list[JsonObject], outcome: str) -> None:
    assert judge_budgets(rows, allowed_min=1)["outcome"] == outcome


def gpus(name: str, capacity: int | None, allocatable: int) -> JsonObject:
    counts = (
        {} if capacity is None else {"capacity": {GPU: str(capacity)}, "allocatable": {GPU: str(allocatable)}}
    )
    return {"metadata": {"name": name}, "spec": {}, "status": counts}


@pytest.mark.parametrize(
    ("nodes", "per_node_min", "outcome"),
    [
        ([gpus("a", 8, 8), gpus("cpu", None, 0)], None, "pass"),
        ([gpus("a", 8, 7)], None, "fail"),
        ([gpus("a", 8, 7)], 7, "pass"),
        ([gpus("a", 0, 0)], None, "fail"),  # the plugin is gone for so long that the capacity is too
        ([gpus("cpu", None, 0)], None, "inconclusive"),
        ([gpus("cpu", None, 0)], 1, "fail"),
    ],
)
def test_gpus_are_what_a_node_can_give_out(
    nodes: list[JsonObject], per_node_min: int | None, outcome: str
) -> None:
    assert judge_gpus(nodes, resource=GPU, per_node_min=per_node_min)["outcome"] == outcome


def test_a_node_that_is_cordoned_or_about_to_go_takes_no_pods() -> None:
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    plain: JsonObject = ready | {"metadata": {}, "spec": {}}

    assert node_state(plain) == "ready"
    assert node_state(plain | {"spec": {"unschedulable": True}}) == "cordoned"
    assert node_state(plain | {"metadata": {"deletionTimestamp": "x"}}) == "is being deleted"
    assert node_state(plain | {"status": {}}) == "not ready"
    assert node_state(None) == "is not there"


@pytest.mark.parametrize(
    ("status", "cordoned", "said"),
    [
        ({"capacity": {GPU: "8", "cpu": "64"}, "allocatable": {GPU: "7", "cpu": "0"}}, False, ""),
        ({"capacity": {GPU: "8"}, "allocatable": {GPU: "0"}}, False, f"gives out no {GPU}"),
        ({"capacity": {GPU: "0"}, "allocatable": {GPU: "0"}}, False, ""),
        ({"conditions": [{"type": "MemoryPressure", "status": "True"}]}, False, "MemoryPressure"),
        ({"conditions": [{"type": "MemoryPressure", "status": "False"}]}, False, ""),
        ({}, True, "cordoned"),
    ],
)
def test_a_node_in_trouble_says_which(status: JsonObject, cordoned: bool, said: str) -> None:
    assert node_trouble({"spec": {"unschedulable": cordoned}, "status": status}) == said


def true(*types: str) -> list[JsonObject]:
    return [{"type": name, "status": "True"} for name in types]


@pytest.mark.parametrize(
    ("kind", "job", "state"),
    [
        ("Job", {"spec": {"parallelism": 2}, "status": {"ready": 2, "active": 2}}, "running"),
        ("Job", {"spec": {"parallelism": 2}, "status": {"ready": 1, "active": 2, "failed": 3}}, "waits"),
        ("Job", {"spec": {}, "status": {"succeeded": 1, "conditions": true("Complete")}}, "succeeded"),
        ("Job", {"spec": {}, "status": {"conditions": true("FailureTarget", "Failed")}}, "failed"),
        ("Job", {"spec": {"suspend": True}, "status": {"conditions": true("Suspended")}}, "waits"),
        (
            "JobSet",
            {
                "spec": {"replicatedJobs": [{"name": "w", "replicas": 2}]},
                "status": {"restarts": 1, "replicatedJobsStatus": [{"name": "w", "ready": 2}]},
            },
            "running",
        ),
        (
            "JobSet",
            {
                "spec": {"replicatedJobs": [{"name": "w", "replicas": 2}]},
                "status": {"replicatedJobsStatus": [{"name": "w", "ready": 1}]},
            },
            "waits",
        ),
        (
            "PyTorchJob",
            {
                "spec": {"pytorchReplicaSpecs": {"Master": {}, "Worker": {"replicas": 3}}},
                "status": {
                    "conditions": true("Created", "Running"),
                    "replicaStatuses": {"Master": {"active": 1}, "Worker": {"active": 3, "failed": 2}},
                },
            },
            "running",
        ),
        (
            "PyTorchJob",
            {
                "spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": 2}}},
                "status": {"conditions": true("Created", "Restarting")},
            },
            "waits",
        ),
    ],
)
def test_a_training_jobs_state_is_what_its_kind_calls_it(kind: str, job: JsonObject, state: str) -> None:
    assert job_state(kind, job)["state"] == state


@pytest.mark.parametrize(
    ("state", "steps", "outcome"),
    [
        ("running", (7, 9), "pass"),
        ("running", (7, 7), "fail"),
        ("running", (None, None), "inconclusive"),
        ("waits", (7, 9), "fail"),
        ("succeeded", (9, 9), "pass"),
    ],
)
def test_a_job_that_runs_and_whose_steps_stand_still_does_not_get_on(
    state: str, steps: tuple[int | None, int | None], outcome: str
) -> None:
    row = {"state": state, "ready": 2, "wanted": 2, "restarts": 0}

    seen = judge_job("Job", "t", row, first_step=steps[0], last_step=steps[1], is_asked_steps=True)

    assert seen["outcome"] == outcome

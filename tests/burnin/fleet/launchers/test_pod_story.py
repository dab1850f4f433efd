"""What a cluster says of a pod, as whoever reads the verdict hears it."""

from __future__ import annotations

import pytest

from burnin.fleet.launchers.pod_story import (
    GONE,
    exit_code,
    how_it_ended,
    is_over,
    is_running,
    why_no_pod,
    why_not_ready,
    why_waiting,
)
from probes.json_types import JsonObject


def _pod(state: JsonObject | None = None, **status: object) -> JsonObject:
    statuses = [] if state is None else [{"name": "burnin", "state": state}]
    return {"metadata": {}, "status": {"phase": "Pending", "containerStatuses": statuses, **status}}


def _ended(**what: object) -> JsonObject:
    return _pod({"terminated": what}, phase="Failed")


def test_a_pod_that_waits_says_what_for() -> None:
    image = _pod({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling\n image"}})
    full = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no gpu"}

    assert why_waiting(image) == "ImagePullBackOff: Back-off pulling image"
    assert why_waiting(_pod(conditions=[full])) == "Unschedulable: no gpu"
    assert why_waiting(None) == ""


@pytest.mark.parametrize(
    ("pod", "story"),
    [
        (_ended(exitCode=0, reason="Completed"), ""),
        (_ended(exitCode=1, reason="Error"), ""),
        (_ended(exitCode=137, reason="OOMKilled"), "its container was ended: OOMKilled"),
        (
            _pod(phase="Failed", reason="Evicted", message="The node was low on memory."),
            "its pod was ended: Evicted: The node was low on memory.",
        ),
        (_pod({"running": {}}) | {GONE: True}, "somebody deleted its pod"),
        (None, "its pod is not there any more"),
    ],
)
def test_how_a_pod_ended_is_told_unless_its_own_program_did(pod: JsonObject | None, story: str) -> None:
    assert how_it_ended(pod) == story


def test_an_eviction_is_told_before_what_it_did_to_the_container() -> None:
    pod = _ended(exitCode=137, reason="Error")
    pod["status"]["conditions"] = [
        {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "EvictionByEvictionAPI",
            "message": "evicting",
        }
    ]

    assert how_it_ended(pod) == "its pod was taken away: EvictionByEvictionAPI: evicting"


def test_running_over_and_the_exit_code_are_those_of_our_own_container() -> None:
    running, ended = _pod({"running": {}}, phase="Running"), _ended(exitCode=3)
    running["status"]["containerStatuses"].insert(
        0, {"name": "sidecar", "state": {"terminated": {"exitCode": 9}}}
    )

    assert (is_running(running), is_over(running), exit_code(running)) == (True, False, None)
    assert (is_running(ended), is_over(ended), exit_code(ended)) == (False, True, 3)
    assert (is_running(None), is_over(None), exit_code(None)) == (False, False, None)


def test_a_job_without_a_pod_has_its_last_warning() -> None:
    events = [
        {"type": "Warning", "reason": "FailedCreate", "message": "exceeded quota"},
        {"type": "Normal", "reason": "Suspended", "message": "Job suspended"},
    ]

    assert why_no_pod(events) == "FailedCreate: exceeded quota"
    assert why_no_pod([]) == ""


def test_a_node_is_ready_only_where_it_says_so() -> None:
    def node(*conditions: JsonObject) -> JsonObject:
        return {"status": {"conditions": list(conditions)}}

    gone = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "stopped posting"}

    assert why_not_ready(node({"type": "Ready", "status": "True"})) == ""
    assert why_not_ready(node(gone)) == "NodeStatusUnknown: stopped posting"
    assert why_not_ready(node()) == "it has not said so yet"

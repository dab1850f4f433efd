from __future__ import annotations

from pathlib import Path

import pytest

from experiments.kube.pods.workloads import count, find_workloads, matches, see_whole
from probes.json_types import JsonObject
from tests.answering_api import Answer, answering
from tests.experiments.kube.objects import WORKLOAD, pod

DEPLOYMENT_REF: JsonObject = {"kind": "Deployment", "name": "chat", "uid": "d-1", "controller": True}


def test_pods_are_counted_themselves_and_one_that_ends_does_not_count() -> None:
    pods = [pod("a"), pod("b", is_ready=False), pod("c", is_leaving=True), pod("d", owner=None)]

    seen = count(WORKLOAD, pods)

    assert (seen["ready"], seen["wanted"], seen["uids"]) == (1, 3, ["a"])


def test_a_pod_that_was_hit_does_not_count_as_back() -> None:
    pods = [pod("a"), pod("b"), pod("c")]

    assert see_whole([WORKLOAD], pods)[0]
    assert not see_whole([WORKLOAD], pods, without={"c"})[0]


def test_one_that_waits_in_vain_keeps_a_workload_from_being_whole_and_says_why() -> None:
    pods = [pod("a"), pod("b"), pod("c"), pod("d", is_ready=False, waiting="ImagePullBackOff")]

    is_whole, said = see_whole([WORKLOAD], pods)

    assert not is_whole
    assert "another waits (ImagePullBackOff: why)" in said


def test_one_that_is_only_starting_does_not_wait_in_vain() -> None:
    pods = [pod("a"), pod("b"), pod("c"), pod("d", is_ready=False, waiting="ContainerCreating")]

    assert see_whole([WORKLOAD], pods)[0]


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ({"key": "app", "operator": "In", "values": ["chat"]}, True),
        ({"key": "app", "operator": "NotIn", "values": ["chat"]}, False),
        ({"key": "tier", "operator": "Exists"}, False),
        ({"key": "tier", "operator": "DoesNotExist"}, True),
    ],
)
def test_selectors_hold_as_in_kubernetes(rule: JsonObject, holds: bool) -> None:
    assert matches({"matchExpressions": [rule]}, {"app": "chat"}) is holds


APPS = "/apis/apps/v1/namespaces/inference"


@pytest.mark.parametrize(
    "found", [Answer(status=404, body={"kind": "Status"}), Answer(body={"metadata": {"uid": "another"}})]
)
def test_a_controller_that_went_before_its_pods_did_is_no_error(tmp_path: Path, found: Answer) -> None:
    owned = {"namespace": "inference", "uid": "o-1", "ownerReferences": [DEPLOYMENT_REF]}
    whole = {
        "metadata": {"uid": "d-1"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "chat"}}},
    }
    gone = pod("late", owner="Job")
    gone["metadata"]["ownerReferences"][0] |= {"name": "night", "uid": "j-1"}
    answers = {
        f"GET {APPS}/replicasets/o": [Answer(body={"metadata": owned})],
        f"GET {APPS}/deployments/chat": [Answer(body=whole)],
        "GET /apis/batch/v1/namespaces/inference/jobs/night": [found],
    }

    with answering(tmp_path, answers) as (_, client):
        chat, night = find_workloads(client, [pod("a"), gone])

    assert (chat["kind"], chat["name"], chat["wanted"]) == ("Deployment", "chat", 2)
    assert (night["kind"], night["name"], night["wanted"]) == ("Job", "night", None)

from __future__ import annotations

import pytest

from experiments.kube.pods.workloads import count, matches, see_whole
from probes.json_types import JsonObject
from tests.experiments.kube.objects import WORKLOAD, pod


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

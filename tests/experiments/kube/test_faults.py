"""What a fault on a cluster says of the changes that it has made."""

from __future__ import annotations

import pytest

from experiments.kube.faults import check_drainable, see_changes
from experiments.kube.undoing.steps import UndoStep, make_change, make_step
from probes.errors import TargetError
from tests.experiments.kube.fake_api import FakeApi, node
from tests.experiments.kube.objects import pod

NAMES = ("node-1", "node-2")


def path_of(name: str) -> str:
    return f"/api/v1/nodes/{name}"


def cordons(api: FakeApi) -> list[UndoStep]:
    ours = [(("spec", "unschedulable"), True)]
    return [
        make_step(api.objects[path_of(n)], subject=f"node/{n}", path=path_of(n), ours=ours, mark=f"mark-{n}")
        for n in NAMES
    ]


def test_a_step_that_holds_is_told_so_after_one_that_does_not() -> None:
    api = FakeApi({path_of(name): node(name) for name in NAMES})
    first, second = cordons(api)
    make_change(second, api)

    seen = see_changes([first, second], api)

    assert not seen.is_verified
    assert seen.observed == "node/node-1: is not as we set it; node/node-2: unschedulable is True"


def test_changes_are_there_only_where_all_are() -> None:
    api = FakeApi({path_of(name): node(name) for name in NAMES})
    steps = cordons(api)
    for step in steps:
        make_change(step, api)

    whole = see_changes(steps, api)
    del api.objects[path_of("node-2")]
    parted = see_changes(steps, api)

    assert whole.is_verified
    assert not parted.is_verified
    assert parted.observed.endswith("node/node-2: is not as we set it")


def test_a_pod_that_came_after_the_plan_and_may_not_go_stops_the_drain() -> None:
    scratch = pod("late", volumes=({"name": "scratch", "emptyDir": {}},))
    bare = pod("bare", owner=None)

    check_drainable([pod("chat-1"), scratch], may_lose_data=True)
    check_drainable([pod("ends", owner=None, is_leaving=True)], may_lose_data=False)

    with pytest.raises(TargetError, match="since the plan was made: inference/late would lose its emptyDir"):
        check_drainable([pod("chat-1"), scratch], may_lose_data=False)
    with pytest.raises(TargetError, match=r"inference/bare has no controller.*nothing is evicted"):
        check_drainable([bare], may_lose_data=True)

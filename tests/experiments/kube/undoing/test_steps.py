"""Steps that take a change back: what they put back, and what they leave alone."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.kube.undoing.steps import carry_out, make_change, make_step, prove, step_from_json
from probes.errors import TargetError
from tests.experiments.kube.fake_api import FakeApi, node

PATH = "/api/v1/nodes/node-1"
TAINT = {"key": "gameday", "effect": "NoSchedule"}


def cordon(api: FakeApi, *, mark: str = "node.cordon-1") -> Any:
    ours = [(("spec", "unschedulable"), True)]
    return make_step(api.objects[PATH], subject="node/node-1", path=PATH, ours=ours, mark=mark)


@pytest.fixture
def api() -> FakeApi:
    return FakeApi({PATH: node("node-1")})


def test_a_change_is_taken_back_whole_and_once(api: FakeApi) -> None:
    before, step = api.content(PATH), step_from_json(cordon(api).to_json())

    make_change(step, api)
    is_cordoned = api.objects[PATH]["spec"]["unschedulable"]
    done = [carry_out(step, api) for _ in range(2)]

    assert is_cordoned is True
    assert [each.has_acted for each in done] == [True, False]
    assert api.content(PATH) == before


def test_the_cordon_of_somebody_else_stays(api: FakeApi) -> None:
    api.objects[PATH]["spec"]["unschedulable"] = True
    step = cordon(api)

    make_change(step, api)
    carry_out(step, api)

    assert api.objects[PATH]["spec"]["unschedulable"] is True


def test_a_node_that_lost_our_mark_has_been_taken_over_and_is_left_alone(api: FakeApi) -> None:
    step = cordon(api)
    make_change(step, api)
    api.objects[PATH]["metadata"]["annotations"].clear()

    done = carry_out(step, api)

    assert not done.has_acted
    assert api.objects[PATH]["spec"]["unschedulable"] is True


def test_what_somebody_else_has_set_meanwhile_is_left_alone(api: FakeApi) -> None:
    step = make_step(
        api.objects[PATH],
        subject="node/node-1",
        path=PATH,
        ours=[(("metadata", "labels", "zone"), "ours"), (("spec", "unschedulable"), True)],
        mark="1",
    )
    make_change(step, api)
    api.objects[PATH]["metadata"]["labels"]["zone"] = "theirs"

    done = carry_out(step, api)

    assert api.objects[PATH]["metadata"]["labels"]["zone"] == "theirs"
    assert "unschedulable" not in api.objects[PATH]["spec"]
    assert "somebody else's" in done.did


def test_another_object_by_the_same_name_is_left_alone(api: FakeApi) -> None:
    step = cordon(api)
    api.objects[PATH] = node("node-1", uid="another") | {"spec": {"unschedulable": True}}

    done = carry_out(step, api)

    assert not done.has_acted
    assert api.objects[PATH]["spec"]["unschedulable"] is True


def test_a_change_that_was_never_made_needs_no_undoing(api: FakeApi) -> None:
    before = api.content(PATH)

    done = carry_out(cordon(api), api)

    assert not done.has_acted
    assert api.content(PATH) == before
    assert api.patches == 0


def test_one_item_of_a_list_is_taken_back_and_the_others_stay(api: FakeApi) -> None:
    theirs = {"key": "theirs", "effect": "NoExecute"}
    step = make_step(
        api.objects[PATH],
        subject="node/node-1",
        path=PATH,
        ours=[(("spec", "taints", TAINT), TAINT)],
        mark="1",
    )
    make_change(step, api)
    api.objects[PATH]["spec"]["taints"].insert(0, theirs)

    carry_out(step, api)

    assert api.objects[PATH]["spec"]["taints"] == [theirs]


def test_a_field_of_one_item_of_a_list_is_put_back(api: FakeApi) -> None:
    path = "/apis/apps/v1/namespaces/web/deployments/web"
    containers = [{"name": "side", "image": "side:1"}, {"name": "web", "image": "web:1", "args": ["x"]}]
    api.objects[path] = node("web") | {"spec": {"template": {"spec": {"containers": containers}}}}
    before = api.content(path)
    where = ("spec", "template", "spec", "containers", {"name": "web"}, "image")
    step = make_step(
        api.objects[path], subject="deployment/web", path=path, ours=[(where, "missing:1")], mark="1"
    )

    make_change(step, api)
    images = [each["image"] for each in api.objects[path]["spec"]["template"]["spec"]["containers"]]
    carry_out(step, api)

    assert images == ["side:1", "missing:1"]
    assert api.content(path) == before


def test_whoever_loses_a_race_for_the_object_looks_again(api: FakeApi) -> None:
    step = cordon(api)
    make_change(step, api)
    api.changes_before_patch = [lambda found: found["metadata"]["labels"].update(heartbeat="1")]

    done = carry_out(step, api)

    assert done.has_acted
    assert api.objects[PATH]["metadata"]["labels"]["heartbeat"] == "1"


def test_two_who_undo_at_once_act_once(api: FakeApi) -> None:
    step = cordon(api)
    make_change(step, api)
    others = []
    api.changes_before_patch = [lambda _: others.append(carry_out(step, api))]

    done = carry_out(step, api)

    assert [done.has_acted, others[0].has_acted] == [False, True]


def test_an_object_that_has_changed_since_it_was_looked_at_is_not_hit(api: FakeApi) -> None:
    step = cordon(api)
    api.objects[PATH]["spec"]["unschedulable"] = True
    del api.objects[PATH]["metadata"]["labels"]["zone"]
    changed = make_step(
        node("node-1"), subject="n", path=PATH, ours=[(("metadata", "labels", "zone"), "x")], mark="2"
    )

    make_change(step, api)  # it is as we make it already: only the mark

    with pytest.raises(TargetError, match="is not as it was found"):
        make_change(changed, api)


def test_a_server_that_refuses_is_told_and_the_step_can_be_tried_again(api: FakeApi) -> None:
    step = cordon(api)
    make_change(step, api)
    api.refusals = {"PATCH": 403}

    with pytest.raises(TargetError, match="403"):
        carry_out(step, api)
    reason = prove(step, api)
    api.refusals = {}

    assert "403" in reason
    assert prove(step, api) == ""
    assert carry_out(step, api).has_acted

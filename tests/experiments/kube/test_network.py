"""A partition: which pods it is about, and that it takes nothing along that is not its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiments.kube.cluster import Cluster
from experiments.kube.deadman.mirror import MirrorEntry, undo_entry
from experiments.kube.network import PARTITION_LABEL, label_steps, policy_steps, verify_partition
from experiments.kube.undoing.marks import new_mark
from experiments.kube.undoing.steps import carry_out, make_change, step_from_json
from tests.answering_api import Answer, answering
from tests.experiments.kube.fake_api import FakeApi
from tests.experiments.kube.objects import pod

RUN = "20261121T185819Z-gameday-e2c9"


def test_a_policy_is_about_the_label_of_this_partition_alone() -> None:
    chosen = [pod("a"), pod("b", namespace="other")]
    mark = new_mark(RUN)

    policies, steps = policy_steps(chosen, mark, "both"), label_steps(chosen, mark)
    first, second = (step.made or {} for step in policies)

    assert [each["metadata"]["namespace"] for each in (first, second)] == ["inference", "other"]
    assert first["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert {step.changes[0].ours for step in steps} == {
        first["spec"]["podSelector"]["matchLabels"][PARTITION_LABEL]
    }
    assert "ingress" not in first["spec"]  # none is let in


def test_two_partitions_of_one_day_have_names_and_labels_of_their_own() -> None:
    steps = [policy_steps([pod("a")], new_mark(RUN * 3), "ingress")[0] for _ in range(2)]
    found = [step.made or {} for step in steps]
    names = [each["metadata"]["name"] for each in found]
    labels = [each["spec"]["podSelector"]["matchLabels"][PARTITION_LABEL] for each in found]

    assert len(set(names)) == len(set(labels)) == 2
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", name) for name in names)
    assert all(re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", label) for label in labels)


def test_a_label_comes_off_a_pod_and_its_others_stay() -> None:
    row = pod("a")
    row["metadata"]["resourceVersion"] = "1"
    (step,) = label_steps([row], new_mark(RUN))
    api = FakeApi({step.path: row})
    before = api.content(step.path)

    make_change(step, api)
    labelled = PARTITION_LABEL in api.objects[step.path]["metadata"]["labels"]
    carry_out(step, api)

    assert labelled
    assert api.content(step.path) == before


def test_a_policy_goes_as_it_came_and_once() -> None:
    (step,) = policy_steps([pod("a")], new_mark(RUN), "both")
    api = FakeApi()

    make_change(step, api)
    made = [*api.objects]
    done = [carry_out(step_from_json(step.to_json()), api) for _ in range(2)]

    assert made == [step.path]
    assert [each.has_acted for each in done] == [True, False]
    assert api.objects == {}


def test_a_dead_man_takes_the_label_off_and_leaves_the_policy_to_who_may_delete_it() -> None:
    row, mark = pod("a"), new_mark(RUN)
    row["metadata"]["resourceVersion"] = "1"
    steps = [*policy_steps([row], mark, "both"), *label_steps([row], mark)]
    policy, label = steps
    api = FakeApi({label.path: row})
    entry = MirrorEntry(id="1", fault="pods.partition", subject="a", steps=tuple(steps))
    for step in steps:
        make_change(step, api)

    by_dead_man, _ = undo_entry(entry, api, by="dead-man", may_delete=False)
    left, labels = policy.path in api.objects, api.objects[label.path]["metadata"]["labels"]
    by_us, _ = undo_entry(by_dead_man, api, by="us")

    assert (by_dead_man.is_pending, by_us.is_pending) == (False, False)
    assert "is left" in by_dead_man.did
    assert left
    assert PARTITION_LABEL not in labels
    assert policy.path not in api.objects


def test_a_policy_is_owned_by_the_pods_of_its_namespace_that_it_is_about() -> None:
    chosen = [pod("a"), pod("b", namespace="other"), pod("c")]

    first, second = (step.made or {} for step in policy_steps(chosen, new_mark(RUN), "both"))

    assert [each["name"] for each in first["metadata"]["ownerReferences"]] == ["a", "c"]
    assert [each["name"] for each in second["metadata"]["ownerReferences"]] == ["b"]


@pytest.mark.parametrize(
    ("now", "is_verified"),
    [("as labelled", True), ("another one", False), ("gone", False), ("without the label", False)],
)
def test_a_pod_that_is_gone_or_not_labelled_is_not_one_that_is_cut_off(
    tmp_path: Path, now: str, is_verified: bool
) -> None:
    row = pod("a")
    (step,) = label_steps([row], new_mark(RUN))
    labelled = row | {"metadata": row["metadata"] | {"annotations": {}, "resourceVersion": "1"}}
    api = FakeApi({step.path: labelled})
    if now != "without the label":
        make_change(step, api)
    found = api.objects[step.path]
    if now == "another one":
        found["metadata"]["uid"] = "uid-of-another"
    answers = {
        "GET /api/v1/namespaces/kube-system": [Answer(body={"metadata": {"uid": "c-1"}})],
        f"GET {step.path}": [Answer(status=404) if now == "gone" else Answer(body=found)],
        "GET": [Answer(status=503, body={"kind": "Status", "message": "no route to host"})],
    }

    with answering(tmp_path, answers):
        cluster = Cluster(namespaces=("inference",), kubeconfig=str(tmp_path / "kubeconfig"))
        seen = verify_partition(
            {"cluster": cluster.to_json(), "identity": {"uid": "c-1"}, "arguments": {"port": 8000}}
            | {"hit_pods": [row["metadata"]], "victims": [{"name": "inference/a"}]}
            | {"undo_steps": [step.to_json()]}
        )

    assert seen.is_verified is is_verified

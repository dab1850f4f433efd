"""A partition: which pods it is about, and that it takes nothing along that is not its own."""

from __future__ import annotations

import re

from experiments.kube.marks import new_mark
from experiments.kube.network import PARTITION_LABEL, label_steps, policies_for
from experiments.kube.undo_steps import carry_out, make_change
from tests.experiments.kube.fake_api import FakeApi
from tests.experiments.kube.objects import pod

RUN = "20261121T185819Z-gameday-e2c9"


def test_a_policy_is_about_the_label_of_this_partition_alone() -> None:
    chosen = [pod("a"), pod("b", namespace="other")]
    mark = new_mark(RUN)

    (first, second), steps = policies_for(chosen, mark, "both"), label_steps(chosen, mark)

    assert [each["metadata"]["namespace"] for each in (first, second)] == ["inference", "other"]
    assert first["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert {step.changes[0].ours for step in steps} == {
        first["spec"]["podSelector"]["matchLabels"][PARTITION_LABEL]
    }
    assert "ingress" not in first["spec"]  # none is let in


def test_two_partitions_of_one_day_have_names_and_labels_of_their_own() -> None:
    found = [policies_for([pod("a")], new_mark(RUN * 3), "ingress")[0] for _ in range(2)]
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

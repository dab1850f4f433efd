"""Counting only what has changed comes to the same as counting all."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from experiments.kube.pods.workloads import count
from experiments.kube.watching.pod_view import PodView
from experiments.kube.watching.tally import Tally
from probes.json_types import JsonObject
from tests.experiments.kube.list_api import change, listing, page
from tests.experiments.kube.objects import WORKLOAD, pod

OTHER = WORKLOAD | {"name": "other", "uid": "d-2", "selector": {"matchLabels": {"app": "other"}}}
TRAINING = {"kind": "PyTorchJob", "namespace": "inference", "name": "t", "uid": "t-1", "wanted": None}
WORKLOADS = [WORKLOAD, OTHER, TRAINING]
# A roll-out has two sets of one deployment, one belongs to the other deployment, one pod to nobody we watch.
OWNERS = [
    ("ReplicaSet", "chat-1", "chat"),
    ("ReplicaSet", "chat-2", "chat"),
    ("ReplicaSet", "other-1", "other"),
    ("PyTorchJob", "t-1", ""),
    ("Job", "j-1", "chat"),
    ("", "", "chat"),
]


def made(rng: random.Random, name: str) -> JsonObject:
    kind, owner, app = rng.choice(OWNERS)
    found = pod(name, owner=kind or None, is_ready=rng.random() < 0.7, is_leaving=rng.random() < 0.2)
    found["metadata"]["labels"] = {"app": app}
    for reference in found["metadata"].get("ownerReferences", []):
        reference["uid"] = owner
    return found


@pytest.mark.parametrize("seed", range(5))
def test_after_any_changes_the_count_is_that_of_all_pods(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    changes = [
        change(rng.choice(["ADDED", "MODIFIED", "DELETED"]), made(rng, f"p-{rng.randrange(12)}"), version=n)
        for n in range(8, 108)
    ]
    first, anew = ([made(rng, f"p-{number}") for number in range(count)] for count in (8, 5))
    watches = [
        [*changes[:50], {"type": "ERROR", "object": {"code": 410, "message": "too old"}}],
        changes[50:],
    ]
    differing, looks = [], 0

    with listing(tmp_path, pages=[page(first, version=7), page(anew, version=57)], watches=watches) as (
        _,
        client,
    ):
        view = PodView(client, ["inference"])
        tally = Tally(WORKLOADS, view, without={"p-3"})

        def compare() -> bool:
            nonlocal looks
            looks += 1
            counted, expected = tally.rows(), [count(row, view.pods, without={"p-3"}) for row in WORKLOADS]
            if [row for _, row in counted] != expected:
                differing.append((counted, expected))
            return looks >= 102  # each change, the first list, and the one after the error

        has_seen_all = view.follow(compare, within_s=60)

    assert has_seen_all
    assert differing == []

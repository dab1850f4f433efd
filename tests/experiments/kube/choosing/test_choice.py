from __future__ import annotations

import pytest

from experiments.faults.fault import FaultRefused
from experiments.kube.choosing.allowed import strangers_of, why_not
from experiments.kube.choosing.choice import draw, how_many
from experiments.kube.pods.deployments import unavailable_max
from experiments.kube.pods.drainable import why_not_drained
from probes.json_types import JsonObject
from tests.experiments.kube.objects import pod

SHM = ({"name": "shm", "emptyDir": {"medium": "Memory"}},)


def test_no_one_is_drawn_twice_and_a_seed_draws_the_same() -> None:
    pods = [pod(name) for name in "abcdefgh"]

    drawn = [[row["metadata"]["name"] for row in draw(pods, 8, order="random", seed=s)] for s in (1, 1, 2)]
    few = [[row["metadata"]["name"] for row in draw(pods, 3, order="random", seed=s)] for s in (1, 1, 2)]

    assert drawn == [list("abcdefgh")] * 3
    assert few[0] == few[1] != few[2]


def test_oldest_is_by_age_not_by_name() -> None:
    pods = [pod("a", created="2026-11-21T12:00:00Z"), pod("b", created="2026-11-21T09:00:00Z")]

    assert draw(pods, 1, order="oldest", seed=1) == [pods[1]]


def test_a_share_is_rounded_down_and_hits_one_at_least() -> None:
    assert [how_many(n, count=None, share=0.5) for n in (1, 3, 4)] == [1, 1, 2]


@pytest.mark.parametrize(("count", "share"), [(1, 0.5), (0, None), (-1, None), (None, 0.0), (None, 1.5)])
def test_counts_and_shares_out_of_bounds_are_refused(count: int | None, share: float | None) -> None:
    with pytest.raises(FaultRefused):
        how_many(4, count=count, share=share)


def test_what_may_not_be_evicted_says_why() -> None:
    assert why_not_drained(pod("a"), may_lose_data=False) == ""
    assert "has no controller" in why_not_drained(pod("a", owner=None), may_lose_data=True)
    assert "emptyDir shm" in why_not_drained(pod("a", volumes=SHM), may_lose_data=False)
    assert why_not_drained(pod("a", volumes=SHM), may_lose_data=True) == ""


def test_pods_of_others_are_strangers_but_for_those_of_every_node() -> None:
    pods = [
        pod("ours"),
        pod("proxy", namespace="kube-system", owner="DaemonSet"),
        pod("dns", namespace="kube-system"),
        pod("tenant", namespace="other", owner="DaemonSet"),
    ]

    found = [row["metadata"]["name"] for row in strangers_of(pods, ["inference"])]

    assert found == ["dns", "tenant"]


def test_only_the_very_label_allows_it() -> None:
    def labelled(**labels: str) -> JsonObject:
        return {"metadata": {"labels": labels}}

    assert why_not("node", "a", {"metadata": {"labels": {"overproof.dev/gameday": "allowed"}}}) == ""
    assert "kubectl label node a" in why_not("node", "a", labelled(gameday="allowed"))
    assert "there is none" in why_not("node", "a", None)


@pytest.mark.parametrize(
    ("strategy", "missing"),
    [
        ({"type": "Recreate"}, 4),
        ({"rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}, 1),
        ({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}, 0),
        ({"rollingUpdate": {"maxUnavailable": "10%", "maxSurge": 0}}, 1),
        ({}, 1),
    ],
)
def test_a_roll_out_takes_what_its_strategy_lets_it(strategy: JsonObject, missing: int) -> None:
    assert unavailable_max({"replicas": 4, "strategy": strategy}) == missing

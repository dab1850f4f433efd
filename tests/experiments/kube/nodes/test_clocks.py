"""The platform's clocks, and what of a recovery was the platform's."""

from __future__ import annotations

import pytest

from experiments.faults.fault import FaultRefused
from experiments.impact.recovery import FaultSeen, Times
from experiments.kube.nodes.clocks import (
    ASSUMED,
    BY_OWNER,
    STATED,
    Clocks,
    check_recovery,
    settings_of,
    started_within_s,
    tolerated_s,
)
from experiments.kube.nodes.clocks_judging import judge_split
from probes.errors import ConfigError
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from tests.experiments.kube.objects import WORKLOAD, pod

S = 1_000_000_000
CLOCKS = Clocks(
    lease_s=8, grace_s=8, period_s=1, toleration_s=5, queue_s=0, start_s=2,
    known_by={"node_monitor_grace_s": BY_OWNER},
)  # fmt: skip


def tolerating(*seconds: int | None, key: str = "node.kubernetes.io/unreachable") -> JsonObject:
    row = pod("a")
    tolerations = [{"key": key, "effect": "NoExecute", "operator": "Exists"} for _ in seconds]
    for toleration, each in zip(tolerations, seconds, strict=True):
        if each is not None:
            toleration["tolerationSeconds"] = each  # type: ignore[assignment]
    row["spec"]["tolerations"] = tolerations
    return row


def test_what_is_stated_counts_more_than_what_is_published_and_that_more_than_a_default() -> None:
    stated, published = (
        {"node_monitor_grace_s": 40.0},
        {"node_monitor_grace_s": "8", "node_monitor_period_s": "1"},
    )

    settings, known_by = settings_of(stated, published)

    assert [*settings.values()] == [40.0, 1.0, 0.1]
    assert [*known_by.values()] == [STATED, BY_OWNER, ASSUMED]


@pytest.mark.parametrize("wrong", ["8s", "", "0", "-1", "nan", "inf"])
def test_a_clock_that_is_no_number_of_seconds_is_refused_and_not_passed_over(wrong: str) -> None:
    with pytest.raises(FaultRefused, match="node_monitor_grace_s: wanted a number"):
        settings_of({}, {"node_monitor_grace_s": wrong})


def test_a_pod_that_tolerates_a_lost_node_for_good_is_refused() -> None:
    assert tolerated_s(tolerating(300)) == 300
    assert tolerated_s(tolerating(300, key="node.kubernetes.io/not-ready")) == 0
    with pytest.raises(FaultRefused, match="for good"):
        tolerated_s(tolerating(None))
    with pytest.raises(FaultRefused, match="for good"):
        tolerated_s(tolerating(None, key=""))  # tolerates everything


def test_how_long_a_start_takes_is_told_by_pods_that_were_never_restarted() -> None:
    slow, restarted = pod("a"), pod("b")
    for row, began in ((slow, "2026-11-21T10:00:07Z"), (restarted, "2026-11-21T19:00:00Z")):
        row["status"]["containerStatuses"][0]["state"] = {"running": {"startedAt": began}}
    restarted["status"]["containerStatuses"][0]["restartCount"] = 1

    assert started_within_s([slow, restarted]) == 7
    assert started_within_s([]) == 2


def test_an_expectation_that_the_platform_alone_cannot_meet_is_refused() -> None:
    captured = {"clocks": CLOCKS.to_json()}

    with pytest.raises(ConfigError, match=r"recovery_s: 16 s.*takes 16 s"):
        check_recovery(captured, 16)
    check_recovery(captured, 17)
    check_recovery({}, 1)


def row(t_s: float, *, ready: str = "", made: str = "", started: str = "") -> JsonObject:
    seen = {
        "t_ns": int(t_s * S),
        "subject": "workload:Deployment/inference/chat",
        "uids": ready,
        "made": made,
    }
    return seen | {"started": started, "wanted": 3, "ready": len(ready.split()), "is_serving": True}


def node(t_s: float, ready: int) -> JsonObject:
    return {"t_ns": int(t_s * S), "subject": "node:n", "uids": "", "ready": ready, "is_serving": bool(ready)}


HEALED = [
    row(1, ready="a b c", made="a b c", started="a b c"),
    node(9, 0),
    row(15, ready="b c", made="b c d", started="b c"),
    row(17, ready="b c", made="b c d", started="b c d"),
    row(22, ready="b c d", made="b c d", started="b c d"),
]


def split(rows: list[JsonObject], *, clocks: Clocks = CLOCKS, whole_s: float | None = None) -> list[Finding]:
    captured: JsonObject = {
        "kube_fault": "node.network-cut",
        "victims": [{"name": "n"}],
        "workloads": [WORKLOAD],
    }
    captured |= {
        "hit_pods": [{"namespace": "inference", "name": "a", "uid": "a"}],
        "clocks": clocks.to_json(),
    }
    fault = FaultSeen(
        data={"id": "f", "ends_by": "platform", "t_inject_ns": S},
        captured=captured,
        is_verified=True,
        observed="",
        t_undone_ns=None,
    )
    times = Times(
        t_inject_ns=S, t_clock_ns=S, detection=None, t_mitigate_ns=None, t_recover_ns=None,
        t_redundant_ns=None if whole_s is None else int(whole_s * S), windows=(),
    )  # fmt: skip
    return judge_split(times, rows, [fault], subject="target:t", recovery_s=30)


def test_what_was_lost_is_split_at_the_moment_when_the_others_containers_ran() -> None:
    platform, application = split(HEALED, whole_s=22)

    assert (platform.outcome, application.outcome) == (Outcome.PASS, Outcome.PASS)
    assert platform.observed == (
        "its loss noticed after 8.0 s; other pods made after 14.0 s; their containers running after 16.0 s"
    )
    assert application.observed == "ready 5.0 s after its containers ran"


def test_pods_that_were_lost_do_not_count_as_made_or_started_while_nobody_has_noticed() -> None:
    unnoticed = [row(t, ready="a b c", made="a b c", started="a b c") for t in (1, 20, 40)]

    platform, application = split(unnoticed)

    assert platform.outcome is Outcome.FAIL
    assert platform.observed == "nothing in their place 39.0 s after the fault"
    assert application.outcome is None


def test_a_platform_that_was_not_watched_long_enough_has_not_failed() -> None:
    assert split(HEALED[:2])[0].outcome is Outcome.INCONCLUSIVE


def test_a_platform_beyond_clocks_that_nobody_has_told_is_undecided() -> None:
    late = [row(1, ready="a b c"), row(60, made="b c d", started="b c d")]
    assumed = Clocks(**CLOCKS.to_json() | {"known_by": {"node_monitor_grace_s": ASSUMED}})

    assert split(late)[0].outcome is Outcome.FAIL
    assert split(late, clocks=assumed)[0].outcome is Outcome.INCONCLUSIVE


def test_an_application_that_is_slow_fails_though_the_platform_was_quick() -> None:
    platform, application = split(HEALED, whole_s=40)

    assert (platform.outcome, application.outcome) == (Outcome.PASS, Outcome.FAIL)


def test_a_loss_without_clocks_is_not_split() -> None:
    times = Times(
        t_inject_ns=S, t_clock_ns=S, detection=None, t_mitigate_ns=None, t_recover_ns=None,
        t_redundant_ns=None, windows=(),
    )  # fmt: skip
    fault = FaultSeen(data={}, captured={"workloads": [1]}, is_verified=True, observed="", t_undone_ns=None)

    assert judge_split(times, [], [fault], subject="t", recovery_s=1) == []

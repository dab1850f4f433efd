"""What was not seen of a cluster is told, and is a pass only where the fault explains it."""

from __future__ import annotations

from dataclasses import replace

from experiments.impact.recovery import Detection, FaultSeen, Times
from experiments.kube.api.judging import find_unseen, judge_sight, noticed_by_watch
from experiments.kube.watching.samples import find_whole
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from tests.experiments.kube.objects import WORKLOAD

S = 1_000_000_000
FAULT = FaultSeen(
    data={"id": "f", "fault": "api.away", "subject": "s", "ends_by": "undo", "t_inject_ns": 10 * S},
    captured={"kube_fault": "api.away", "victims": [], "workloads": [WORKLOAD], "hit_pods": []},
    is_verified=True,
    observed="no answer",
    t_undone_ns=20 * S,
)
TIMES = Times(
    t_inject_ns=10 * S,
    t_clock_ns=20 * S,
    detection=None,
    t_mitigate_ns=None,
    t_recover_ns=None,
    t_redundant_ns=None,
    windows=(),
)


def call(t_s: float, *, took_ms: float = 10, is_answered: bool = True) -> JsonObject:
    return {"t_ns": int(t_s * S), "subject": "api:x", "took_ms": took_ms, "is_answered": is_answered}


def calls(*, silent: set[int], until: int = 30) -> list[JsonObject]:
    return [call(t, is_answered=t not in silent) for t in range(until)]


def judged(rows: list[JsonObject], fault: FaultSeen = FAULT, *, recovery_s: float = 5) -> Finding:
    (finding,) = judge_sight([fault], rows, subject="target:t", recovery_s=recovery_s)
    return finding


def test_a_gap_within_the_fault_is_told_with_its_length_and_passes() -> None:
    found = judged(calls(silent=set(range(10, 20))))

    assert found.outcome is Outcome.PASS
    assert "not seen for 10.0 s, all by the fault" in found.observed
    assert "known from before and after alone" in found.observed


def test_a_call_that_was_under_way_when_the_fault_came_is_of_it() -> None:
    rows = [*calls(silent=set(range(12, 20))), call(8, took_ms=5000, is_answered=False)]
    rows = [row for row in rows if row["is_answered"] is False or int(row["t_ns"]) not in (8 * S, 9 * S)]

    assert judged(rows).outcome is Outcome.PASS


def test_a_gap_that_the_fault_does_not_explain_is_no_pass() -> None:
    before = judged(calls(silent={2, *range(10, 20)}))
    after = judged(calls(silent={*range(10, 20), 24, 25}))

    assert [before.outcome, after.outcome] == [Outcome.INCONCLUSIVE] * 2
    assert "1.0 s of them not by the fault" in before.observed
    assert "2.0 s of them not by the fault" in after.observed


def test_a_cluster_that_is_not_seen_again_in_time_fails_and_one_not_watched_long_enough_is_open() -> None:
    late = judged(calls(silent=set(range(10, 27))))
    never = judged(calls(silent=set(range(10, 30))))
    short = judged(calls(silent=set(range(10, 22)), until=22))

    assert (late.outcome, never.outcome, short.outcome) == (Outcome.FAIL, Outcome.FAIL, Outcome.INCONCLUSIVE)
    assert "seen again only 7.0 s after" in late.observed


def test_a_fault_that_was_never_undone_and_a_day_that_nobody_watched_are_open() -> None:
    assert judged(calls(silent=set(range(10, 30))), replace(FAULT, t_undone_ns=None)).outcome is (
        Outcome.INCONCLUSIVE
    )
    assert judged([]).outcome is Outcome.INCONCLUSIVE


def test_where_no_fault_was_on_our_way_nothing_is_said() -> None:
    other = replace(FAULT, data=FAULT.data | {"fault": "pod.kill"})

    assert judge_sight([other], calls(silent={3}), subject="s", recovery_s=5) == []


def test_calls_without_an_answer_are_one_stretch_until_the_next_answer() -> None:
    first, last = find_unseen(
        [call(1, is_answered=False), call(2, is_answered=False), call(4), call(9, is_answered=False)]
    )

    assert (first.start_ns, first.end_ns) == (S, int(4.01 * S))
    assert (last.start_ns, last.end_ns) == (9 * S, None)


def test_our_own_watch_notices_silence_and_slowness_after_the_injection_only() -> None:
    silent = noticed_by_watch(TIMES, [call(3, is_answered=False), call(12, took_ms=500, is_answered=False)])
    slow = noticed_by_watch(TIMES, [call(9, took_ms=1500), call(11)])
    quick = noticed_by_watch(TIMES, [call(3, is_answered=False), call(12)])
    sooner = noticed_by_watch(
        replace(TIMES, detection=Detection(t_ns=11 * S, by="a bad request")), [call(12, is_answered=False)]
    )

    assert silent.detection == Detection(t_ns=int(12.5 * S), by="our own watch of the API")
    assert slow.detection == Detection(t_ns=int(10.5 * S), by="our own watch of the API")
    assert quick.detection is None
    assert sooner.detection == Detection(t_ns=11 * S, by="a bad request")


def test_what_was_known_before_we_were_cut_off_does_not_show_that_all_is_well_after() -> None:
    subject = "workload:Deployment/inference/chat"
    row = {"subject": subject, "is_serving": True, "uids": "a b c"}
    old = row | {"t_ns": 21 * S, "seen_ns": 19 * S}
    new = row | {"t_ns": 23 * S, "seen_ns": 22 * S}

    assert find_whole([old, new], [FAULT.captured], replaced=set(), since_ns=20 * S) == 23 * S
    assert find_whole([old], [FAULT.captured], replaced=set(), since_ns=20 * S) is None

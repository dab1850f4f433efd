"""Breaches at least and at most: what the client's own delay blurs is never counted as certain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from probes.breaches import Breaches, count_breaches
from probes.metric import ITL
from tests.probes.rows import answered


def test_an_exact_time_is_a_breach_or_is_none() -> None:
    assert count_breaches("ttft_ms", 100, answered(ttft_ms=101)) == Breaches(certain=1, possible=1, total=1)
    assert count_breaches("ttft_ms", 100, answered(ttft_ms=100)) == Breaches(certain=0, possible=0, total=1)


def test_a_first_event_read_together_with_others_is_a_possible_breach_only() -> None:
    row = answered(ttft_ms=120, first_uncertain_ms=30)

    assert count_breaches("ttft_ms", 100, row) == Breaches(certain=0, possible=1, total=1)
    assert count_breaches("ttft_ms", 80, row) == Breaches(certain=1, possible=1, total=1)


def test_late_sending_is_no_certain_breach_of_a_promise_from_the_schedule() -> None:
    row = answered(ttft_ms=80)
    late = answered(ttft_ms=80, t_intended_ns=row.t_intended_ns - 50_000_000)

    assert count_breaches("ttft_from_schedule_ms", 100, late) == Breaches(certain=0, possible=1, total=1)
    waited = answered(ttft_ms=80, t_intended_ns=row.t_intended_ns - 50_000_000, connect_ms=50.0)
    assert count_breaches("ttft_from_schedule_ms", 100, waited).certain == 1


def test_events_of_one_read_share_their_gap_between_them() -> None:
    row = answered(gaps_ms=(20.0, 90.0, 0.0, 0.0, 20.0))

    # Three gaps within 90 ms: none, one or two of them may have been longer than 40 ms.
    assert count_breaches(ITL, 40, row) == Breaches(certain=0, possible=2, total=5)
    # 90 ms in three gaps of at most 25 ms is impossible: one was longer for certain.
    assert count_breaches(ITL, 25, row) == Breaches(certain=1, possible=3, total=5)


def test_events_read_together_with_the_first_lie_within_what_is_uncertain_of_it() -> None:
    row = answered(gaps_ms=(0.0, 0.0, 20.0), first_uncertain_ms=50)

    assert count_breaches(ITL, 30, row) == Breaches(certain=0, possible=1, total=3)


def test_a_last_event_read_with_the_end_of_the_stream_may_have_come_earlier() -> None:
    row = answered(gaps_ms=(20.0, 60.0), last_uncertain_ms=30)

    assert count_breaches(ITL, 40, row) == Breaches(certain=0, possible=1, total=2)


@given(
    true_gaps_ms=st.lists(st.integers(1, 100), min_size=1, max_size=30),
    merged=st.lists(st.booleans(), min_size=30, max_size=30),
    bound_ms=st.integers(1, 120),
)
def test_the_true_count_always_lies_between_the_two(
    true_gaps_ms: list[int], merged: list[bool], bound_ms: int
) -> None:
    seen: list[float] = []
    held = 0.0
    pending = 0
    for position, gap in enumerate(true_gaps_ms):
        held, pending = held + gap, pending + 1
        if position == len(true_gaps_ms) - 1 or not merged[position]:  # a read: all that waited comes at once
            seen += [held] + [0.0] * (pending - 1)
            held, pending = 0.0, 0
    truth = sum(gap > bound_ms for gap in true_gaps_ms)

    found = count_breaches(ITL, bound_ms, answered(gaps_ms=tuple(seen)))

    assert found.certain <= truth <= found.possible
    assert found.total == len(true_gaps_ms)

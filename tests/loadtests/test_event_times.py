"""Times of events: what is exact, what lies within an interval, and that the sum stays true."""

from __future__ import annotations

from loadtests.reading.event_times import GAP_US_MAX, EventTimes

MS = 1_000_000


def test_events_read_one_by_one_are_exact() -> None:
    times = EventTimes()
    for at_ms in (10, 13, 20):
        times.note(1, at_ms * MS, is_exact=True, uncertain_ns=0)

    assert (times.t_first_ns, times.t_last_ns, list(times.gaps_us)) == (10 * MS, 20 * MS, [3000, 7000])
    assert (times.gaps_censored, times.coalesced, times.first_uncertain_ns) == (0, 0, 0)


def test_events_read_together_are_censored_and_the_gap_after_them_is_not() -> None:
    times = EventTimes()
    times.note_one(10 * MS)
    times.note(3, 40 * MS, is_exact=True, uncertain_ns=25 * MS)
    times.note_one(50 * MS)

    assert list(times.gaps_us) == [30_000, 0, 0, 10_000]
    assert (times.gaps_censored, times.coalesced, times.last_uncertain_ns) == (3, 1, 0)


def test_an_event_whose_stamp_is_not_its_own_censors_the_gaps_on_both_its_sides() -> None:
    times = EventTimes()
    times.note_one(10 * MS)
    times.note(1, 20 * MS, is_exact=False, uncertain_ns=4 * MS)
    assert times.last_uncertain_ns == 4 * MS
    times.note_one(30 * MS)
    times.note_one(40 * MS)

    assert (times.gaps_censored, list(times.gaps_us)) == (2, [10_000, 10_000, 10_000])


def test_a_clock_that_steps_back_or_far_ahead_does_not_break_the_row() -> None:
    times = EventTimes()
    for at_ns in (10 * MS, 5 * MS, (GAP_US_MAX + 10) * 1000 + 5 * MS):
        times.note_one(at_ns)

    assert list(times.gaps_us) == [0, GAP_US_MAX]

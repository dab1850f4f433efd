"""When the events of one answer came, without an object per event, and how sure that is.

A kernel stamp is that of the last segment in a read. So a read with one event is exact; of a read with
several, only the last event's time is known, and the others lie between the hub's previous look and it.
"""

from __future__ import annotations

from array import array

GAP_US_MAX = 2**32 - 1  # what one place of the array holds: more than any time-out allows


class EventTimes:
    """Times of events with content, in nanoseconds of the wall clock."""

    __slots__ = (
        "coalesced",
        "first_uncertain_ns",
        "gaps_censored",
        "gaps_us",
        "last_uncertain_ns",
        "t_first_ns",
        "t_last_ns",
    )

    def __init__(self) -> None:
        self.t_first_ns: int | None = None
        self.t_last_ns: int | None = None
        self.first_uncertain_ns = self.last_uncertain_ns = 0  # so much earlier they may have come
        self.gaps_us = array("I")  # 0: in one read with the one before
        self.gaps_censored = 0  # of them, those that are known only as lying within an interval
        self.coalesced = 0  # reads that held several events

    def note_one(self, stamp_ns: int) -> None:
        """Note the exact time of one event."""
        last_ns = self.t_last_ns
        if last_ns is None:
            self.t_first_ns = stamp_ns
        else:
            gap_us = (stamp_ns - last_ns) // 1000
            self.gaps_us.append(gap_us if 0 <= gap_us <= GAP_US_MAX else _clamped(gap_us))
            if self.last_uncertain_ns:
                self.gaps_censored += 1
                self.last_uncertain_ns = 0
        self.t_last_ns = stamp_ns

    def note(self, contents: int, stamp_ns: int, *, is_exact: bool, uncertain_ns: int) -> None:
        """Note one read of several events, or one whose stamp is not just the last event's.

        ``uncertain_ns`` is how much earlier than the stamp anything in this read may have come.
        """
        if contents == 1 and is_exact:
            self.note_one(stamp_ns)
            return
        self.coalesced += contents > 1
        self.gaps_censored += contents - (self.t_last_ns is None)
        if self.t_last_ns is None:
            self.t_first_ns, self.first_uncertain_ns = stamp_ns, uncertain_ns
        else:
            self.gaps_us.append(_clamped((stamp_ns - self.t_last_ns) // 1000))
        if contents > 1:  # they came somewhere in this gap; 0 says "together with the one before"
            self.gaps_us.extend([0] * (contents - 1))
        self.last_uncertain_ns = 0 if is_exact else uncertain_ns
        self.t_last_ns = stamp_ns


def _clamped(gap_us: int) -> int:
    return min(max(0, gap_us), GAP_US_MAX)

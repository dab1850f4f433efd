"""Nanoseconds held back per reason: the fields lie in one place or another, and one of them is believed.

251-253 up to the drivers of CUDA 12, 269-271 from CUDA 13 on, where 251-253 mean power smoothing. The age of
the driver says where to look first; the event reasons that were seen meanwhile say whether to believe it.
"""

from __future__ import annotations

from collections.abc import Mapping

PLACES = {"old": 251, "new": 269}
REASONS = ("software thermal", "hardware thermal", "power brake")
DRIVER_WITH_NEW_PLACE = 580  # the driver of CUDA 13.0
# A reason seen in this share of the time must have left something on its counter.
SEEN_SHARE_MIN = 0.05
CLOCK_SLACK = 1.2  # a counter cannot have counted longer than the run lasted, give or take


def believed_counters(
    counters: Mapping[str, tuple[float, float]],
    *,
    driver_major: int | None,
    seen: Mapping[str, float],
    run_s: float,
) -> tuple[dict[str, float], str]:
    """Return the seconds held back per reason, and where they stood; empty with the reason why not.

    ``seen`` holds the share of the time for which each event reason was seen set.
    """
    order = (
        ["old", "new"]
        if driver_major is not None and driver_major < DRIVER_WITH_NEW_PLACE
        else ["new", "old"]
    )
    doubts = []
    for place in order:
        added_s = _added_s(counters, PLACES[place])
        if added_s is None:
            continue
        doubt = _doubt(added_s, seen, run_s)
        if not doubt:
            return added_s, f"fields {PLACES[place]} to {PLACES[place] + 2}"
        doubts.append(f"fields {PLACES[place]} to {PLACES[place] + 2}: {doubt}")
    return {}, "; ".join(doubts) or "this driver does not count them"


def _added_s(counters: Mapping[str, tuple[float, float]], first: int) -> dict[str, float] | None:
    """Return what was added at one place, in seconds; None: the driver does not know it."""
    found = [counters.get(f"clock_field_{first + n}") for n in range(len(REASONS))]
    if any(pair is None for pair in found):
        return None
    return {reason: (pair[1] - pair[0]) / 1e9 for reason, pair in zip(REASONS, found, strict=True) if pair}


def _doubt(added_s: Mapping[str, float], seen: Mapping[str, float], run_s: float) -> str:
    """Say what speaks against a place; empty: nothing."""
    for reason, seconds in added_s.items():
        if seconds < 0 or seconds > CLOCK_SLACK * run_s + 1:
            return f"{seconds:.0f} s of {reason} in a run of {run_s:.0f} s"
        if seen.get(reason, 0.0) >= SEEN_SHARE_MIN and seconds == 0:
            return f"{reason} was seen for {seen[reason]:.0%} of the time and nothing was counted"
    return ""

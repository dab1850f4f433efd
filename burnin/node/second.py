"""Ten readings of one second, put together to one row: what an average would hide stays visible."""

from __future__ import annotations

from collections.abc import Sequence

from probes.json_types import JsonObject

# The bits by which heat or hardware hold the clocks back; the column says for which part of the second.
HELD_COLUMNS = {
    0x8: "held_hw_slowdown_pct",
    0x20: "held_sw_thermal_pct",
    0x40: "held_hw_thermal_pct",
    0x80: "held_power_brake_pct",
}


def put_together(readings: Sequence[JsonObject]) -> JsonObject:
    """Return one row: means, extremes, every reason that was seen, and for how much of the time.

    A reading that no driver gave leaves its columns out.
    """
    row: JsonObject = {}
    power = _column(readings, "power_w")
    if power:
        row |= {"power_w": round(sum(power) / len(power), 3), "power_max_w": max(power)}
    clock = _column(readings, "sm_clock_mhz")
    if clock:
        row |= {"sm_clock_mhz": round(sum(clock) / len(clock), 1), "sm_clock_min_mhz": min(clock)}
    reasons = [int(value) for value in _column(readings, "event_reasons")]
    if reasons:
        row["event_reasons"] = _all_bits(reasons)
        for bit, column in HELD_COLUMNS.items():
            row[column] = 100 * sum(1 for value in reasons if value & bit) / len(reasons)
    return row


def _all_bits(reasons: Sequence[int]) -> int:
    together = 0
    for value in reasons:
        together |= value
    return together


def _column(readings: Sequence[JsonObject], name: str) -> list[float]:
    return [reading[name] for reading in readings if name in reading]

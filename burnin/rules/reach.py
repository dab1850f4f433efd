"""Rules on how a host of a fleet was reached: its clock, and what stands between login and first word."""

from __future__ import annotations

from collections.abc import Sequence

from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

# Hosts that keep time are milliseconds apart. Seconds break what compares times across hosts: leases,
# tickets, and everybody who reads two logs.
OFFSET_S_MAX = 5.0
BEGIN_S_MAX = 10.0
_CLOCK_STEP = "see what keeps its time (chronyc tracking); where many hosts are off alike, the controller is"


def judge_clock(host: str, measured: Sequence[JsonObject]) -> list[Finding]:
    """Fail a host whose clock differs from the controller's by more than any that is kept."""
    if not measured:
        return []
    offset_s, round_trip_s = float(measured[-1]["offset_s"]), float(measured[-1]["round_trip_s"])
    is_off = abs(offset_s) - round_trip_s / 2 > OFFSET_S_MAX
    return [
        Finding(
            rule="host-clock",
            subject=f"host:{host}",
            outcome=Outcome.FAIL if is_off else Outcome.PASS,
            observed=f"{offset_s:+.3f} s against the controller's, to within {round_trip_s / 2:.3f} s",
            expected=f"at most {OFFSET_S_MAX:.0f} s",
            unit="s",
            evidence={"offset_s": offset_s, "round_trip_s": round_trip_s},
            next_step=_CLOCK_STEP if is_off else "",
        )
    ]


def tell_slow_login(host: str, begun: Sequence[JsonObject]) -> list[Finding]:
    """Show what took long before anything of ours ran; it says nothing about the hardware."""
    begin_s = max((float(data["begin_s"]) for data in begun), default=0.0)
    if begin_s <= BEGIN_S_MAX:
        return []
    return [
        Finding(
            rule="slow-login",
            subject=f"host:{host}",
            outcome=None,
            observed=f"{begin_s:.0f} s from the login to the first word of the program",
            expected=f"at most {BEGIN_S_MAX:.0f} s",
            unit="s",
            next_step="see what login shell (~/.bashrc, /etc/profile.d) and wrapper do first there",
        )
    ]

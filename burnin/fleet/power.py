"""How many hosts may load their GPUs at once, by what rack, PDU and hall bear.

A host counts with the full power of its GPUs from its first stage to its last: products draw nearly what the
power stage draws, so holding back that one stage alone would protect nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from burnin.expectation import shipped_expectations
from burnin.fleet.host import Fleet, Host, PowerCap


def watts_of(host: Host) -> float | None:
    """Return what a host's GPUs draw at most; None: the fleet file does not say what they are."""
    if host.expected.gpus == 0:
        return 0.0
    if host.expected.gpus is None or host.expected.model is None:
        return None
    for known in shipped_expectations():
        limit = known.to_expectation().figures.get("power_limit_w")
        if limit is not None and host.expected.model in (known.model, *known.match):
            return host.expected.gpus * limit.value
    return None


def caps_of(host: Host, fleet: Fleet) -> tuple[PowerCap, ...]:
    """Return the caps that a host counts against."""
    return tuple(cap for cap in fleet.power_caps if getattr(host.place, cap.kind) == cap.name)


def why_never(host: Host, fleet: Fleet) -> str | None:
    """Return why a host can never run under the caps; None: it can."""
    caps = caps_of(host, fleet)
    if not caps:
        return None
    watts = watts_of(host)
    if watts is None:
        cap = caps[0]
        return (
            f"{cap.kind} {cap.name} is capped at {cap.watts:.0f} W and what this host draws is not known;"
            " state gpus and model in the fleet file"
        )
    low = min(caps, key=lambda cap: cap.watts)
    if watts > low.watts:
        return f"draws up to {watts:.0f} W, and {low.kind} {low.name} bears {low.watts:.0f} W"
    return None


def may_start(host: Host, running: Sequence[Host], fleet: Fleet) -> bool:
    """Say whether a host may load its GPUs beside those that do already."""
    for cap in caps_of(host, fleet):
        there = [other for other in running if getattr(other.place, cap.kind) == cap.name]
        if sum(watts_of(other) or 0.0 for other in (*there, host)) > cap.watts:
            return False
    return True


def phase_offsets_s(names: Sequence[str], *, period_s: float, order: Mapping[str, int]) -> dict[str, float]:
    """Spread the steps of the power stage evenly over a period, in an order that chance has given."""
    ranked = sorted(names, key=lambda name: order[name])
    return {name: period_s * place / len(ranked) for place, name in enumerate(ranked)}

"""Lemons: nodes that pass now and then and keep coming back; signals and limits are in ``lemon.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt

from burnin.fleet.campaign_entry import CampaignEntry
from probes.spec import Spec, load_spec

FILE = Path(__file__).with_name("lemon.yaml")
DAY_NS = 86_400 * 10**9
_RUNS_FOR_RATE = 3
_OUT = ("lost", "unreachable")


class SignalSpec(Spec):
    """One signal and from where on it counts."""

    at_least: PositiveFloat
    meaning: str


class LemonSpec(Spec):
    """The file."""

    window_days: PositiveFloat
    signals_min: PositiveInt
    signals: dict[str, SignalSpec] = Field(min_length=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lemon:
    """What the past runs say of one node."""

    signals: dict[str, float]
    raised: tuple[str, ...]  # those that reached their limit
    is_lemon: bool


@cache
def load_lemon() -> LemonSpec:
    """Return the signals that are shipped."""
    return load_spec(FILE, LemonSpec)


def judge_lemon(
    entries: Sequence[CampaignEntry], drains_ns: Sequence[int], *, now_ns: int, spec: LemonSpec | None = None
) -> Lemon:
    """Count the signals of one node over the window; enough of them at once make it a lemon."""
    spec = spec or load_lemon()
    since_ns = now_ns - round(spec.window_days * DAY_NS)
    recent = [entry for entry in entries if since_ns <= entry.t_ns <= now_ns]
    own = [entry for entry in recent if not entry.is_gameday and not _is_under_fault(entry, entries)]
    finished = [entry for entry in own if entry.state == "finished"]
    failed = [entry for entry in finished if entry.rules]
    counted = {
        "single_node_failures": float(len(failed)),
        "multi_node_failures": float(sum(1 for entry in own if entry.fleet_rules)),
        "single_node_failure_rate": len(failed) / len(finished) if len(finished) >= _RUNS_FOR_RATE else 0.0,
        "xid_count": float(sum(entry.rules.count("xid") for entry in own)),
        "out_count": float(sum(1 for entry in own if entry.state in _OUT)),
        "gameday_trouble": float(sum(1 for entry in recent if entry.trouble)),
        "excluded_count": float(sum(1 for t_ns in drains_ns if since_ns <= t_ns <= now_ns)),
    }
    signals = {name: counted[name] for name in spec.signals if name in counted}
    raised = tuple(name for name, value in signals.items() if value >= spec.signals[name].at_least)
    return Lemon(signals=signals, raised=raised, is_lemon=len(raised) >= spec.signals_min)


def _is_under_fault(entry: CampaignEntry, entries: Sequence[CampaignEntry]) -> bool:
    """Say whether a game day had a fault on the node meanwhile: what was seen then may have been ours."""
    faults = (fault for other in entries for fault in other.faults_ns)
    return any(
        begin_ns <= max(entry.t_end_ns, entry.t_ns) and entry.t_ns <= end_ns for begin_ns, end_ns in faults
    )

"""The rule on a host's own error counters: what was added between the snapshots before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from probes.finding import Finding
from probes.outcome import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterLimit:
    """How much of a counter is too much in one run."""

    meaning: str
    added_max: float
    outcome: Outcome  # beyond the limit
    next_step: str
    is_per_second: bool = False  # of the run


LIMITS: dict[str, CounterLimit] = {
    "edac_uncorrected": CounterLimit(
        meaning="uncorrectable memory errors",
        added_max=0,
        outcome=Outcome.FAIL,
        next_step="find the DIMM with `ras-mc-ctl --error-count` and replace it",
    ),
    "edac_corrected": CounterLimit(
        meaning="corrected memory errors",
        added_max=10,
        outcome=Outcome.FAIL,
        next_step="find the DIMM with `ras-mc-ctl --error-count`, reseat it, and run it again",
    ),
    "machine_checks": CounterLimit(
        meaning="machine-check exceptions",
        added_max=0,
        outcome=Outcome.FAIL,
        next_step="read the kernel log for the machine check and open a case with the vendor",
    ),
    # A laptop's cores touch their limit all the time; a core held back for half of the run is another matter.
    "core_throttled_ms": CounterLimit(
        meaning="ms for which a core was held back by heat",
        added_max=500,
        is_per_second=True,
        outcome=Outcome.FAIL,
        next_step="check fans and airflow of this host, then run it again",
    ),
    "oom_kills": CounterLimit(
        meaning="processes killed for lack of memory",
        added_max=0,
        outcome=Outcome.INCONCLUSIVE,
        next_step="free memory on this host, then run it again",
    ),
}


def judge_counters(
    host: str,
    before: Mapping[str, int | None] | None,
    after: Mapping[str, int | None] | None,
    *,
    run_s: float,
) -> list[Finding]:
    """Judge each counter by what was added. None stands for a counter that this machine does not have."""
    return [_judge(host, name, before, after, run_s) for name in LIMITS]


def _judge(
    host: str,
    name: str,
    before: Mapping[str, int | None] | None,
    after: Mapping[str, int | None] | None,
    run_s: float,
) -> Finding:
    limit = LIMITS[name]
    added_max = limit.added_max * (run_s if limit.is_per_second else 1)
    outcome: Outcome | None
    first, last = (before or {}).get(name), (after or {}).get(name)
    if before is not None and first is None:
        outcome, observed = None, "this machine does not have that counter"
    elif first is None or last is None:
        outcome, observed = Outcome.INCONCLUSIVE, "not read before and after"
    else:
        added = last - first
        outcome = limit.outcome if added > added_max else Outcome.PASS
        observed = f"{added} {limit.meaning}"
    step = limit.next_step if last is not None else "see the rule agent, then run it again"
    return Finding(
        rule="host-counters",
        subject=f"host:{host}/{name}",
        outcome=outcome,
        observed=observed,
        expected=f"at most {added_max:.0f} {limit.meaning}",
        evidence={"stage": "aftermath"},
        next_step="" if outcome in (None, Outcome.PASS) else step,
    )

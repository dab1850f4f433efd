"""What the sensors said of one GPU over a run, laid out for the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from burnin.evidence import subject_of
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

LOADED_UTIL_PCT_MIN = 50.0  # an idle GPU takes its clocks and its link down, and that is no fault


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReadings:
    """Identity, the rows of every second, and the counters before and after."""

    gpu: str
    run_s: float
    identity: JsonObject = field(default_factory=dict)
    driver: str = ""
    rows: Sequence[JsonObject] = ()
    before: Mapping[str, int | float] = field(default_factory=dict)
    after: Mapping[str, int | float] = field(default_factory=dict)
    links_before: Sequence[JsonObject] | None = None  # None: they could not be read
    links_after: Sequence[JsonObject] | None = None
    lacking: Mapping[str, str] = field(default_factory=dict)  # this driver or board does not have them
    corrupt: Sequence[str] = ()  # readings that failed because the InfoROM is corrupt

    @property
    def loaded_rows(self) -> list[JsonObject]:
        """The rows during which the GPU worked."""
        return [row for row in self.rows if (row.get("util_pct") or 0) >= LOADED_UTIL_PCT_MIN]

    @property
    def driver_major(self) -> int | None:
        """The age of the driver; None: it did not say."""
        head = self.driver.partition(".")[0]
        return int(head) if head.isdigit() else None

    def added(self, name: str) -> int | float | None:
        """Return what was added to a counter; None: it was not read before and after."""
        if name not in self.before or name not in self.after:
            return None
        return self.after[name] - self.before[name]

    def last(self, name: str) -> int | float | None:
        """Return what a reading said last; None: nothing."""
        return self.after.get(name, self.before.get(name))

    def silence(self, name: str) -> tuple[Outcome | None, str]:
        """Return what to conclude where a reading is not there: it does not exist, or it kept silent."""
        if name in self.lacking:
            return None, f"this driver or board does not say: {self.lacking[name]}"
        return Outcome.INCONCLUSIVE, "not read before and after the load"


def sensor_finding(
    rule: str, readings: GpuReadings, outcome: Outcome | None, observed: str, expected: str, step: str
) -> Finding:
    """Return what a rule concluded from readings; ``step`` is for a failure."""
    if outcome is Outcome.INCONCLUSIVE:
        step = "see the rule sensors, then run it again"
    return Finding(
        rule=rule,
        subject=subject_of(readings.gpu),
        outcome=outcome,
        observed=observed,
        expected=expected,
        evidence={"stage": "aftermath"},
        next_step=step if outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE) else "",
    )

"""What a PASS proves: the rate of errors that a run without one still leaves open.

With no error in T hours a rate of 3/T per hour would have shown one in 95 of 100 such runs (rule of three:
exp(-3) is 0.0498). Only time in which results were checked counts, as the clock measured it; an error that
touches a single product is excluded only as often as products were checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from burnin.evidence import Evidence, subject_of
from probes.digits import three_digits
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

RULE_OF_THREE = 3.0
# A FAIL of one of these on a device is an error in its arithmetic, memory or links: no bound holds then.
ERROR_RULES = (
    "exact",
    "first-product",
    "digest",
    "operands",
    "memory",
    "allreduce",
    "link",
    "bandwidth",
    "ecc",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One stretch of load of one device during which results were checked."""

    stage: str
    loaded_s: float
    checked_elements: int
    every: int = 1  # of the products, each k-th was checked


def judge_bound(device: str, loads: Sequence[Load], *, errors: Sequence[str]) -> Finding:
    """State which rate of errors the checked load of one device excludes."""
    checked = [load for load in loads if load.checked_elements > 0 and load.loaded_s > 0]
    hours = sum(load.loaded_s for load in checked) / 3600
    thinned = sum(load.loaded_s / load.every for load in checked) / 3600
    elements = sum(load.checked_elements for load in checked)
    outcome: Outcome | None
    step = ""
    if errors:
        outcome, observed = None, f"errors were seen (rule {', '.join(errors)}): no bound holds"
    elif not checked:
        outcome, observed = Outcome.INCONCLUSIVE, "no result was checked under load"
        step = "see what ended the stages, then run it again"
    else:
        outcome, observed = Outcome.PASS, _bound(hours, thinned, elements)
    return Finding(
        rule="error-bound",
        subject=subject_of(device),
        outcome=outcome,
        observed=observed,
        expected="time under load in which results were checked, and what it excludes at 95 %",
        unit="GPU-hours",
        evidence=_evidence(checked, hours, thinned, elements, is_bound=outcome is Outcome.PASS),
        next_step=step,
    )


def _bound(hours: float, thinned: float, elements: int) -> str:
    text = (
        f"no error in {hours:.3g} GPU-hours ({elements:,} elements checked): "
        f"fewer than {three_digits(RULE_OF_THREE / hours)} per GPU-hour at 95 %"
    )
    if thinned < hours:
        text += f"; of errors that touch a single product fewer than {three_digits(RULE_OF_THREE / thinned)}"
    return text


def _evidence(
    checked: Sequence[Load], hours: float, thinned: float, elements: int, *, is_bound: bool
) -> JsonObject:
    stages: dict[str, float] = {}
    for load in checked:
        stages[load.stage] = stages.get(load.stage, 0.0) + load.loaded_s
    found: JsonObject = {"gpu_hours": hours, "checked_elements": elements, "loaded_s": stages}
    if is_bound:
        found["per_gpu_hour_max"] = RULE_OF_THREE / hours
        found["per_gpu_hour_max_single_product"] = RULE_OF_THREE / thinned
    return found


def judge_bounds(evidence: Evidence, findings: Sequence[Finding]) -> list[Finding]:
    """State the bound of every device, given what the other rules found on it."""
    wrong: Mapping[str, list[str]] = {
        subject_of(device): [
            f.rule
            for f in findings
            if f.rule in ERROR_RULES and f.outcome is Outcome.FAIL and device in f.subject
        ]
        for device in evidence.devices
    }
    return [
        judge_bound(device, loads_of(evidence, device), errors=wrong[subject_of(device)])
        for device in evidence.devices
    ]


def loads_of(evidence: Evidence, device: str) -> list[Load]:
    """Return what the record says of a device's time under load."""
    every = {
        str(result["stage"]): int(result["digest_every"])
        for kind in ("power.result", "throughput.result")
        for result in evidence.told(kind, device=device)
        if "digest_every" in result
    }
    return [
        Load(
            stage=str(data["stage"]),
            loaded_s=float(data["loaded_s"]),
            checked_elements=int(data["checked_elements"]),
            every=every.get(str(data["stage"]), 1) if data["stage"] == "power" else 1,
        )
        for data in evidence.told("loaded", device=device)
    ]

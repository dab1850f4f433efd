"""Rules on absolute figures: what a healthy GPU of this model delivers, and whether this one does.

A floor stands on a figure with a source. Where there is none the rule does not apply and says so: siblings
are then all there is to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from burnin.evidence import subject_of
from burnin.expectation import AllreduceFloor, Expectation, Figure
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

READINGS_MIN = 3
# NVML's total is in units of 2^20 and leaves out what the driver keeps; the model's name rounds down.
MEMORY_SHARE_MIN = 0.97
_SLOW = "look at its clocks, temperature, power limit and PCIe link; if they are normal, replace it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """What must be reached, and why so much."""

    value: float
    why: str


def share_of(figure: Figure | None, share_min: float, unit: str) -> Floor | None:
    """Return the floor that is a share of a typical figure; None: there is no such figure."""
    if figure is None:
        return None
    why = f"{share_min:.0%} of the typical {figure.value:g} {unit} ({figure.source})"
    return Floor(value=share_min * figure.value, why=why)


def whole(figure: Figure | None) -> Floor | None:
    """Return the floor that a figure is by itself; None: there is no such figure."""
    return None if figure is None else Floor(value=figure.value, why=f"a floor of {figure.source}")


def judge_floor(
    rule: str,
    subject: str,
    readings: Sequence[float],
    floor: Floor | None,
    *,
    what: str,
    unit: str,
    stage: str,
    readings_min: int = READINGS_MIN,
) -> Finding:
    """Fail what stays below its floor in the median; without a floor there is nothing to judge by."""
    outcome: Outcome | None
    evidence: JsonObject = {"stage": stage, "readings": len(readings)}
    if floor is None:
        outcome = None
        reached = f"{median(readings):.4g} {unit}" if readings else "nothing measured"
        observed = f"{what}: {reached}; no figure with a source to compare with"
    elif len(readings) < readings_min:
        outcome, observed = Outcome.INCONCLUSIVE, f"{what}: only {len(readings)} readings"
    else:
        reached_value = median(readings)
        outcome = Outcome.PASS if reached_value >= floor.value else Outcome.FAIL
        observed = f"{what}: {reached_value:.4g} {unit} in the median of {len(readings)}"
        evidence |= {"reached": reached_value, "floor": floor.value}
    expected = f"at least {floor.value:.4g} {unit}: {floor.why}" if floor else "a figure for this model"
    return Finding(
        rule=rule,
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected=expected,
        unit=unit,
        evidence=evidence,
        next_step=_next_step(outcome),
    )


def _next_step(outcome: Outcome | None) -> str:
    if outcome is Outcome.FAIL:
        return _SLOW
    return "see what ended the stage, then run it again" if outcome is Outcome.INCONCLUSIVE else ""


def judge_model(gpu: str, name: str, expectation: Expectation | None) -> Finding:
    """Say by which figures a GPU is judged; a model that nobody has described is judged by its siblings."""
    if expectation is None:
        observed = f"{name!r} is in no table: judged against its siblings only"
    else:
        observed = f"judged by the figures of {expectation.model}"
    return Finding(
        rule="expectation",
        subject=subject_of(gpu),
        outcome=None if expectation is None else Outcome.PASS,
        observed=observed,
        expected="figures for this model, with their sources",
        next_step=""
        if expectation
        else "describe it in a file for --expectations to have it judged by figures",
    )


def judge_memory_size(gpu: str, memory_bytes: float | None, expectation: Expectation) -> Finding:
    """Fail a GPU that has less memory than its model: some of it has been taken out of service."""
    figure = expectation.figures.get("memory_gb")
    outcome: Outcome | None
    floor_bytes = MEMORY_SHARE_MIN * figure.value * 1e9 if figure else 0.0
    if figure is None:
        outcome, observed = None, "no figure for this model"
    elif memory_bytes is None:
        outcome, observed = Outcome.INCONCLUSIVE, "the size of its memory was not read"
    else:
        outcome = Outcome.PASS if memory_bytes >= floor_bytes else Outcome.FAIL
        observed = f"{memory_bytes / 1e9:.1f} GB"
    return Finding(
        rule="memory-size",
        subject=subject_of(gpu),
        outcome=outcome,
        observed=observed,
        expected=f"at least {floor_bytes / 1e9:.1f} GB: {MEMORY_SHARE_MIN:.0%} of what the model has",
        unit="GB",
        evidence={"stage": "preflight"},
        next_step="" if outcome in (None, Outcome.PASS) else "reset the GPU; if memory stays away, RMA it",
    )


def judge_power(
    gpu: str, watts: Sequence[float], *, limit_w: float | None, share_min: float, stage: str
) -> Finding:
    """Leave a GPU undecided that never drew the power it is rated for: nothing was shown at full power."""
    outcome: Outcome | None
    if limit_w is None:
        outcome, observed = None, "this board states no power limit"
    elif len(watts) < READINGS_MIN:
        outcome, observed = Outcome.INCONCLUSIVE, f"only {len(watts)} readings of power under load"
    else:
        drawn = median(watts)
        outcome = Outcome.PASS if drawn >= share_min * limit_w else Outcome.INCONCLUSIVE
        observed = f"{drawn:.0f} W in the median, {drawn / limit_w:.0%} of the limit of {limit_w:.0f} W"
    return Finding(
        rule="power-reached",
        subject=subject_of(gpu),
        outcome=outcome,
        observed=observed,
        expected=f"at least {share_min:.0%} of the enforced power limit under load",
        unit="W",
        evidence={"stage": stage, "readings": len(watts)},
        next_step=""
        if outcome in (None, Outcome.PASS)
        else "see what held it back (rules throttle, speed, worker), then run it again",
    )


def judge_per_clock(
    gpu: str, own: Sequence[float], siblings: dict[str, Sequence[float]], *, ratio_min: float
) -> Finding:
    """Fail a GPU that does less per clock tick than its siblings: no heat and no power limit explains that.

    ``own`` and the siblings' figures are TFLOPS divided by the SM clock of the same second, in GHz.
    """
    peers = {name: median(values) for name, values in siblings.items() if len(values) >= READINGS_MIN}
    outcome: Outcome | None
    evidence: JsonObject = {"stage": "matmul", "siblings": peers}
    if len(own) < READINGS_MIN:
        outcome, observed = Outcome.INCONCLUSIVE, f"only {len(own)} seconds with both rate and clock"
    elif not peers:
        outcome, observed = None, f"{median(own):.3g} TFLOPS per GHz; no sibling to compare with"
    else:
        mine, theirs = median(own), median(peers.values())
        outcome = Outcome.PASS if mine > 0 and mine >= ratio_min * theirs else Outcome.FAIL
        ratio = mine / theirs if theirs else 0.0
        observed = f"{mine:.3g} TFLOPS per GHz, {ratio:.0%} of its siblings' {theirs:.3g}"
        evidence |= {"ratio": ratio}
    return Finding(
        rule="speed-per-clock",
        subject=subject_of(gpu),
        outcome=outcome,
        observed=observed,
        expected=f"at least {ratio_min:.0%} of the siblings' median",
        unit="TFLOPS/GHz",
        evidence=evidence,
        next_step="replace it: it is slow at its full clock"
        if outcome is Outcome.FAIL
        else _next_step(outcome),
    )


def floor_for_allreduce(
    floors: Sequence[AllreduceFloor], *, gpus: int, size_bytes: int, algorithm: str | None
) -> Floor | None:
    """Return the floor for an all-reduce, which names size, algorithm and GPUs; None: nobody has measured it.

    Bus bandwidth grows with the message, so a floor holds for its own size and for every larger one.
    """
    able = [f for f in floors if f.gpus == gpus and f.message_bytes <= size_bytes]
    # What was forced to one algorithm is not held to what NCCL reaches with the best of them.
    named = "any" if algorithm is None else algorithm
    chosen = max(
        (f for f in able if f.algorithm.lower() == named.lower()), key=lambda f: f.message_bytes, default=None
    )
    if chosen is None:
        return None
    why = f"{gpus} GPUs, from {chosen.message_bytes:,} B on, algorithm {chosen.algorithm} ({chosen.source})"
    return Floor(value=chosen.busbw_gbps_min, why=why)

"""Rules on speed: no device far behind its siblings, and the load that was meant really reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from burnin.evidence import subject_of
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

# Of the median of the siblings' medians. Healthy GPUs of one node lie within 5 to 8 % of each other, and 10 %
# below the best is where gpu-fryer draws the line (1.2.0). Cores are compared by the time they really worked;
# a busy neighbour on the same physical core still halves that, so that only what lies below it can be told.
RATIO_MIN = {"cuda": 0.90, "cpu": 0.45}
# A core that others kept from us for most of the phase was hardly loaded; a GPU has nobody to share with.
BUSY_PCT_MIN = {"cuda": 90.0, "cpu": 15.0}
WINDOWS_MIN = 3


def judge_speed(
    device: str, rates: Sequence[float], siblings: Mapping[str, Sequence[float]], *, ratio_min: float
) -> Finding:
    """Fail a device whose median rate lies far below what its siblings have in the median.

    Medians over one-second windows: a pause of the machine spoils a window, not the verdict.
    """
    peers = {name: median(values) for name, values in siblings.items() if len(values) >= WINDOWS_MIN}
    outcome: Outcome | None
    evidence: JsonObject = {"stage": "matmul", "windows": len(rates), "siblings_tflops": peers}
    if len(rates) < WINDOWS_MIN:
        outcome, observed = Outcome.INCONCLUSIVE, f"only {len(rates)} windows of throughput"
    elif not siblings:
        outcome, observed = None, f"{median(rates):.3g} TFLOPS; no sibling of the same model to compare with"
    elif not peers:
        outcome, observed = Outcome.INCONCLUSIVE, "no sibling has enough windows to compare with"
    else:
        own, theirs = median(rates), median(peers.values())
        # So that no rate at all, which is no slower than siblings without one, and NaN do not pass.
        is_fast = own > 0 and own >= ratio_min * theirs
        outcome = Outcome.PASS if is_fast else Outcome.FAIL
        ratio = own / theirs if theirs else 0.0
        observed = f"{own:.3g} TFLOPS, {ratio:.0%} of its siblings' {theirs:.3g}"
        evidence |= {"tflops_median": own, "ratio": ratio}
    return Finding(
        rule="speed",
        subject=subject_of(device),
        outcome=outcome,
        observed=observed,
        expected=f"at least {ratio_min:.0%} of the siblings' median, over at least {WINDOWS_MIN} windows",
        unit="TFLOPS",
        evidence=evidence,
        next_step=_next_step(outcome),
    )


def _next_step(outcome: Outcome | None) -> str:
    if outcome is Outcome.FAIL:
        return "look at its clocks, temperature and power limit; if they are normal, replace it"
    return "run it again, for longer" if outcome is Outcome.INCONCLUSIVE else ""


def judge_load(device: str, busy_pct: Sequence[float], *, busy_pct_min: float) -> Finding:
    """Say whether the device was loaded at all: what was never stressed has shown nothing."""
    if len(busy_pct) < WINDOWS_MIN:
        outcome, observed = Outcome.INCONCLUSIVE, f"only {len(busy_pct)} readings under load"
    else:
        busy = median(busy_pct)
        outcome = Outcome.PASS if busy >= busy_pct_min else Outcome.INCONCLUSIVE
        observed = f"busy for {busy:.0f} % of the time in the median of {len(busy_pct)} readings"
    return Finding(
        rule="load-reached",
        subject=subject_of(device),
        outcome=outcome,
        observed=observed,
        expected=f"busy for at least {busy_pct_min:.0f} % of the time",
        unit="%",
        evidence={"stage": "matmul", "readings": len(busy_pct)},
        next_step="" if outcome is Outcome.PASS else "stop what else runs on this machine, then run it again",
    )

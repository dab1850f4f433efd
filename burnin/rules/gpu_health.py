"""Rules on what NVML says of a GPU over the run; counters are judged by what was added to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from burnin.evidence import numbers, subject_of
from burnin.node.second import HELD_COLUMNS
from burnin.rules.clock_counters import believed_counters
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

# Bits of the clocks' event reasons by which hardware or heat hold the clocks back (NVML: HwSlowdown,
# SwThermal, HwThermal, HwPowerBrake); a power cap is normal at full load. Several bits can be set at once.
HELD_BACK = {
    0x8: "hardware slowdown",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}
HELD_BACK_SHARE_MAX = 0.01  # of the time; a node at its limit touches it for moments
HELD_BACK_SAMPLES_MAX = 1.0  # seconds of it in which it was seen
MARGIN_NOTED_C, MEDIAN_NOTED_C = 5.0, 10.0  # shown: near the limit, and far from the siblings
ECC_CORRECTED_MAX = 10  # single-bit errors in a run; DCGM's rate limit
SILENT_SHARE_MAX = 0.1  # of a sensor's readings; a few are lost on a busy machine
GPU_RULES = ("gpu-lost", "heat", "throttle", "ecc", "xid", "sensors")


def judge_lost(gpu: str, lost: Sequence[JsonObject]) -> Finding:
    """Fail a GPU that the driver can no longer reach."""
    outcome = Outcome.FAIL if lost else Outcome.PASS
    observed = f"{lost[0]['error']} (while reading {lost[0]['sensor']})" if lost else "reachable all the time"
    return Finding(
        rule="gpu-lost",
        subject=subject_of(gpu),
        outcome=outcome,
        observed=observed,
        expected="the driver reaches the GPU all the time",
        next_step="power-cycle the node; if it is lost again, reseat or replace the GPU" if lost else "",
    )


def judge_heat(
    gpu: str, rows: Sequence[JsonObject], *, slowdown_c: float | None, median_c: float | None = None
) -> Finding:
    """Fail a GPU that reached the temperature at which it slows itself down.

    Being near to it, or much hotter than the median of its node, is shown.
    """
    temperatures = numbers(rows, "temperature_c")
    outcome: Outcome | None
    if slowdown_c is None:
        outcome, observed = None, "the driver states no slowdown temperature"
    elif not temperatures:
        outcome, observed = Outcome.INCONCLUSIVE, "no temperature was read"
    else:
        outcome = Outcome.FAIL if max(temperatures) >= slowdown_c else Outcome.PASS
        observed = f"at most {max(temperatures):.0f} °C in {len(temperatures)} readings"
    if temperatures:
        observed += _heat_notes(rows, max(temperatures), median_c)
    return Finding(
        rule="heat",
        subject=subject_of(gpu),
        outcome=outcome,
        observed=observed,
        expected="below the slowdown temperature" + (f", {slowdown_c:.0f} °C" if slowdown_c else ""),
        unit="°C",
        next_step=_undecided(outcome, "check fans, airflow and cold plate of this GPU, then run it again"),
    )


def _heat_notes(rows: Sequence[JsonObject], hottest_c: float, median_c: float | None) -> str:
    """Say what is no fault yet. Some H100s state a margin of zero or less all the time: that says nothing."""
    margins, notes = numbers(rows, "temperature_margin_c"), ""
    if margins and 0 < min(margins) <= MARGIN_NOTED_C:
        notes += f"; its margin was down to {min(margins):.0f} °C: watch it"
    if median_c is not None and hottest_c - median_c > MEDIAN_NOTED_C:
        notes += f"; {hottest_c - median_c:.0f} °C above the median of its node: watch it"
    return notes


def judge_throttle(
    gpu: str,
    rows: Sequence[JsonObject],
    counters: Mapping[str, tuple[int, int]],
    *,
    run_s: float,
    share_max: float = HELD_BACK_SHARE_MAX,
    driver_major: int | None = None,
) -> Finding:
    """Fail a GPU whose clocks heat or hardware held back for more than a moment.

    The driver's own nanoseconds count where it has them and the event reasons do not belie them; readings
    miss what happens in between.
    """
    samples = len(numbers(rows, "event_reasons"))
    seen = {name: _share_seen(rows, bit) for bit, name in HELD_BACK.items()}
    # In a short run a single touch would be more than the share that is allowed.
    shares = {name: share for name, share in seen.items() if share * samples > HELD_BACK_SAMPLES_MAX}
    if "throttled_thermal_ns" in counters and run_s > 0:
        before, after = counters["throttled_thermal_ns"]
        shares["thermal, by the driver's clock"] = (after - before) / 1e9 / run_s
    counted_s, place = believed_counters(counters, driver_major=driver_major, seen=seen, run_s=run_s)
    shares |= {f"{name}, by {place}": s / run_s for name, s in counted_s.items() if run_s > 0}
    over = {name: share for name, share in shares.items() if share > share_max}
    if over:
        outcome = Outcome.FAIL
        observed = ", ".join(f"{name} for {share:.1%} of the time" for name, share in over.items())
    elif not samples and "throttled_thermal_ns" not in counters:
        outcome, observed = Outcome.INCONCLUSIVE, "neither event reasons nor violation times were read"
    else:
        outcome, observed = Outcome.PASS, f"held back by nothing but power in {samples} readings"
    return Finding(
        rule="throttle",
        subject=subject_of(gpu),
        outcome=outcome,
        observed=observed,
        expected=f"held back by heat or hardware for at most {share_max:.1%} of the time",
        evidence={
            "seconds": {name: round(share * samples, 1) for name, share in seen.items()},
            "counters": place,
        },
        next_step=_undecided(outcome, "check cooling and power supply of this GPU, then run it again"),
    )


def _share_seen(rows: Sequence[JsonObject], bit: int) -> float:
    """Return for which share of the time a reason was seen, among whatever others were set with it."""
    column = HELD_COLUMNS[bit]
    exact = numbers(rows, column)
    if exact:
        return sum(exact) / len(exact) / 100
    reasons = [int(value) for value in numbers(rows, "event_reasons")]
    return sum(1 for value in reasons if value & bit) / len(reasons) if reasons else 0.0


def judge_ecc(
    gpu: str,
    counters: Mapping[str, tuple[int, int]],
    *,
    lacking: Mapping[str, str],
    corrected_max: int = ECC_CORRECTED_MAX,
) -> Finding:
    """Fail a GPU that met an uncorrectable memory error, or many corrected ones, during the run."""
    outcome: Outcome | None = Outcome.PASS
    added = {name: after - before for name, (before, after) in counters.items() if name.startswith("ecc_")}
    if "ecc_uncorrected" in lacking:
        outcome, observed = None, f"no ECC counters: {lacking['ecc_uncorrected']}"
    elif "ecc_uncorrected" not in added:
        outcome, observed = Outcome.INCONCLUSIVE, "the counters were not read before and after"
    else:
        corrected = added.get("ecc_corrected", 0)
        observed = f"{added['ecc_uncorrected']} uncorrected and {corrected} corrected errors more than before"
        if added["ecc_uncorrected"] > 0 or corrected > corrected_max:
            outcome = Outcome.FAIL
    return Finding(
        rule="ecc",
        subject=subject_of(gpu),
        outcome=outcome,
        observed=observed,
        expected=f"no uncorrected and at most {corrected_max} corrected errors",
        unit="errors",
        evidence={"added": added},
        next_step=_undecided(
            outcome, "reset the GPU so that rows are remapped, run it again, replace it if errors return"
        ),
    )


def judge_sensors(
    gpu: str,
    rows: Sequence[JsonObject],
    *,
    lacking: Mapping[str, str],
    failed: Sequence[JsonObject],
    hung: Sequence[JsonObject],
    rows_expected: int,
) -> Finding:
    """Leave a GPU undecided of which a sensor that exists kept silent: what it would have said is unknown."""
    names = sorted({name for row in rows for name in row if name not in ("t_ns", "host", "gpu")})
    # Whatever answered once is there, whatever the driver says later on.
    silent = [n for n in names if len(numbers(rows, n)) < (1 - SILENT_SHARE_MAX) * len(rows)]
    if hung:
        call, waited_s = hung[0]["sensor"], float(hung[0]["waited_s"])
        outcome, observed = (
            Outcome.INCONCLUSIVE,
            f"{call} did not answer within {waited_s:.0f} s and was given up",
        )
    elif not rows or len(rows) < (1 - SILENT_SHARE_MAX) * rows_expected - 2:
        outcome, observed = Outcome.INCONCLUSIVE, f"{len(rows)} rows of about {rows_expected}"
    elif silent or failed:
        what = "; ".join(f"{data['sensor']}: {data['error']}" for data in failed) or ", ".join(silent)
        outcome, observed = Outcome.INCONCLUSIVE, f"kept silent: {what:.300}"
    else:
        outcome, observed = Outcome.PASS, f"{len(names)} sensors answered in {len(rows)} rows"
    if lacking:
        observed += f"; this driver or board lacks {', '.join(sorted(lacking))}"
    return Finding(
        rule="sensors",
        subject=subject_of(gpu),
        outcome=outcome,
        observed=observed,
        expected="every sensor that the driver and the board have answers all the time",
        evidence={"lacking": dict(lacking)},
        next_step=""
        if outcome is Outcome.PASS
        else "read the kernel log for this GPU; reset it, then run it again",
    )


def not_applicable(host: str, reason: str) -> list[Finding]:
    """Say of each GPU rule that it does not apply here: not passed, not merged."""
    return [
        Finding(
            rule=rule,
            subject=f"host:{host}",
            outcome=None,
            observed=reason,
            expected="applies to NVIDIA GPUs",
        )
        for rule in GPU_RULES
    ]


def _undecided(outcome: Outcome | None, on_fail: str) -> str:
    if outcome is Outcome.FAIL:
        return on_fail
    return "see the rule sensors, then run it again" if outcome is Outcome.INCONCLUSIVE else ""

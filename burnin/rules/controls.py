"""Positive controls: which detectors a seeded fault has proven in this run, and how far down the line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from burnin.node.order import SeededFault
from burnin.node.seeding import SLOW_FACTOR
from burnin.rules.gpu_health import judge_ecc, judge_heat, judge_lost, judge_sensors, judge_throttle
from burnin.rules.host_controls import host_faults
from burnin.rules.host_health import judge_counters
from burnin.rules.preconditions import judge_company, judge_devices, judge_room
from burnin.rules.sensor_controls import sensor_faults
from burnin.rules.sighting import Sighting
from burnin.rules.speed import RATIO_MIN, judge_speed
from burnin.rules.xid_rule import judge_xids
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

END_TO_END, PARSER_ONLY = "end to end", "parser only"
# What each stage must have proven on every device (or, for the agent's own watch, once) before it counts, and
# the rule that rests on it.
DETECTORS = {
    "preflight": {"wrong result of a core": "host-load", "flipped bit in host memory": "host-load"},
    "memory": {"bit flip in memory": "memory", "stalled worker": "worker"},
    "matmul": {
        "bit flip in a product": "exact",
        "NaN in a product": "exact",
        "stalled worker": "worker",
    },
    "bandwidth": {"bit flip in a copy": "bandwidth", "stalled worker": "worker"},
    "links": {"bit flip in a received buffer": "link", "stalled worker": "worker"},
    "allreduce": {"bit flip in a reduced buffer": "allreduce", "stalled worker": "worker"},
    "power": {
        "bit flip in an operand": "operands",
        "bit flip in a digested product": "digest",
        "stalled worker": "worker",
    },
}


def judge_control(
    stage: str, detector: str, told: Sequence[JsonObject], *, devices: Sequence[str]
) -> Finding:
    """Leave a stage undecided of which a detector did not see the fault that was seeded to prove it."""
    missed = [str(data["device"]) for data in told if not data["is_found"]]
    proven = [str(data["device"]) for data in told if data["is_found"]]
    absent = [] if "agent" in (*missed, *proven) else [d for d in devices if d not in (*missed, *proven)]
    fidelity = str(told[0]["fidelity"]) if told else ""
    if missed:
        outcome, observed = Outcome.INCONCLUSIVE, f"missed on {', '.join(missed)}"
    elif absent or not told:
        outcome, observed = Outcome.INCONCLUSIVE, f"not shown on {', '.join(absent) or 'any device'}"
    else:
        outcome, observed = Outcome.PASS, f"found on {', '.join(proven)}, {fidelity}"
    evidence = {"proves": DETECTORS[stage][detector], "fidelity": fidelity, "missed": missed}
    return _finding(f"{stage}: {detector}", outcome, observed, evidence)


def _finding(detector: str, outcome: Outcome, observed: str, evidence: JsonObject) -> Finding:
    return Finding(
        rule="control",
        subject=f"detector:{detector}",
        outcome=outcome,
        observed=observed,
        expected="the seeded fault is found",
        evidence=evidence,
        next_step="" if outcome is Outcome.PASS else "do not trust what rests on it; run it again",
    )


def withhold(findings: Sequence[Finding], controls: Sequence[Finding]) -> list[Finding]:
    """Take back each PASS of a rule whose detectors were not all proven: it might have missed a fault."""
    unproven = {c.evidence["proves"]: c.subject for c in controls if c.outcome is not Outcome.PASS}
    return [_withhold(finding, unproven.get(finding.rule)) for finding in findings]


def _withhold(finding: Finding, detector: str | None) -> Finding:
    if detector is None or finding.outcome is not Outcome.PASS:
        return finding
    observed = f"{finding.observed}; but {detector} was not proven in this run"
    step = "do not trust this rule in this run; run it again"
    return replace(finding, outcome=Outcome.INCONCLUSIVE, observed=observed, next_step=step)


def prove_speed_rule(rates: dict[str, list[float]], kind: str) -> Finding | None:
    """Slow one device down on paper, with this run's own noise in it, and see whether the rule names it.

    None: there is no sibling to compare with.
    """
    if len(rates) < 2:
        return None
    missed = []
    for device, own in rates.items():
        siblings = {name: values for name, values in rates.items() if name != device}
        slowed = [rate / SLOW_FACTOR for rate in own]
        found = judge_speed(device, slowed, siblings, ratio_min=RATIO_MIN[kind])
        if found.outcome is not Outcome.FAIL:
            missed.append(device)
    outcome = Outcome.INCONCLUSIVE if missed else Outcome.PASS
    observed = f"missed on {', '.join(missed)}" if missed else f"found on {', '.join(rates)}, {PARSER_ONLY}"
    evidence = {"proves": "speed", "fidelity": PARSER_ONLY, "missed": missed}
    return _finding("matmul: slow device", outcome, observed, evidence)


def prove_preflight_rules() -> Finding:
    """Hand invented readings with a fault in them to the rules of the preflight."""
    choice: JsonObject = {"device_kind": "cuda", "devices": [{"name": "GPU-1"}], "problem": ""}
    seeded: dict[str, Callable[[], Finding]] = {
        "missing GPU": lambda: judge_devices("h", choice=choice, gpu_count=7, gpus_expected=8, ready=1),
        "GPU that torch does not see": lambda: judge_devices(
            "h", choice=choice, gpu_count=1, gpus_expected=1, ready=0
        ),
        "no memory": lambda: judge_room(
            "h", [{"memory_available_bytes": 10**6, "cores": 1, "load_1min": 0.0}]
        ),
        "foreign process": lambda: judge_company("GPU-1", before=[42], during=[], own=1),
    }
    return prove_rules("preflight", seeded)


def prove_aftermath_rules(*, has_gpus: bool) -> Finding:
    """Hand invented readings with a fault in them to the rules of the aftermath."""
    seeded: dict[str, Callable[[], Finding]] = {
        "uncorrectable memory error": lambda: next(
            f
            for f in judge_counters("h", {"edac_uncorrected": 1}, {"edac_uncorrected": 2}, run_s=60)
            if f.outcome
        ),
    }
    seeded |= host_faults()
    if has_gpus:
        seeded |= _gpu_faults() | sensor_faults()
    return prove_rules("aftermath", seeded)


def _gpu_faults() -> dict[str, Callable[[], Finding]]:
    healthy: JsonObject = {"temperature_c": 60, "event_reasons": 0x4, "power_w": 500.0}
    hot, held = healthy | {"temperature_c": 95}, healthy | {"event_reasons": 0x4 | 0x8 | 0x40}
    silent = healthy | {"power_w": None}
    return {
        "heat": lambda: judge_heat("GPU-1", [healthy] * 9 + [hot], slowdown_c=90.0),
        "throttled clocks": lambda: judge_throttle("GPU-1", [healthy] * 8 + [held] * 2, {}, run_s=10),
        "throttled nanoseconds": lambda: judge_throttle(
            "GPU-1", [healthy] * 10, {"throttled_thermal_ns": (0, 10**9)}, run_s=10
        ),
        "uncorrected ECC error": lambda: judge_ecc("GPU-1", {"ecc_uncorrected": (3, 4)}, lacking={}),
        "XID": lambda: judge_xids("GPU-1", [Sighting(t_ns=0, xid=79)], is_watched=True, unavailable=None),
        "lost GPU": lambda: judge_lost("GPU-1", [{"error": "GPU is lost", "sensor": "power_w"}]),
        "silent sensor": lambda: judge_sensors(
            "GPU-1", [healthy] * 5 + [silent] * 5, lacking={}, failed=[], hung=[], rows_expected=10
        ),
    }


def judge_planted(host: str, faults: Sequence[SeededFault], findings: Sequence[Finding]) -> list[Finding]:
    """Leave a run undecided that was to show a planted fault and in which no rule has failed."""
    if not faults or any(finding.outcome is Outcome.FAIL for finding in findings):
        return []
    names = ", ".join(f"{fault.stage}:{fault.kind}@{fault.device}" for fault in faults)
    return [
        Finding(
            rule="planted-fault",
            subject=host,
            outcome=Outcome.INCONCLUSIVE,
            observed=f"{names}: no rule has failed",
            expected="what --seed-fault plants is found",
            next_step="run longer: some faults are planted into a product that a short run may not reach",
        )
    ]


def prove_rules(stage: str, seeded: dict[str, Callable[[], Finding]]) -> Finding:
    """Hand each rule its seeded fault; one that lets it pass is named."""
    found = {name: judge() for name, judge in seeded.items()}
    missed = [name for name, finding in found.items() if finding.outcome in (None, Outcome.PASS)]
    outcome = Outcome.INCONCLUSIVE if missed else Outcome.PASS
    observed = f"missed: {', '.join(missed)}" if missed else f"found: {', '.join(seeded)}, {PARSER_ONLY}"
    rows = [
        {
            "name": name,
            "detector": f"rule {finding.rule}",
            "is_found": name not in missed,
            "fidelity": PARSER_ONLY,
        }
        for name, finding in found.items()
    ]
    evidence = {"proves": stage, "fidelity": PARSER_ONLY, "missed": missed, "controls": rows}
    return _finding(f"{stage}: its rules", outcome, observed, evidence)

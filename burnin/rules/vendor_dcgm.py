"""Rules on what DCGM's diagnostic said of each GPU: test by test, by severity, and never by its exit code.

A test that was skipped has shown nothing. A complaint tells what to do by its severity, in DCGM's own
numbers: other tools have taken 3 (not recognised) for RESET.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from burnin.rules.dcgm_output import DcgmReport, DcgmResult, DcgmWarning, Severity
from probes.finding import Finding
from probes.outcome import Outcome

# What a level is asked for; of what it brings beyond, a skip only says that this platform lacks it.
_BASIC = ("memory", "pcie")
_STRESS = (*_BASIC, "diagnostic", "targeted_stress", "targeted_power", "memory_bandwidth")
LEVEL_TESTS = {1: (), 2: _BASIC, 3: _STRESS, 4: (*_STRESS, "memtest", "pulse_test")}
_OTHER_NAMES = {"gpu_memory": "memory", "pulse": "pulse_test"}  # in version 3
_MEMORY_NOT_ALLOCATED = (56, 73)  # DCGM_FR_MEMORY_ALLOC and _HOST
_NOT_ALLOCATED = re.compile(r"(could ?n.t|cannot|can't|failed to|unable to)\s+allocate", re.IGNORECASE)
_NO_HEAT = re.compile(r"thermal violations? totall?ing 0(\.0+)? seconds", re.IGNORECASE)
_STEPS = {
    Severity.ISOLATE: "take the GPU out of service and run the field diagnostic; RMA it if that fails",
    Severity.RESET: "drain the node and reset the GPU, then run it again; if it comes back, RMA it",
    Severity.TRIAGE: "run the vendor's field diagnostic on this GPU before it serves again",
    Severity.CONFIG: "mend the configuration that it names, then run it again",
    Severity.MONITOR: "DCGM calls the GPU fit for work; watch it, and run this test again",
}
_UNKNOWN_STEP = "run this test alone, and the vendor's field diagnostic if it fails again"
_ACCUSING = (Severity.ISOLATE, Severity.RESET, Severity.TRIAGE)


def judge_diagnostic(
    host: str, report: DcgmReport, *, uuids: Mapping[int, str], gpus: Sequence[str], level: int
) -> list[Finding]:
    """Judge each result for its own GPU; what has no result is undecided.

    ``uuids`` are those of DCGM's numbers, as far as they are known; ``gpus`` those that had to be tested.
    """
    findings = [*_judge_error(host, report), *_judge_host_tests(host, report)]
    findings += [_nobody(host, number) for number in sorted(_strangers(report, uuids))]
    by_gpu = {gpu: [r for r in report.results if uuids.get(_number(r)) == gpu] for gpu in gpus}
    tests = list(dict.fromkeys(r.test for r in report.results if r.number is not None))
    for gpu, results in by_gpu.items():
        findings.append(_judge_gpu(gpu, results))
        findings += [_judge_result(gpu, r, is_core=_is_core(r, level), others=by_gpu) for r in _told(results)]
        findings += _judge_missing(gpu, results, tests, level)
    return findings


def _number(result: DcgmResult) -> int:
    return -1 if result.number is None else result.number


def _strangers(report: DcgmReport, uuids: Mapping[int, str]) -> set[int]:
    return {r.number for r in report.results if r.number is not None and r.number not in uuids}


def _told(results: Sequence[DcgmResult]) -> Iterator[DcgmResult]:
    """Yield what needs a finding of its own: all that is not a plain pass."""
    return (r for r in results if r.status != "pass" or r.warnings or _is_unallocated(r))


def _judge_gpu(gpu: str, results: Sequence[DcgmResult]) -> Finding:
    passed = [r.test for r in results if r.status == "pass" and not r.warnings and not _is_unallocated(r)]
    rest = [r.test for r in _told(results)]
    observed = f"{len(passed)} tests passed: {', '.join(passed)}" if passed else "no test of this GPU passed"
    observed += f"; see for themselves: {', '.join(rest)}" if rest else ""
    return _finding(
        f"gpu:{gpu}",
        Outcome.PASS if passed else Outcome.INCONCLUSIVE,
        observed if results else "the report says nothing about this GPU",
        "" if passed else "see why DCGM left it out, then run it again",
    )


def _judge_result(
    gpu: str, result: DcgmResult, *, is_core: bool, others: Mapping[str, Sequence[DcgmResult]]
) -> Finding:
    subject = f"gpu:{gpu}/{result.test}"
    said = f"DCGM says {result.status}"
    said += f": {result.text:.400}" if result.text else ", without a reason"
    if result.status == "skip":
        ran_elsewhere = any(
            r.test == result.test and r.status != "skip" for rs in others.values() for r in rs
        )
        is_lacking = not is_core and not ran_elsewhere
        step = "see what it lacks, or ask for a level that this platform has (vendor: dcgm_level)"
        return _finding(
            subject, None if is_lacking else Outcome.INCONCLUSIVE, said, "" if is_lacking else step
        )
    if result.status == "not run":
        return _finding(subject, Outcome.INCONCLUSIVE, said, "see why it was not run, then run it again")
    if _is_unallocated(result):
        observed = f"{said}; but it could not have the memory that it was to test"
        return _finding(subject, Outcome.INCONCLUSIVE, observed, "free the GPU's memory, then run it again")
    outcome, step = _by_severity(result)
    severities = ", ".join(sorted({w.severity.name for w in result.warnings}))
    return _finding(subject, outcome, f"{said}; severity {severities or 'not given'}", step)


def _by_severity(result: DcgmResult) -> tuple[Outcome | None, str]:
    """Return what a result means that is neither a plain pass nor a skip, and what to do about it."""
    real = [warning for warning in result.warnings if not _is_no_heat(warning)]
    if result.warnings and not real:
        return None, ""  # no time at all is no heat; our own rule counts nanoseconds
    accusing = [w.severity for w in real if w.severity in _ACCUSING]
    if accusing:
        worst = min(accusing, key=_ACCUSING.index)
        return Outcome.FAIL, _STEPS[worst]
    mild = [w.severity for w in real if w.severity in (Severity.CONFIG, Severity.MONITOR)]
    if real and len(mild) == len(real):
        is_fit = result.status == "pass" and Severity.CONFIG not in mild
        step = _STEPS[Severity.CONFIG if Severity.CONFIG in mild else Severity.MONITOR]
        return (Outcome.PASS, "") if is_fit else (Outcome.INCONCLUSIVE, step)
    return (Outcome.FAIL if result.status == "fail" else Outcome.INCONCLUSIVE), _UNKNOWN_STEP


def _is_no_heat(warning: DcgmWarning) -> bool:
    return _NO_HEAT.search(warning.text) is not None


def _is_unallocated(result: DcgmResult) -> bool:
    """Say whether a test passed without the memory that it was to test: it has tested nothing."""
    is_told = any(w.error_id in _MEMORY_NOT_ALLOCATED for w in result.warnings)
    return result.status == "pass" and (is_told or _NOT_ALLOCATED.search(result.text) is not None)


def _judge_missing(
    gpu: str, results: Sequence[DcgmResult], tests: Sequence[str], level: int
) -> list[Finding]:
    """Name what other GPUs have a result of and this one has not, and what the level should have brought."""
    have = {r.test for r in results}
    names = {_name(test) for test in have}
    lacking = [test for test in tests if test not in have]
    lacking += [name for name in LEVEL_TESTS[level] if name not in names | {_name(t) for t in lacking}]
    step = "see whether DCGM supports this GPU, or ask for a lower level (vendor: dcgm_level)"
    return [
        _finding(
            f"gpu:{gpu}/{test}", Outcome.INCONCLUSIVE, "the report has no result of it for this GPU", step
        )
        for test in lacking
    ]


def _is_core(result: DcgmResult, level: int) -> bool:
    return _name(result.test) in LEVEL_TESTS[level] or _name(result.test) == "software"


def _name(test: str) -> str:
    plain = re.sub(r"\W+", "_", test.strip().lower())
    return _OTHER_NAMES.get(plain, plain)


def _judge_error(host: str, report: DcgmReport) -> list[Finding]:
    if not report.error:
        return []
    step = "look at nv-hostengine.log and nvvs.log, then run it again"
    return [_finding(f"host:{host}", Outcome.INCONCLUSIVE, f"it broke off: {report.error:.400}", step)]


def _judge_host_tests(host: str, report: DcgmReport) -> list[Finding]:
    """Judge what is about no GPU: the software around them, processors, switches."""
    found = []
    for result in (r for r in report.results if r.number is None):
        said = f"DCGM says {result.status}" + (f": {result.text:.400}" if result.text else "")
        outcome: Outcome | None = Outcome.PASS
        step = ""
        if result.status == "skip":
            outcome = None
        elif result.status != "pass" or result.warnings:
            outcome, step = _by_severity(result)
        found.append(_finding(f"host:{host}/{result.test}", outcome, said, step))
    return found


def _nobody(host: str, number: int) -> Finding:
    observed = f"DCGM's GPU {number} cannot be tied to a UUID: its results are about nobody"
    step = "see why `dcgmi discovery -l` names no UUID for it, then run it again"
    return _finding(f"host:{host}/DCGM GPU {number}", Outcome.INCONCLUSIVE, observed, step)


def _finding(subject: str, outcome: Outcome | None, observed: str, next_step: str) -> Finding:
    return Finding(
        rule="vendor-diagnostic",
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected="every test of DCGM's level ran on this GPU and found nothing",
        evidence={"stage": "vendor"},
        next_step=next_step,
    )

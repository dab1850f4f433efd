"""Rules on processes: a worker that stalls, dies or is late, an agent that is lost, a stage not run."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from burnin.evidence import subject_of
from burnin.rules.arithmetic import CONTRADICTS
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

# A worker that dies by one of these has executed something that its program does not contain.
_BROKEN_EXECUTION = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
# With these words of CUDA's the hardware accuses itself.
_HARDWARE_WORDS = ("uncorrectable ECC error", "uncorrectable NVLink error", "hardware stack error")
_RETEST = (
    "read the kernel log around that time; reset the device, run it again, and replace it if it happens again"
)


def judge_worker(
    device: str,
    *,
    stalled: Sequence[JsonObject],
    late: Sequence[JsonObject],
    died: Sequence[JsonObject],
    failed: Sequence[JsonObject],
    undone: Sequence[str],
    is_lone: bool,
) -> Finding:
    """Fail a device whose worker stalled or broke on it; one that was cut off otherwise is undecided.

    ``is_lone``: siblings ran the same program on the same data, and none of them broke. What any program may
    cause, broken execution or an error of CUDA's, then speaks against this device; without that comparison
    it may as well be our program or its libraries, and is undecided.
    """
    own = [data for data in stalled if not data["is_waiting"]]
    if own:
        seconds = float(own[0]["stall_s"])
        return _finding(
            device, Outcome.FAIL, f"stalled in {own[0]['stage']}: no step for {seconds:.0f} s", _RETEST
        )
    if stalled:
        observed = f"the collective in {stalled[0]['stage']} never completed; every rank waits"
        return _finding(device, Outcome.INCONCLUSIVE, observed, "see the rule collective")
    if late:
        observed = f"not done with {late[0]['stage']} within {float(late[0]['within_s']):.0f} s"
        is_start = late[0]["stage"] == "preflight"
        outcome = Outcome.INCONCLUSIVE if is_start else Outcome.FAIL
        return _finding(device, outcome, observed, "look at agent.log of this run" if is_start else _RETEST)
    if failed:
        return _judge_failure(device, str(failed[0]["error"]), is_lone=is_lone)
    if died:
        return _judge_death(device, died[0]["exit_code"], is_lone=is_lone)
    if undone:
        observed = f"{', '.join(undone)} did not come to an end"
        return _finding(
            device, Outcome.INCONCLUSIVE, observed, "see why the run ended early, then run it again"
        )
    return _finding(device, Outcome.PASS, "did every stage and answered all the time", "")


def _judge_failure(device: str, error: str, *, is_lone: bool) -> Finding:
    observed = f"its worker gave up: {error:.300}"
    if any(words in error for words in _HARDWARE_WORDS):
        return _finding(device, Outcome.FAIL, observed, _RETEST)
    if "CUDA error" in error and "out of memory" not in error:
        return _broken(device, observed, is_lone=is_lone)
    return _finding(device, Outcome.INCONCLUSIVE, observed, "look at agent.log of this run")


def _judge_death(device: str, exit_code: object, *, is_lone: bool) -> Finding:
    number = -exit_code if isinstance(exit_code, int) and exit_code < 0 else 0
    if number in _BROKEN_EXECUTION:
        return _broken(device, f"its worker died of {signal.Signals(number).name}", is_lone=is_lone)
    reason = f"signal {number}" if number else f"exit code {exit_code}"
    step = "look at agent.log of this run and at the kernel log: somebody or the OOM killer ended it"
    return _finding(device, Outcome.INCONCLUSIVE, f"its worker ended by itself, {reason}", step)


def _broken(device: str, observed: str, *, is_lone: bool) -> Finding:
    if is_lone:
        return _finding(device, Outcome.FAIL, f"{observed}; its siblings did the same work", _RETEST)
    observed = f"{observed}; no sibling did the same work without it, so it may be the program"
    return _finding(device, Outcome.INCONCLUSIVE, observed, _RETEST)


def _finding(device: str, outcome: Outcome, observed: str, next_step: str) -> Finding:
    return Finding(
        rule="worker",
        subject=subject_of(device),
        outcome=outcome,
        observed=observed,
        expected="does every stage, and never stands still",
        next_step=next_step,
    )


def fold_missing(findings: Sequence[Finding], workers: Sequence[Finding]) -> list[Finding]:
    """Name once, for each device that was cut off, all that it therefore has not shown."""
    kept = list(findings)
    for worker in (worker for worker in workers if worker.outcome is not Outcome.PASS):
        missing = [f for f in kept if f.subject == worker.subject and _is_missing(f)]
        if missing:
            kept = [finding for finding in kept if finding not in missing]
            kept.append(_missing(worker, [finding.rule for finding in missing]))
    return kept


def _is_missing(finding: Finding) -> bool:
    """Readings that contradict each other are there, and stay visible with those that they concern."""
    return finding.outcome is Outcome.INCONCLUSIVE and CONTRADICTS not in finding.evidence


def _missing(worker: Finding, rules: Sequence[str]) -> Finding:
    return Finding(
        rule="missing-evidence",
        subject=worker.subject,
        outcome=Outcome.INCONCLUSIVE,
        observed=f"nothing to judge {', '.join(rules)} by: {worker.observed}",
        expected="readings for every rule",
        evidence={"rules": list(rules)},
        next_step=worker.next_step,
    )


def judge_hung(host: str, stalled: Sequence[JsonObject]) -> list[Finding]:
    """Name each collective in which every rank waited for ever: all had entered it, so none is accused."""
    groups = {
        (str(data["stage"]), tuple(map(str, data.get("devices", [])))): data
        for data in stalled
        if data["is_waiting"]
    }
    return [
        Finding(
            rule="collective",
            subject=f"link:{'-'.join(devices)}" if len(devices) == 2 else f"host:{host}",
            outcome=Outcome.FAIL,
            observed=f"{stage} never completed{_in_cycle(cycle)}: {', '.join(devices)} all wait, "
            f"for {2 * stall_s:.0f} s",
            expected="a collective that every rank has entered completes",
            evidence={"stage": stage, "devices": list(devices)},
            next_step="check the links between these devices, pair by pair (stage links), then run it again",
        )
        for (stage, devices), data in groups.items()
        for stall_s, cycle in [(float(data["stall_s"]), data.get("cycle"))]
    ]


def _in_cycle(cycle: object) -> str:
    return "" if cycle is None else f" in cycle {cycle}"


def judge_agent(host: str, *, lost: Sequence[JsonObject], is_finished: bool, log_tail: str) -> Finding:
    """An agent that did not come to its end leaves the node undecided, whatever it had said by then."""
    if is_finished and not lost:
        outcome, observed = Outcome.PASS, "finished what it was told to do"
    else:
        outcome = Outcome.INCONCLUSIVE
        observed = str(lost[0]["reason"]) if lost else "it was cut off before it had finished"
    return Finding(
        rule="agent",
        subject=f"host:{host}",
        outcome=outcome,
        observed=observed,
        expected="the agent answers all the time and finishes",
        evidence={"log_tail": log_tail} if log_tail and outcome is not Outcome.PASS else {},
        next_step=""
        if outcome is Outcome.PASS
        else "look at agent.log of this run and at the node's kernel log",
    )


def judge_stuck(host: str, stuck: Sequence[JsonObject]) -> list[Finding]:
    """Name each process that not even SIGKILL could end."""
    return [
        Finding(
            rule="stuck-process",
            subject=subject_of(str(data["device"]))
            if data["device"] not in ("agent", "sampler")
            else f"host:{host}",
            outcome=Outcome.FAIL,
            observed=f"pid {data['pid']} is stuck in the kernel: SIGKILL did not end it",
            expected="every process of the run ends",
            next_step="reboot the node, then run it again",
        )
        for data in stuck
    ]


def judge_left_out(
    stages: Sequence[str], depths: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> list[Finding]:
    """Say what the plan left out, whole stages and parts of them: what they would have shown is not shown."""
    return [
        Finding(
            rule="left-out",
            subject=f"stage:{stage}",
            outcome=None,
            observed="left out by the plan",
            expected="run, unless the plan says otherwise",
        )
        for stage in stages
    ] + [
        Finding(
            rule="left-out",
            subject=f"stage:{stage}",
            outcome=None,
            observed=f"run without {', '.join(parts)}",
            expected="run whole, unless profile or plan say otherwise",
        )
        for stage, parts in depths.items()
        if parts and stage not in stages
    ]

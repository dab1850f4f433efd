"""What game days bring about, and what their records show to have been found or healed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from experiments.evidence import read_faults
from experiments.faults.fault import FAULTS, PLATFORM, load_fault
from experiments.impact.recovery import FaultSeen
from probes.detectors import Job, detectors
from probes.finding import Finding
from probes.outcome import Outcome
from reports.coverage import Injection, Shown
from reports.run import Run

JOB = "gameday"
WHOLE = "redundancy"  # the rule that sees that all of it is there again
ANSWERS_OF_ONE = "replica-answers"  # names a replica, which has to be one that was hit


def injections() -> Iterator[Injection]:
    """Yield every category that each of our faults brings about."""
    for name in FAULTS:
        fault = load_fault(name)
        for category in fault.covers:
            yield Injection(category=category, fault=name, fidelity=fault.fidelity, needs=fault.needs)


def shown_by(run: Run) -> Iterator[Shown]:
    """Yield what the record of a game day shows, by its own findings.

    Of several faults only the first counts as noticed: nothing tells what was noticed of the later ones.
    """
    job = detectors().jobs[JOB]
    faults = sorted((f for f in read_faults(run) if f.is_verified), key=lambda f: f.t_inject_ns)
    for number, fault in enumerate(faults):
        for category in covered_by(fault):
            found = _found_by(job, run.findings, fault, category) if number == 0 else []
            for how in [*found, *_healed_by(job, run.findings, fault)]:
                yield Shown(
                    category=category,
                    fault=str(fault.data["fault"]),
                    fidelity=str(fault.data["fidelity"]),
                    how=how,
                    run=run.header.id,
                )


def covered_by(fault: FaultSeen) -> tuple[str, ...]:
    """Return what a fault of a record brings about; nothing where the fault, or what it hit, is not known."""
    name = str(fault.data["fault"])
    return load_fault(name).covered(fault.captured) if name in FAULTS and fault.captured else ()


def _found_by(job: Job, findings: Sequence[Finding], fault: FaultSeen, category: str) -> list[str]:
    victims = {f"replica:{victim['name']}" for victim in fault.victims}
    rules = [
        finding.rule
        for finding in findings
        if job.has_found(finding, category) and (finding.rule != ANSWERS_OF_ONE or finding.subject in victims)
    ]
    return [f"found by {rule}" for rule in dict.fromkeys(rules)]


def _healed_by(job: Job, findings: Sequence[Finding], fault: FaultSeen) -> list[str]:
    """Say who healed it, where every rule about that says so and our undo was not to end it."""
    if fault.data["ends_by"] != PLATFORM:
        return []
    outcomes = [finding.outcome for finding in findings if finding.rule in job.heals_by]
    is_whole = any(finding.rule == WHOLE for finding in findings)  # without traffic nothing else is judged
    is_healed = is_whole and set(outcomes) == {Outcome.PASS}
    healer = load_fault(str(fault.data["fault"])).heals or "the platform"
    return [f"healed by {healer}"] if is_healed else []

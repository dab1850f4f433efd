"""What a burn-in plants into itself, and what its record shows to have been found.

Only a fault that was really planted counts: a bit in a buffer of the load, a worker that stalls. Readings
that are invented and handed to a rule show that the rule is right, and nothing about what leads to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from burnin.evidence import Evidence
from burnin.rules.controls import END_TO_END
from probes.detectors import detectors
from probes.errors import ConfigError
from probes.outcome import Outcome
from reports.coverage import Injection, Shown
from reports.run import Run, load_run

JOB = "burnin"
PROCESS = "P"
PLACES = {"cpu": "cores", "cuda": "gpu"}


def injections() -> Iterator[Injection]:
    """Yield every category that a seeded fault brings about: on a GPU alone, or on cores as well."""
    for seed, places in detectors().jobs[JOB].seeds.items():
        for category in dict.fromkeys((*places["gpu"], *places["cores"])):
            needs = () if category in places["cores"] else ("a GPU",)
            yield Injection(category=category, fault=f"seed {seed}", fidelity=PROCESS, needs=needs)


def shown_by(run: Run) -> Iterator[Shown]:
    """Yield what the record of a burn-in shows, or those of all hosts of a fleet that is no simulation."""
    if run.header.kind == "fleet":
        if not any(finding.rule == "simulated" for finding in run.findings):
            for folder in sorted((run.path / "hosts").glob("*")):
                yield from _of_host(folder)
        return
    yield from _of_burnin(run)


def _of_host(folder: Path) -> Iterator[Shown]:
    try:
        host = load_run(folder)
    except ConfigError:
        return  # a host that was never reached has no record
    yield from _of_burnin(host)


def _of_burnin(run: Run) -> Iterator[Shown]:
    seeds = detectors().jobs[JOB].seeds
    place = PLACES.get(str((Evidence(run).choice or {}).get("device_kind")))
    for finding in run.findings:
        seed = finding.subject.removeprefix("detector:")
        is_found = finding.rule == "control" and finding.outcome is Outcome.PASS
        if not is_found or finding.evidence.get("fidelity") != END_TO_END:
            continue
        for category in seeds.get(seed, {}).get(place or "", ()):
            yield Shown(
                category=category,
                fault=f"seed {seed}",
                fidelity=PROCESS,
                how=f"found by {finding.evidence['proves']} on {'a GPU' if place == 'gpu' else place}",
                run=run.header.id,
            )

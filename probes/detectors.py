"""What each rule can find of what breaks: the declarations of ``detectors.yaml``, checked and opened."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, model_validator

from probes.errors import ConfigError
from probes.failure_categories import failure_categories
from probes.finding import Finding
from probes.outcome import Outcome
from probes.spec import Spec, load_spec

FILE = Path(__file__).parent / "detectors.yaml"
AT_ACCEPTANCE: Final = "at acceptance"
IN_SERVICE: Final = "in service"
When = Literal["at acceptance", "in service"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detects:
    """One rule, or command, and one category that it can find."""

    category: str
    detector: str  # "burnin: ecc"
    when: When
    by: str  # by what


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The rules of one job."""

    title: str
    when: When
    detects: dict[str, dict[str, str]]  # rule -> category -> by what
    nothing: tuple[str, ...]  # rules that find what is no category of ours
    by_pass: tuple[str, ...]  # rules that PASS when they have found it
    heals_by: tuple[str, ...]  # rules that all PASS when it healed in time without our help
    seeds: dict[str, dict[str, tuple[str, ...]]]  # "stage: detector" -> gpu or cores -> categories

    @property
    def rules(self) -> set[str]:
        """Every rule that is declared, also those that find nothing of ours."""
        return {*self.detects, *self.nothing}

    def has_found(self, finding: Finding, category: str) -> bool:
        """Say whether a finding is that of a rule that finds this category, and has."""
        wanted = Outcome.PASS if finding.rule in self.by_pass else Outcome.FAIL
        return category in self.detects.get(finding.rule, {}) and finding.outcome is wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Detectors:
    """All that can find something."""

    jobs: dict[str, Job]
    commands: tuple[Detects, ...]

    def all(self) -> tuple[Detects, ...]:
        """Return every pair of a detector and a category that it can find."""
        of_rules = (
            Detects(category=category, detector=f"{name}: {rule}", when=job.when, by=by)
            for name, job in self.jobs.items()
            for rule, found in job.detects.items()
            for category, by in found.items()
        )
        return (*of_rules, *self.commands)


class JobSpec(Spec):
    """The rules of one job in the file."""

    title: str
    when: When
    detects: dict[str, dict[str, str]]
    nothing: tuple[str, ...] = ()
    by_pass: tuple[str, ...] = ()
    heals_by: tuple[str, ...] = ()
    seeds: dict[str, dict[Literal["gpu", "cores"], tuple[str, ...]]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_declared_once(self) -> JobSpec:
        if twice := {*self.detects} & {*self.nothing}:
            raise ValueError(f"detects something and nothing: {', '.join(sorted(twice))}")
        if strange := {*self.by_pass, *self.heals_by} - {*self.detects, *self.nothing}:
            raise ValueError(f"no rule of this job: {', '.join(sorted(strange))}")
        return self

    def to_job(self) -> Job:
        """Return the rules."""
        seeds = {name: {str(on): ids for on, ids in seed.items()} for name, seed in self.seeds.items()}
        return Job(
            title=self.title,
            when=self.when,
            detects=self.detects,
            nothing=self.nothing,
            by_pass=self.by_pass,
            heals_by=self.heals_by,
            seeds=seeds,
        )


class CommandSpec(Spec):
    """A command that finds something."""

    when: When
    detects: dict[str, str]


class DetectorsSpec(Spec):
    """The whole file."""

    jobs: dict[str, JobSpec]
    commands: dict[str, CommandSpec] = Field(default_factory=dict)

    def to_detectors(self) -> Detectors:
        """Return the declarations."""
        commands = tuple(
            Detects(category=category, detector=name, when=command.when, by=by)
            for name, command in self.commands.items()
            for category, by in command.detects.items()
        )
        return Detectors(jobs={name: job.to_job() for name, job in self.jobs.items()}, commands=commands)


def load_detectors(path: Path) -> Detectors:
    """Read a file of declarations.

    Raises:
        ConfigError: one names a category that there is not.
    """
    found = load_spec(path, DetectorsSpec).to_detectors()
    seeded = [ids for job in found.jobs.values() for seed in job.seeds.values() for ids in seed.values()]
    named = (*(d.category for d in found.all()), *(name for ids in seeded for name in ids))
    if unknown := failure_categories().unknown(named):
        raise ConfigError(f"{path}: no such category: {', '.join(sorted(set(unknown)))}")
    return found


@cache
def detectors() -> Detectors:
    """Return the declarations that come with overproof."""
    return load_detectors(FILE)

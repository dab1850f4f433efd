"""``reaccept`` of an experiment: the burn-in of hosts that were hit, before they are given back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from probes.errors import ConfigError
from probes.spec import Spec

WITHIN_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaccept:
    """The burn-in that is wanted."""

    profile: str
    duration_s: float | None  # None: the profile's
    plan: Path | None  # None: the profile as it is
    gpus: int | None  # that each host has to have; None: as many as are seen
    within_s: float


class ReacceptSpec(Spec):
    """The burn-in of each host that was hit, once everything is undone."""

    profile: Literal["gate", "quick", "intake"] = Field(default="quick", description="Of the burn-in.")
    duration_s: float | None = Field(
        default=None, ge=4, le=3600, description="Seconds of load, instead of the profile's."
    )
    plan: str | None = Field(
        default=None, description="Plan file of the burn-in, relative to the experiment's folder."
    )
    gpus: int | None = Field(
        default=None, ge=0, le=1024, description="GPUs that each host has to have; absent: those it shows."
    )
    within_s: float = Field(
        default=WITHIN_S, ge=10, le=86_400, description="Seconds after which it is ended, and undecided."
    )

    def to_reaccept(self, experiment: Path) -> Reaccept:
        """Return what is wanted.

        Raises:
            ConfigError: the plan is no file.
        """
        plan = None if self.plan is None else (experiment.parent / self.plan).resolve()
        if plan is not None and not plan.is_file():
            raise ConfigError(f"{experiment}: reaccept.plan: {self.plan!r} is no file in {experiment.parent}")
        return Reaccept(
            profile=self.profile,
            duration_s=self.duration_s,
            plan=plan,
            gpus=self.gpus,
            within_s=self.within_s,
        )

"""What every kind of target has to offer. Each is a ``KIND`` in ``target.py`` of its own folder.

In the order in which a game day asks: its folder, what a plan would hit there and how that is shown, whether
that may be, the target itself, holding it while the day lasts, and what of the record only it can judge.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.alerts.watch import look_at_alerts
from experiments.injecting import permission
from experiments.injecting.permission import Condition
from probes.json_types import JsonObject

if TYPE_CHECKING:
    from experiments.day import Day
    from experiments.evidence import Evidence
    from experiments.experiment import Experiment
    from experiments.impact.recovery import Times
    from experiments.plan import Hit, Plan
    from experiments.training.watch import TrainingWatch
    from probes.finding import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """A target as a plan is made of it."""

    where: JsonObject  # names it; in the hash
    surroundings: Callable[[], AbstractContextManager[None]]  # in which actions of ours choose their victims
    # Says more of a hit, by what was captured, or refuses it.
    refine: Callable[[Hit, JsonObject], Hit] = lambda hit, _: hit


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What somebody wants to carry out, and who asks whether that may be."""

    experiment: Experiment
    plan: Plan | None  # None: it is not known yet; only for some kinds it matters
    folder: Path  # of the target
    out: Path
    run: str = ""  # name of the game day that has the target already; empty: nobody has, it is only planned

    def now(self) -> list[Condition]:
        """Look at the hour and, where it is only planned, at who else is there."""
        window = permission.look_at_window(self.experiment.window, datetime.datetime.now(datetime.UTC))
        return [window] if self.run else [window, permission.look_at_others(self.folder)]

    def alerts(self) -> list[Condition]:
        """See, where it is only planned, whether the site's alerts can be asked; a day asks them itself."""
        alerts = self.experiment.alerts
        return [] if alerts is None or self.run else [look_at_alerts(alerts)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A target that a game day has found, and keeps others off until its stack unwinds."""

    folder: Path  # where its permission and its lock are
    url: str = ""  # what the load asks; empty: there is none
    variables: dict[str, str] = field(default_factory=dict)  # by which actions find it
    training: TrainingWatch | None = None  # None: traffic shows how the service is


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What of a target is looked at while the day lasts, and after it."""

    check: Callable[[], None] = lambda: None  # raises when the day cannot go on
    see_after: Callable[[], None] = lambda: None  # once all is undone: records how all others are
    give_back: Callable[[], None] = lambda: None  # the last thing of a day: tries what was hit once more


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetKind:
    """A kind of target."""

    folder: Callable[[Experiment, Path], Path]  # under ``--out``; of one that runs, or that stands for it
    ground: Callable[[Experiment, Path, int], Ground]  # by its folder and the seed
    # Of a plan, for whoever has to say yes or no; none where no action is ours.
    lines: Callable[[Hit], Sequence[str]] = lambda _: ()
    conditions: Callable[[Asked], Sequence[Condition]]
    is_planned_first: bool = False  # whether its conditions depend on what is hit
    reach: Callable[[Day], Reached]
    hold: Callable[[Day, Asked], Held] = lambda _day, _asked: Held()
    is_seen_without_traffic: bool = False  # whether it can be judged where no load is sent
    # What only this kind can: that whoever was hit is back, and that nobody else was hit.
    judge: Callable[[Evidence, Times], list[Finding]] = lambda _seen, _times: []

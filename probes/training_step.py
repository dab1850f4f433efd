"""One step of a training job as one rank reports it, whatever log it was read from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from probes.json_types import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step that a rank has finished."""

    t_ns: int
    step: int
    rank: int = 0
    world: int = 1  # ranks of the job at that time
    restart: int = 0  # as the launcher counts them; a log that does not say has 0 all along
    loss: float | None = None
    compute_s: float | None = None  # before the collective; None: the log does not say, as below
    sync_s: float | None = None  # waiting for the other ranks
    data_wait_s: float | None = None  # waiting for input
    checkpoint_s: float | None = None  # of it that a checkpoint blocked
    checkpoint_step: int | None = None  # the last one that is safe on disk; None: none is, or nobody says

    @property
    def busy_s(self) -> float | None:
        """How long the step took by its own account; None: it gives none."""
        parts = (self.compute_s, self.sync_s, self.data_wait_s, self.checkpoint_s)
        return None if self.compute_s is None else sum(part for part in parts if part is not None)


def step_from_json(row: JsonObject) -> Step | None:
    """Read a row back; None: it is no row of a step."""
    t_ns, step = _whole(row.get("t_ns")), _whole(row.get("step"))
    if t_ns is None or step is None:
        return None
    return Step(
        t_ns=t_ns,
        step=step,
        rank=_whole(row.get("rank")) or 0,
        world=_whole(row.get("world")) or 1,
        restart=_whole(row.get("restart")) or 0,
        loss=_number(row.get("loss")),
        compute_s=_number(row.get("compute_s")),
        sync_s=_number(row.get("sync_s")),
        data_wait_s=_number(row.get("data_wait_s")),
        checkpoint_s=_number(row.get("checkpoint_s")),
        checkpoint_step=_whole(row.get("checkpoint_step")),
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _number(value: object) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) else None


def step_to_json(step: Step) -> JsonObject:
    """Return a step as plain JSON; what its log does not say is not there."""
    return {name: value for name, value in asdict(step).items() if value is not None}

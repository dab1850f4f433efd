"""Rows of training jobs that never were: what was lost and when it went on is known beforehand."""

from __future__ import annotations

from probes.training_step import Step

STEP_NS = 50_000_000


def rows_of(
    first: int, last: int, *, start_ns: int, restart: int = 0, world: int = 2, every: int = 20,
    step_ns: int = STEP_NS, data_wait_s: float | None = 0.001, slow_rank: int | None = None,
    has_checkpoints: bool = True,
) -> list[Step]:  # fmt: skip
    """Return the rows of one attempt, from step ``first`` to ``last``, one step each ``step_ns``."""
    return [
        Step(
            t_ns=start_ns + (step - first + 1) * step_ns + rank * 1000,
            step=step,
            rank=rank,
            world=world,
            restart=restart,
            compute_s=0.03 if rank == slow_rank else 0.01,
            sync_s=0.01,
            data_wait_s=data_wait_s,
            checkpoint_step=step // every * every if has_checkpoints and step >= every else None,
        )
        for step in range(first, last + 1)
        for rank in range(world)
    ]

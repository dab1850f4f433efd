"""Who else computes on a GPU: told from our own processes also where we cannot see the others' numbers."""

from __future__ import annotations

from collections.abc import Sequence, Set


def foreign_pids(pids: Sequence[int], *, own: Set[int], own_count: int) -> list[int]:
    """Return the processes that are not ours.

    In a container the driver names processes as the host does, so that ours go by other numbers there: then
    only more processes than we started can be told from them.
    """
    others = [pid for pid in pids if pid not in own]
    if len(others) < len(pids) or own_count == 0:
        return others
    return others if len(pids) > own_count else []

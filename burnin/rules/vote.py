"""A vote on which bits are right: most must agree, and one alone is no majority."""

from __future__ import annotations

from collections.abc import Mapping


def majority(votes: Mapping[str, int]) -> str | None:
    """Return what more than half of the voters, and more than one, agree on; None: nobody is known right."""
    best = max(votes, key=lambda name: votes[name], default=None)
    if best is None or votes[best] < 2 or 2 * votes[best] <= sum(votes.values()):
        return None
    return best

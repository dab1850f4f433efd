"""What names a run on an object of the cluster that it changes."""

from __future__ import annotations

_LENGTH_MAX = 63  # of the name of an annotation


def mark_of(run: str) -> str:
    """Return the name of the annotation that says whose change it is."""
    return f"gameday-{run}"[-_LENGTH_MAX:].strip("-._")

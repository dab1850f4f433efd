"""What names a run on an object of the cluster that it changes."""

from __future__ import annotations

import secrets

_LENGTH_MAX = 63  # of the name of an annotation


def new_mark(run: str) -> str:
    """Return the name of an annotation that says whose change it is; another one for each change."""
    return f"gameday-{run}-{secrets.token_hex(3)}"[-_LENGTH_MAX:].strip("-._")

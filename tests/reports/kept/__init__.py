"""Real runs that are kept; see README.md beside them."""

from __future__ import annotations

from pathlib import Path

from reports.run import Run, load_run

KEPT = Path(__file__).parent


def kept_run(kind: str) -> Run:
    """Open the one run of this kind."""
    [folder] = KEPT.glob(f"2*-{kind}-*")
    return load_run(folder)

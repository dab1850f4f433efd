"""A user's own figures, thresholds and XIDs in one file, kept in the record to judge it by again."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field

from burnin.expectation import ExpectationSpec
from burnin.thresholds import ThresholdsSpec
from burnin.xid_table import XidSpec
from probes.errors import ConfigError
from probes.json_types import JsonObject
from probes.spec import Spec, check_spec, load_spec
from reports.record import write_atomically
from reports.run import Run

OVERRIDE_FILE = "expectations.json"
SPEC_KEY = "expectations"


class OverrideSpec(Spec):
    """The file that ``--expectations`` names."""

    models: list[ExpectationSpec] = Field(default_factory=list, description="As the files that are shipped.")
    thresholds: ThresholdsSpec = ThresholdsSpec()
    xids: dict[int, XidSpec] = Field(
        default_factory=dict, description="Entries that replace the shipped ones."
    )


def load_override(path: Path) -> OverrideSpec:
    """Read a user's file.

    Raises:
        ConfigError: it is wrong, or says nothing.
    """
    return load_spec(path, OverrideSpec)


def override_to_json(override: OverrideSpec, path: Path) -> JsonObject:
    """Return the file as the record keeps it, with its name."""
    return {"file": str(path), "override": override.model_dump(exclude_unset=True)}


def keep_override(run: Run, path: Path) -> None:
    """Put a user's file into a recorded run, which from then on is judged by it.

    Raises:
        ConfigError: the file is wrong or the run cannot be written.
    """
    kept = override_to_json(load_override(path), path)
    try:
        write_atomically(run.path / OVERRIDE_FILE, json.dumps(kept, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"{run.path / OVERRIDE_FILE}: cannot be written: {error.strerror}") from error


def override_of(run: Run) -> tuple[OverrideSpec, str]:
    """Return what a run is to be judged by and the name of the file it came from; empty: nothing but ours."""
    try:
        kept = json.loads((run.path / OVERRIDE_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        kept = run.header.spec.get(SPEC_KEY)
    if not kept:
        return OverrideSpec(), ""
    return check_spec(kept["override"], OverrideSpec, path=run.path / OVERRIDE_FILE), str(kept["file"])

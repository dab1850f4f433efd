"""The result of a run on standard output: the verdict, what decided it, and where the report is."""

from __future__ import annotations

import json
import sys

from probes.finding import finding_to_json
from probes.json_types import JsonObject
from reports.run import Run


def print_result(run: Run, *, as_json: bool) -> None:
    """Print the verdict and the findings; the run's path is the last line, or inside the JSON."""
    sys.stdout.write(json.dumps(result_document(run)) + "\n" if as_json else f"{run.outcome}\n{run.path}\n")


def result_document(run: Run) -> JsonObject:
    """Return what ``--json`` prints."""
    return {
        "run": str(run.path),
        "id": run.header.id,
        "kind": run.header.kind,
        "outcome": run.outcome.value,
        "state": run.state,
        "seed": run.header.seed,
        "findings": [finding_to_json(finding) for finding in run.findings],
    }

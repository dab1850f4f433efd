"""What is wrong with a result document, by its published schema and beyond it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from reports.publish import RESULT_FILE
from reports.record import RUN_FILE
from reports.result import FindingResult, ResultSpec, WaiverResult


def complaints(document: dict[str, Any]) -> list[str]:
    """Return all by which a document breaks the schema, and each field of it that no schema knows."""
    found = Draft202012Validator(ResultSpec.model_json_schema()).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in found] + [*_undocumented(document)]


def complaints_under(folder: Path) -> dict[str, list[str]]:
    """Return what is wrong with the results of all runs below a folder, by their paths."""
    found = {}
    for path in sorted(folder.rglob(RESULT_FILE)):
        if (path.parent / RUN_FILE).exists() and (wrong := complaints(json.loads(path.read_text("utf-8")))):
            found[str(path)] = wrong
    return found


def _undocumented(document: dict[str, Any]) -> Iterator[str]:
    yield from document.keys() - ResultSpec.model_fields.keys()
    for finding in document.get("findings", ()):
        yield from finding.keys() - FindingResult.model_fields.keys()
        yield from (finding.get("waiver") or {}).keys() - WaiverResult.model_fields.keys()

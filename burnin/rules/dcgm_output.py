"""What ``dcgmi diag -j`` prints, in the forms of its versions 3 and 4, as one table of results.

Version 3 puts everything under "DCGM GPU Diagnostic" and names GPUs by ``gpu_id`` or ``gpu_ids``; version 4
has "DCGM Diagnostic", entities, and their serial numbers beside it (DCGM's dcgmi/Diag.cpp, read 2026-07).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from probes.json_types import JsonObject


class Severity(IntEnum):
    """DCGM's own numbers (dcgm_errors.h, read 2026-07): RESET is 6, and 3 says that nothing is known."""

    NONE = 0
    MONITOR = 1
    ISOLATE = 2
    UNKNOWN = 3
    TRIAGE = 4
    CONFIG = 5
    RESET = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class DcgmWarning:
    """One complaint of one test."""

    text: str
    error_id: int | None  # None: this version gives none
    severity: Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class DcgmResult:
    """What one test said of one GPU, or of none."""

    test: str
    number: int | None  # DCGM's own of the GPU; None: the test is about the host, or about something else
    status: str  # pass, fail, warn, skip, not run; in lower case
    warnings: tuple[DcgmWarning, ...] = ()
    info: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What it said, in one line."""
        return "; ".join([*(warning.text for warning in self.warnings), *self.info])


@dataclass(frozen=True, slots=True, kw_only=True)
class DcgmReport:
    """One run of the diagnostic."""

    version: str
    results: tuple[DcgmResult, ...]
    serials: dict[int, str]  # of the GPUs, by DCGM's number
    error: str = ""  # why it broke off, in its own words


def read_dcgm_report(text: str) -> DcgmReport:
    """Read a report; lines of other kinds before and after it are passed over.

    Raises:
        ValueError: it is empty, torn, or no report.
    """
    begin = text.find("{")
    if begin < 0:
        raise ValueError("it printed nothing" if not text.strip() else f"no JSON: {text.strip():.120}")
    try:
        document, _ = json.JSONDecoder().raw_decode(text, begin)
    except ValueError as error:
        raise ValueError(f"its JSON is torn: {error}") from error
    body = document.get("DCGM Diagnostic") or document.get("DCGM GPU Diagnostic")
    if not isinstance(body, dict):
        raise ValueError(f"not a report of dcgmi diag: {', '.join(map(str, document)) or 'empty'}")
    try:
        return DcgmReport(
            version=str(document.get("metadata", {}).get("version") or body.get("version") or "unknown"),
            results=tuple(_results(body)),
            serials=_serials(document, body),
            error=str(body.get("runtime_error") or document.get("runtime_error") or ""),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"a report of another form: {type(error).__name__}: {error}") from error


def _results(body: JsonObject) -> Iterator[DcgmResult]:
    for category in body.get("test_categories") or []:
        for test in category["tests"]:
            for result in test.get("results") or []:
                for number in _numbers(result):
                    yield DcgmResult(
                        test=str(test["name"]),
                        number=number,
                        status=str(result["status"]).lower(),
                        warnings=tuple(map(_warning, _listed(result.get("warnings")))),
                        info=tuple(map(str, _listed(result.get("info")))),
                    )


def _numbers(result: JsonObject) -> list[int | None]:
    if "entity_group" in result:
        return [int(result["entity_id"]) if result["entity_group"] == "GPU" else None]
    told = str(result.get("gpu_ids", result.get("gpu_id", "")))
    return [int(part) for part in told.split(",") if part.strip()] or [None]


def _listed(value: object) -> list[object]:
    """Return a list where some versions give a single text."""
    return [] if value in (None, "") else value if isinstance(value, list) else [value]


def _warning(value: object) -> DcgmWarning:
    if not isinstance(value, dict):
        return DcgmWarning(text=str(value), error_id=None, severity=Severity.UNKNOWN)
    number = value.get("error_severity")
    error_id = value.get("error_id")
    return DcgmWarning(
        text=str(value.get("warning", "")),
        error_id=int(error_id) if isinstance(error_id, (int, str)) and str(error_id).isdigit() else None,
        severity=Severity(number)
        if isinstance(number, int) and number in set(Severity)
        else Severity.UNKNOWN,
    )


def _serials(document: JsonObject, body: JsonObject) -> dict[int, str]:
    found = {int(number): str(serial) for number, serial in (body.get("GPU Device Serials") or {}).items()}
    for group in document.get("entity_groups") or []:
        if group.get("entity_group") == "GPU":
            for entity in group["entities"]:
                if entity.get("serial_num"):
                    found[int(entity["entity_id"])] = str(entity["serial_num"])
    return found

"""What a machine reads of a run: the document of ``--json`` and of ``result.json``, and its schema.

What may change is a promise to whoever parses it. Within a ``schema_version`` fields are only added, and
``kind`` and ``rule`` may get new values: a reader passes over what it does not know. A field that goes, gets
another name, type or meaning, or a new ``outcome`` or ``state``, needs the next version. ``evidence`` is the
rule's own and outside of this promise.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from probes.finding import finding_to_json
from probes.json_types import JsonObject
from reports.run import Run

# History of the form of the document. 1 (2026-11-21): first form with a version.
SCHEMA_VERSION = 1

OutcomeName = Literal["pass", "inconclusive", "fail"]


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow")  # a later overproof may add fields


class WaiverResult(_Open):
    """A person's decision that a finding shall not count until a date."""

    rule: str = Field(description="shell pattern over rules")
    subject: str = Field(description="shell pattern over subjects")
    owner: str
    reason: str
    expires: str = Field(description="ISO date, the last day on which it holds")


class FindingResult(_Open):
    """What one rule concluded about one subject."""

    rule: str = Field(description="as docs/reference.md lists them")
    subject: str = Field(
        description="such as gpu:UUID, host:NAME, link:A-B, endpoint:URL, slo:NAME, fault:NAME"
    )
    outcome: OutcomeName | None = Field(description="null: not applicable here; shown, and not merged")
    observed: str
    expected: str
    unit: str = Field(description="of observed and expected; may be empty")
    evidence: dict[str, Any] = Field(description="the rule's own figures; not covered by schema_version")
    next_step: str = Field(description="what to do about it; empty where nothing is to be done")
    waiver: WaiverResult | None = Field(description="null: nobody has waived it")


class ResultSpec(_Open):
    """One run, as --json prints it and result.json holds it."""

    schema_version: Literal[1] = Field(description="of this document; raised where an old reader would err")
    run: str = Field(description="folder of the record")
    id: str
    kind: str = Field(description="burnin, fleet, load, findmax, calibration or gameday")
    outcome: OutcomeName = Field(description="of all findings that count; nothing measured is inconclusive")
    state: Literal["finished", "running", "interrupted", "stopped", "crashed"]
    seed: int
    findings: list[FindingResult]


def result_document(run: Run) -> JsonObject:
    """Return the document of one run."""
    return {
        "schema_version": SCHEMA_VERSION,
        "run": str(run.path),
        "id": run.header.id,
        "kind": run.header.kind,
        "outcome": run.outcome.value,
        "state": run.state,
        "seed": run.header.seed,
        "findings": [finding_to_json(finding) for finding in run.findings],
    }

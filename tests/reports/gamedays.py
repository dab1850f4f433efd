"""Records of game days that ended in every way, written through the record like any other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from probes.event import Event, to_json_line
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.record import UNDO_FILE, create_run
from reports.run import FINISHED, Run, load_run
from tests.reports.recorded import finding

INJECT_S = 16.0
SPEC: JsonObject = {
    "title": "The service outlives one replica",
    "document": {
        "title": "The service outlives one replica",
        "description": "Only the answers that\n it was giving are lost.",
        "steady-state-hypothesis": {"title": "Every replica serves"},
    },
    "recovery_s": 15.0,
    "guards": [{"name": "errors"}],
    "alerts": {"url": "http://am:9093", "filters": ['alertname="Down"'], "within_s": 30.0},
    "budget_window_days": 30.0,
}
PLAN: JsonObject = {
    "hash": "ab" * 32,
    "is_confirmed": True,
    "max_share": None,
    "budget_share": 0.0002,
    "targets": [
        {
            "fault": "replica.kill",
            "subject": "replica:replica-0",
            "ends_by": "platform",
            "victims": [{"name": "replica-0", "pid": 4242, "start_time": 1}],
            "at_once": 1,
            "replicas": 3,
            "share": 1 / 3,
        }
    ],
}
HARM: JsonObject = {
    "requests": 300, "by_client": 0, "failed": 3, "errors": {"truncated": 3}, "degraded_s": 2, "bad": 4,
    "rate_per_s": 20.0, "objective": 0.95, "budget_window_days": 30.0, "budget_requests": 2592000.0,
    "budget_share": 4 / 2592000,
}  # fmt: skip
Happening = tuple[float, str, JsonObject]  # seconds from the start, kind, data
FAULT: JsonObject = {"id": "f1", "fault": "replica.kill", "subject": "replica:replica-0"}
BREAKING: tuple[Happening, ...] = (
    (5.0, "phase.started", {"phase": "before"}),
    (15.0, "steady.seen", {"requests": 200}),
    (15.9, "fault.armed", FAULT),
    (16.01, "fault.verified", FAULT | {"observed": "pid 4242 is gone"}),
)
UNDONE: JsonObject = {"did": "nothing to do: the lab restarted it", "has_acted": False, "by": "rollback"}


def findings_of(
    t0_ns: int, *changes: Finding, harm: JsonObject = HARM, recover_s: float = 1.0
) -> list[Finding]:
    """Return findings of a day on which all was well, but for ``changes``, which replace a rule's."""
    moments: JsonObject = {
        f"{name}_ns": t0_ns + round((INJECT_S + after_s) * 1e9)
        for name, after_s in (
            ("t_inject", 0.0),
            ("t_detect", 2.5),
            ("t_recover", recover_s),
            ("t_redundant", 4.5),
        )
    }
    moments |= {"t_recover_s": recover_s, "t_redundant_s": 4.5}
    good = [
        finding("detection", "alertmanager:am", Outcome.PASS, "noticed after 2.50 s", evidence=moments),
        finding("recovery", "endpoint:e", Outcome.PASS, "after 1.00 s", evidence=moments | {"harm": harm}),
        finding("redundancy", "replica:replica-0", Outcome.PASS, "after 4.50 s", evidence=moments),
        finding("undo", "fault:replica.kill", Outcome.PASS),
    ]
    return [f for f in good if f.rule not in {c.rule for c in changes}] + list(changes)


def record_day(
    out: Path,
    *,
    happenings: Sequence[Happening] = (),
    undo: JsonObject | None = UNDONE,
    state: str = "undone",
    ends_by: str = "platform",
    findings: Sequence[Finding] = (),
    spec: JsonObject = SPEC,
    plan: JsonObject = PLAN,
    end: Happening = (40.0, FINISHED, {}),
    harm: JsonObject = HARM,
    recover_s: float = 1.0,
) -> Run:
    """Record a day on which a replica was killed; without more it heals and passes."""
    with create_run(out, kind="gameday", spec=spec, seed=7) as writer:
        t0 = writer.header.started_ns
        inject_ns = t0 + round(INJECT_S * 1e9)
        injected = FAULT | {"ends_by": ends_by, "t_inject_ns": inject_ns}
        rows = [*BREAKING, (16.005, "fault.injected", injected), *happenings, end]
        if undo is not None:
            rows += [
                (20.6, "undo.started", FAULT | {"by": undo["by"]}),
                (20.8, "undo.verified", FAULT | undo),
            ]
        for at_s, kind, data in rows:
            writer.append_event(
                Event(t_ns=t0 + round(at_s * 1e9), host="bench", source="t", kind=kind, data=data)
            )
        (writer.path / "plan.json").write_text(json.dumps(plan))
        states = [{**FAULT, "state": "armed", "captured": {}}]
        states += [{"id": "f1", "state": state, "detail": undo or {}}]
        (writer.path / UNDO_FILE).write_text("".join(map(to_json_line, states)))
        writer.write_findings(findings_of(t0, *findings, harm=harm, recover_s=recover_s))
    return load_run(writer.path)

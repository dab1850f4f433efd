"""Runs that are really recorded, for the tests that show them: written through the record like any other."""

from __future__ import annotations

import random
from pathlib import Path

from probes.event import Event, to_json_line
from probes.finding import Finding, Waiver
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.request import Request
from reports.record import RunWriter, create_run, write_findings
from reports.run import FINISHED, Run, load_run
from reports.table import seal

SECOND = 1_000_000_000
INJECT_S, DETECT_S, RECOVER_S, REDUNDANT_S, UNDO_S, END_S = 20.0, 20.6, 23.0, 26.0, 30.0, 45.0


def finding(
    rule: str, subject: str, outcome: Outcome | None, observed: str = "seen", **more: object
) -> Finding:
    """Return a finding with the words that no test cares about filled in."""
    return Finding(
        rule=rule,
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected=str(more.pop("expected", "as promised")),
        next_step=str(more.pop("next_step", "")),
        **more,  # type: ignore[arg-type]
    )


def request(
    t0_ns: int, index: int, at_s: float, *, ttft_ms: float = 60.0, error: str | None = None
) -> Request:
    """Return one request of a served stream, or one that failed after 30 ms."""
    sent = t0_ns + round(at_s * SECOND)
    if error is not None:
        return Request(
            index=index,
            worker=0,
            endpoint="http://127.0.0.1:9000/v1",
            t_intended_ns=sent,
            t_sent_ns=sent,
            t_first_ns=None,
            t_last_ns=None,
            t_end_ns=sent + 30_000_000,
            connect_ms=0.4,
            status=502,
            error=error,
            error_detail="the gateway has no replica",
            lag_ms_max=0.3,
        )
    gaps_us = tuple(20_000 + (index * 37 + k * 11) % 3000 for k in range(20))
    first = sent + round(ttft_ms * 1e6)
    last = first + sum(gaps_us) * 1000
    return Request(
        index=index,
        worker=0,
        endpoint="http://127.0.0.1:9000/v1",
        t_intended_ns=sent,
        t_sent_ns=sent + 100_000,
        t_first_ns=first,
        t_last_ns=last,
        t_end_ns=last + 1_000_000,
        connect_ms=None,
        status=200,
        error=None,
        finish_reason="stop",
        is_done=True,
        events=21,
        chars=84,
        tokens_in=50,
        tokens_out=21,
        gaps_us=gaps_us,
        reads=21,
        lag_ms_max=0.2 + index % 7 / 10,
    )


def write_requests(folder: Path, requests: list[Request]) -> None:
    """Append requests to the part of worker 0, as a load process does."""
    (folder / "requests").mkdir(parents=True, exist_ok=True)
    with (folder / "requests" / "worker-0.ndjson").open("a", encoding="utf-8") as file:
        for row in requests:
            file.write(to_json_line({name: getattr(row, name) for name in row.__slots__}))


def traffic(t0_ns: int, *, rate_per_s: float = 12.0, seed: int = 1) -> list[Request]:
    """Return Poisson traffic with a fault in it: failures and slow first tokens until the recovery."""
    chance = random.Random(seed)
    requests, at_s = [], 0.5
    while at_s < END_S - 1:
        is_hurt = INJECT_S <= at_s < RECOVER_S
        error = "status_502" if is_hurt and chance.random() < 0.35 else None
        slow = 600.0 * chance.random() if is_hurt else 0.0
        requests.append(
            request(t0_ns, len(requests), at_s, ttft_ms=45 + chance.gammavariate(2, 12) + slow, error=error)
        )
        at_s += chance.expovariate(rate_per_s)
    return requests


def game_day(out: Path, *, findings: list[Finding] | None = None, spec: JsonObject | None = None) -> Run:
    """Record a game day that killed one of three replicas, its traffic in the run inside it."""
    with create_run(out, kind="gameday", spec=spec or {"title": "one replica dies"}, seed=7) as writer:
        t0 = writer.header.started_ns
        _fault(writer, t0)
        for tenth in range(round(END_S * 2)):
            at_s = tenth / 2
            ready = 2 if INJECT_S <= at_s < REDUNDANT_S else 3
            writer.sample("lab", {"t_ns": _at(t0, at_s), "service": "gateway", "replicas_ready": ready})
        with create_run(out, kind="load", spec={}, seed=7, is_child=True, path=writer.path / "load") as load:
            write_requests(load.path, traffic(t0))
            load.append_event(_event(t0, END_S - 0.5, "load", FINISHED))
        seal(load.path)
        seal(writer.path)
    write_findings(writer.path, game_day_findings(t0) if findings is None else findings)
    return load_run(writer.path)


def judged(out: Path, findings: list[Finding], *, spec: JsonObject | None = None) -> Run:
    """Record a finished run that has these findings and no traffic."""
    with create_run(out, kind="gameday", spec=spec or {}, seed=7) as writer:
        writer.event("controller", FINISHED)
        writer.write_findings(findings)
    return load_run(writer.path)


def _fault(writer: RunWriter, t0: int) -> None:
    named = {"id": "process-kill-1", "fault": "process-kill", "subject": "replica:replica-1"}
    writer.append_event(_event(t0, INJECT_S, "fault", "fault.injected", **named))
    writer.append_event(
        _event(t0, INJECT_S + 0.02, "fault", "fault.verified", **named, observed="pid 4242 is gone")
    )
    writer.append_event(_event(t0, UNDO_S, "fault", "undo.started", **named))
    writer.append_event(
        _event(t0, UNDO_S + 0.1, "fault", "undo.verified", **named, did="nothing was left to undo")
    )
    writer.append_event(_event(t0, END_S, "controller", FINISHED))


def _at(t0_ns: int, at_s: float) -> int:
    return t0_ns + round(at_s * SECOND)


def _event(t0_ns: int, at_s: float, source: str, kind: str, **data: object) -> Event:
    return Event(t_ns=_at(t0_ns, at_s), host="bench", source=source, kind=kind, data=data)


def game_day_findings(t0_ns: int) -> list[Finding]:
    """Return what such a game day is judged to have shown, and one promise that it broke."""
    moments = {
        f"{name}_ns": _at(t0_ns, at_s)
        for name, at_s in (
            ("t_inject", INJECT_S),
            ("t_detect", DETECT_S),
            ("t_recover", RECOVER_S),
            ("t_redundant", REDUNDANT_S),
        )
    }
    waiver = Waiver(
        rule="collateral",
        subject="*",
        owner="sre@example.org",
        reason="known, see runbook",
        expires="2027-01-31",
    )
    return [
        finding("fault.verified", "fault:process-kill", Outcome.PASS, "pid 4242 is gone", evidence=moments),
        finding(
            "slo",
            "slo:ttft@during",
            Outcome.FAIL,
            "88.21% of 34 values at most 500 ms",
            expected="at least 95.00% at 95% confidence",
            next_step="look at the slowest requests of this phase",
        ),
        finding("slo", "slo:ttft@after", Outcome.PASS, "100.00% of 171 values at most 500 ms"),
        finding(
            "control",
            "detector:cut-stream",
            Outcome.PASS,
            "the cut stream was counted as failed",
            evidence={"fidelity": "end to end"},
        ),
        finding("alerting", "endpoint:http://127.0.0.1:9000", None, "the lab has no alerts of its own"),
        finding("collateral", "host:bench", Outcome.INCONCLUSIVE, "no baseline", waiver=waiver),
    ]

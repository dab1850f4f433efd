"""Rules over request rows for every job with traffic: errors, lateness, the client's own lag, accounting.

They say whether the load was the one that was asked for and whether its figures can be trusted; what was
promised about them is judged by ``probes.slo``.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from probes.breaches import CLIENT_ERRORS
from probes.finding import Finding
from probes.in_order import ascending
from probes.json_types import JsonObject
from probes.metric import at_share, late_ms
from probes.outcome import Outcome
from probes.request import Request
from probes.request_columns import keep, of, values_of
from probes.slo import GOODPUT, Slo, decide, samples_needed

# Why a request failed, by the kind in its row.
ERRORS: dict[str, str] = {
    "dropped": "never sent: as many requests as allowed were under way (in_flight_max)",
    "refused": "the connection was refused",
    "connect_failed": "no connection could be made",
    "connect_timeout": "no connection within connect_timeout_s",
    "tls_failed": "no sound TLS: certificate, handshake or records; the detail says what",
    "closed": "the server closed the connection without an answer",
    "reset": "the server reset the connection",
    "truncated": "the connection was closed in the middle of the answer",
    "no_done": "the stream ended as HTTP wants it, but without [DONE]: it was cut",
    "no_finish_reason": "the answer ended without a finish_reason",
    "empty": "the answer was whole and held no content",
    "usage_mismatch": "the server's usage does not fit what came or what was asked for",
    "first_byte_timeout": "no byte within first_byte_timeout_s",
    "timeout": "no end within timeout_s",
    "too_long": "the answer did not end within limits.events_max and limits.bytes_max",
    "runaway": "the answer went on beyond the number of tokens asked for, and was ended by the client",
    "repetition": "the answer said the same over and over; the client ended it (guards.repeats_share)",
    "redirect": "HTTP 3xx; redirects are not followed",
    "http_429": "HTTP 429: turned away for load",
    "http_4xx": "HTTP 4xx",
    "http_5xx": "HTTP 5xx",
    "content_type": "the answer is of another type than asked for, such as an HTML page",
    "bad_http": "the answer is not HTTP as the standard has it",
    "bad_event": "an event of the stream is not what the API promises",
    "error_event": "the server reported an error inside the stream",
    "client_limit": "this machine could not open one more connection (the client's fault)",
    "client_bug": "the client itself broke on this answer (the client's fault)",
    "hung_up": "the client left in the middle, as the workload wants; neither good nor failed",
    "gave_up": "no content came within the client's patience (hang_ups.patience_s)",
    "abandoned": "the run ended before the answer (the client's doing)",
}

# Received data that waited longer than this for the client, in 1 of 100 requests: the client was overloaded.
# Kernel timestamps keep single figures right far beyond it; what they blur is counted in each SLO.
LAG_MS_P99_MAX = 100.0
# Later sending than this in 1 of 100 requests: the load was not the one that was asked for.
LATENESS_MS_P99_MAX = 50.0
# The wall clock that all times are taken from may not jump; slewing by NTP stays far below.
CLOCK_STEP_MS_MAX = 5.0
UNSTAMPED_SHARE_MAX = 0.01
# Without kernel timestamps the client may not have been busy for longer than this at a time.
BUSY_MS_MAX = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFigures:
    """One second of the load client itself, as in ``series/client-*``."""

    busy_ms_max: float
    clock_step_ms: float


def judge_accounting(
    requests: Sequence[Request], *, arrivals: int | None, subject: str, wanted: Iterable[int] | None = None
) -> Finding:
    """Every arrival of the schedule has exactly one row, whatever became of it.

    ``arrivals`` is how many there were to be; None: the client did not live to say how far it got. ``wanted``
    are their indexes, where they are not the first ones.
    """
    missing, doubled, unknown = _compare_indexes(requests, range(arrivals or 0) if wanted is None else wanted)
    is_whole = arrivals is not None and arrivals > 0 and not (missing or doubled or unknown)
    if arrivals is None:
        observed = f"the load process ended early; {len(requests)} requests have a row"
    elif not arrivals:
        observed = "nothing was sent: the schedule has no arrival in this time"
    else:
        observed = f"{arrivals} arrivals, {len(requests)} rows"
        observed += f"; {missing} missing, {doubled} double, {unknown} unknown" if not is_whole else ""
    return Finding(
        rule="accounting",
        subject=subject,
        outcome=Outcome.PASS if is_whole else Outcome.INCONCLUSIVE,
        observed=observed,
        expected="one row for every arrival of the schedule",
        evidence={"arrivals": arrivals, "rows": len(requests), "missing": missing, "doubled": doubled},
        next_step=""
        if is_whole
        else "read locust.log in the run folder, then run it again, longer if it was short",
    )


def _compare_indexes(requests: Sequence[Request], wanted: Iterable[int]) -> tuple[int, int, int]:
    """Return how many indexes are missing, how many come twice, and how many nobody wanted."""
    due = bytearray()
    for index in wanted:
        if index >= len(due):
            due.extend(bytes(index + 1 - len(due)))
        due[index] = 1
    seen, beyond, doubled = bytearray(len(due)), set(), 0
    for index in values_of(requests, "index"):
        if 0 <= index < len(seen):
            doubled += seen[index]
            seen[index] = 1
        else:
            doubled += index in beyond
            beyond.add(index)
    missing = sum(due) - sum(map(int.__and__, due, seen))
    return missing, doubled, len(beyond) + sum(seen) - (sum(due) - missing)


def judge_errors(
    requests: Sequence[Request],
    *,
    slos: Sequence[Slo],
    subject: str,
    failed_share_max: float | None = None,
    confidence: float = 0.95,
) -> Finding:
    """Judge how many requests failed; without a share or a goodput SLO that allows some, none may.

    The evidence is the table of errors by kind, each with what it means and an example.
    """
    hung_up = sum(values_of(requests, "is_hung_up"))
    requests = keep(requests, "is_hung_up", where=lambda is_hung_up: not is_hung_up)
    table = error_table(requests)
    failed = sum(row["count"] for row in table)
    blamed = sum(row["count"] for row in table if row["kind"] not in CLIENT_ERRORS)
    kinds = ", ".join(f"{row['kind']} {row['count']}" for row in table)
    has_goodput = any(slo.metric == GOODPUT for slo in slos)
    outcome: Outcome | None
    if failed_share_max is not None:
        promise = {"objective": 1 - failed_share_max, "confidence": confidence}
        outcome = decide(failed, len(requests), **promise)
        if outcome is Outcome.FAIL and decide(blamed, len(requests), **promise) is not Outcome.FAIL:
            outcome = Outcome.INCONCLUSIVE
        needed = samples_needed(1 - failed_share_max, confidence)
        expected = (
            f"at most {failed_share_max:.2%} at {confidence:.0%} confidence ({needed} needed if none fails)"
        )
    elif has_goodput:
        outcome, expected = None, "judged by the goodput SLO"
    else:
        expected = "none failed (the workload allows none: it has neither failed_share_max nor a goodput SLO)"
        outcome = Outcome.FAIL if blamed else Outcome.INCONCLUSIVE if failed or not requests else Outcome.PASS
    return Finding(
        rule="errors",
        subject=subject,
        outcome=outcome,
        observed=f"{failed} of {len(requests)} requests failed"
        + (f" ({kinds})" if kinds else "")
        + (f"; {hung_up} more were hung up on purpose" if hung_up else ""),
        expected=expected,
        unit="requests",
        evidence={"errors": table, "hung_up": hung_up},
        next_step="" if outcome in (Outcome.PASS, None) else "see the example of each kind in the evidence",
    )


def error_table(requests: Sequence[Request]) -> list[JsonObject]:
    """Return each error kind with its count, meaning, replicas and an example, the most frequent first."""
    kinds: dict[str, JsonObject] = {}
    for error, detail, index, replica in of(requests, "error", "error_detail", "index", "replica"):
        if error is not None:
            if error not in kinds:
                meaning = ERRORS.get(error, "unknown to this version")
                kinds[error] = {"kind": error, "count": 0, "meaning": meaning, "example": detail}
                kinds[error] |= {"example_index": index, "replicas": set()}
            kinds[error]["count"] += 1
            kinds[error]["replicas"].add(replica)
    return [
        row | {"replicas": sorted(filter(None, row["replicas"]))}
        for row in sorted(kinds.values(), key=lambda row: -row["count"])
    ]


def judge_lateness(requests: Sequence[Request], *, subject: str) -> Finding:
    """Judge whether the client sent what was due when it was due: else it was another load."""
    late = ascending(array("d", (late_ms(row) for row in requests if row.t_sent_ns is not None)))
    dropped = sum(error == "dropped" for error in values_of(requests, "error"))
    unable = sum(error in CLIENT_ERRORS for error in values_of(requests, "error"))
    if not late:
        outcome, observed = Outcome.INCONCLUSIVE, f"nothing was sent; {dropped} arrivals dropped"
    else:
        worst = at_share(late, 0.99)
        outcome = Outcome.PASS if worst <= LATENESS_MS_P99_MAX and not unable else Outcome.INCONCLUSIVE
        observed = (
            f"{len(late)} sent, late by p50 {at_share(late, 0.5):.1f}, p99 {worst:.1f}, "
            f"at most {late[-1]:.1f} ms; "
            f"{dropped} dropped at the in-flight limit, {unable} failed on the client's side"
        )
    return Finding(
        rule="lateness",
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected=f"p99 at most {LATENESS_MS_P99_MAX:g} ms, nothing failed on the client's side",
        unit="ms",
        evidence={"sent": len(late), "dropped": dropped, "failed_by_client": unable},
        next_step="" if outcome is Outcome.PASS else "lower the rate or give the client more of this machine",
    )


def judge_client_lag(
    requests: Sequence[Request], figures: Sequence[ClientFigures], *, subject: str
) -> Finding:
    """Judge whether the client's own delays and clock leave its figures usable."""
    answered = keep(requests, "reads", where=bool)
    lags = ascending(array("d", values_of(answered, "lag_ms_max")))
    reads = sum(values_of(answered, "reads"))
    unstamped = sum(values_of(answered, "reads_unstamped"))
    coalesced = sum(values_of(answered, "reads_coalesced"))
    busy_ms = max((figure.busy_ms_max for figure in figures), default=0.0)
    step_ms = max((abs(figure.clock_step_ms) for figure in figures), default=0.0)
    reasons = []
    if not answered:
        reasons.append("no answer was read")
    elif at_share(lags, 0.99) > LAG_MS_P99_MAX:
        reasons.append("received data waited too long for the client")
    if unstamped > UNSTAMPED_SHARE_MAX * reads and busy_ms > BUSY_MS_MAX:
        reasons.append(
            f"the kernel stamped too few reads, and the client was busy for {busy_ms:.0f} ms at a time"
        )
    if step_ms > CLOCK_STEP_MS_MAX:
        reasons.append(f"the wall clock jumped by {step_ms:.0f} ms")
    observed = "; ".join(reasons)
    if answered:
        observed = (
            f"data waited for the client p50 {at_share(lags, 0.5):.2f}, p99 {at_share(lags, 0.99):.1f}, "
            f"at most {lags[-1]:.1f} ms; {reads - unstamped} of {reads} reads stamped by the kernel, "
            f"{coalesced} held several events" + (f"; {observed}" if observed else "")
        )
    return Finding(
        rule="client-lag",
        subject=subject,
        outcome=Outcome.INCONCLUSIVE if reasons else Outcome.PASS,
        observed=observed,
        expected=f"p99 of each request's longest wait at most {LAG_MS_P99_MAX:g} ms, no clock step",
        unit="ms",
        evidence={
            "requests": len(answered),
            "reads": reads,
            "reads_unstamped": unstamped,
            "reads_coalesced": coalesced,
            "busy_ms_max": busy_ms,
            "clock_step_ms_max": step_ms,
        },
        next_step="give the load client a core of its own or lower the rate, then run it again"
        if reasons
        else "",
    )

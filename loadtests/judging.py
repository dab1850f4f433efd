"""Judges a recorded load run, from its record alone: was it the load asked for, and were promises kept?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from loadtests import plan as plans
from loadtests.calibration.busiest import busiest_by_worker
from loadtests.calibration.certified import EVENT as CALIBRATED
from loadtests.calibration.certified import judge_calibration, reading_from_json
from loadtests.preflight import EVENT_REPLICAS, judge_replicas
from loadtests.rules.answers_evidence import judge_tasks
from loadtests.rules.autoscale_evidence import judge_expectations
from loadtests.rules.crew_judging import collect_sums, judge_accounted, judge_workers
from loadtests.rules.endpoint_judging import (
    WHOLE,
    groups_of,
    judge_errors_of,
    judge_fail_over,
    judge_parts,
    judge_presence,
    read_outages,
)
from loadtests.rules.outages import Outage
from loadtests.rules.prefix_cache import judge_prefix_cache
from loadtests.rules.regression import judge_baseline
from loadtests.sending.guards import judge_guards
from loadtests.sending.sessions import judge_chains
from loadtests.spec.inputs import EVENT as INPUTS
from loadtests.spec.workload import Workload, WorkloadSpec
from loadtests.traffic.arrivals import arrival_times_s
from loadtests.traffic.prompt_scale import judge_prompt_size
from loadtests.watching.server_metrics import judge_server_metrics
from probes.drift import judge_drift
from probes.event import Event
from probes.finding import Finding
from probes.outcome import Outcome
from probes.request import Request
from probes.request_columns import values_of
from probes.slo import GOODPUT, judge_slos_of
from probes.traffic import (
    ClientFigures,
    judge_accounting,
    judge_client_lag,
    judge_lateness,
)
from probes.warm_up import WarmUp, judge_warm_up, leave_out
from reports.run import Run
from reports.table import read_columns, read_series, series_names
from reports.verdict import IN_GAMEDAY

KEPT_IN_GAMEDAY = ("answers-right", "replica-answers")


def judge_run(run: Run) -> list[Finding]:
    """Return every finding about a load run."""
    workload = WorkloadSpec.model_validate(run.header.spec).to_workload()
    requests = read_columns(run.path)
    settled = leave_out(requests, workload.warm_up or WarmUp())
    is_peeked = workload.first_look_s is not None
    subject = f"endpoint:{requests[0].endpoint if requests else workload.endpoint.url or 'simulated'}"
    if workload.has_several:
        subject = WHOLE
    client = "client:load"
    outages = read_outages(run.events, requests)
    groups = groups_of(workload, requests, outages, whole=subject)
    settled_groups = groups_of(workload, settled.requests, outages, whole=subject)
    promises = [
        *judge_slos_of(
            workload.slos,
            [(group.phase, group.requests) for group in settled_groups],
            is_peeked=is_peeked,
            is_by_load=True,
        ),
        *(
            finding
            for group in settled_groups
            for finding in judge_drift(workload.slos, group.requests, phase=group.phase)
        ),
        *judge_tasks(run, workload, groups),
    ]
    if workload.warm_up is not None:
        promises.append(judge_warm_up(settled, workload.warm_up, subject=subject))
    findings = [
        *promises,
        *judge_expectations(run, workload, requests, subject=subject),
        *_judge_guards(run, workload, promises, subject=subject),
        *judge_errors_of(groups, workload),
        *_judge_endpoints(run, workload, requests, outages),
        _judge_accounting(run, workload, requests, subject=client),
        *_judge_crew(run, workload, subject=client),
        judge_lateness(requests, subject=client),
        judge_client_lag(requests, _figures(run), subject=client),
        _judge_calibration(run, workload, requests),
        *judge_prompt_size(run),
        *judge_prefix_cache(run, workload, requests),
        *_judge_replicas(run, workload, subject=subject),
        judge_controls(run.events_of(plans.READY)),
        *judge_server_metrics(run),
    ]
    findings += judge_baseline(run, requests, findings)
    if run.events_of(IN_GAMEDAY):
        return [_left_to_gameday(finding) for finding in findings]
    return findings


def _left_to_gameday(finding: Finding) -> Finding:
    """Leave a promise to the game day, which knows when it was to hold: over the whole run it says nothing.

    What is about the client stays, and so do right and wrong answers: the game day asks for both.
    """
    is_ours = finding.subject.startswith("client:") or finding.rule in KEPT_IN_GAMEDAY
    if is_ours or finding.outcome is None:
        return finding
    return replace(
        finding,
        outcome=None,
        observed=f"not judged here, where a fault was on purpose; over the whole run: {finding.observed}",
        next_step="see the game day's report, one folder above",
    )


def _judge_guards(run: Run, workload: Workload, promises: list[Finding], *, subject: str) -> list[Finding]:
    if not workload.guards.is_any:
        return []
    return [judge_guards(run.events_of(plans.GUARD), spec=workload.guards, decided=promises, subject=subject)]


def _judge_endpoints(
    run: Run, workload: Workload, requests: Sequence[Request], outages: list[Outage]
) -> list[Finding]:
    """Judge what only several endpoints have: their parts of the load, and the fail-over between them."""
    if not workload.has_several:
        return []
    t0_ns = min((event.data["t0_ns"] for event in run.events_of(plans.STARTED)), default=0)
    findings = judge_parts(
        workload, requests, run.events, seed=run.header.seed, wanted=_wanted(run, workload)
    )
    if workload.fail_over is not None:
        findings += judge_presence(workload, outages, t0_ns=t0_ns)
    return findings + judge_fail_over(workload, requests, outages, t0_ns=t0_ns)


def _wanted(run: Run, workload: Workload) -> set[int] | None:
    """Return the indexes that an open loop sent; None: that follows from answers, or is not known."""
    if workload.is_chained:
        return None
    arrivals, sent = _arrivals(run, workload), _sent_until_early_end(run)
    if sent is not None:
        return set(sent)
    return None if arrivals is None else set(range(arrivals))


def _judge_accounting(run: Run, workload: Workload, requests: Sequence[Request], *, subject: str) -> Finding:
    """An open loop is checked against its schedule; chains of requests against what each follows from."""
    if not workload.is_chained:
        arrivals, wanted = _arrivals(run, workload), _sent_until_early_end(run)
        return judge_accounting(requests, arrivals=arrivals, subject=subject, wanted=wanted)
    ended = run.events_of(plans.ENDED)
    return judge_chains(
        workload,
        requests,
        seed=run.header.seed,
        t0_ns={event.data["worker"]: event.data["t0_ns"] for event in run.events_of(plans.STARTED)},
        is_early=any(event.data.get("is_early") for event in run.events_of(plans.ARRIVALS_ENDED)),
        has_ended=bool(ended) and all(event.data.get("reason") == "drained" for event in ended),
        subject=subject,
    )


def _sent_until_early_end(run: Run) -> Iterator[int] | None:
    """Return the indexes that workers of a run that was to finish early say they sent; None: it was not.

    Each had walked its own share, and they do not stop at the same arrival.
    """
    stopped = run.events_of(plans.ARRIVALS_ENDED)
    if not any(event.data.get("is_early") for event in stopped):
        return None
    step = next((int(event.data["workers"]) for event in run.events_of(plans.CREW)), 1)
    shares = [(int(event.data["worker"]), int(event.data["arrivals"])) for event in stopped]
    return (index for worker, count in shares for index in range(worker, worker + count * step, step))


def _judge_crew(run: Run, workload: Workload, *, subject: str) -> list[Finding]:
    """Judge the load processes: did each come to its end, and do all sums agree?"""
    crew = next((event.data for event in run.events_of(plans.CREW)), None)
    if crew is None:
        return []
    workers, ended = int(crew["workers"]), run.events_of(plans.ENDED)
    merged = next(iter(run.events_of(plans.MERGED)), None)
    drained = {event.data["worker"] for event in ended if event.data.get("reason") == "drained"}
    lost = {e.data["worker"]: e for e in run.events_of(plans.LOST) if e.data["worker"] not in drained}
    sums = collect_sums(run.path, workers=workers, ended=ended, merged=merged, lost=lost)
    accounted = judge_accounted(sums, subject=subject)
    if workers == 1:
        return [accounted]
    arrivals = None if workload.is_chained else _arrivals(run, workload)
    rows = {one.worker: one.in_rows["rows"] for one in sums}
    return [judge_workers(workers=workers, ended=ended, lost=lost, arrivals=arrivals, rows=rows), accounted]


def _arrivals(run: Run, workload: Workload) -> int | None:
    """Return how many arrivals there were to be; None: the load process did not come to its end.

    The schedule is made again from its seed: what the load process says of itself would not be evidence. Only
    a run that was asked to finish early is taken at its word for where it stopped.
    """
    ended, stopped = run.events_of(plans.ENDED), run.events_of(plans.ARRIVALS_ENDED)
    if not ended or not stopped or any(event.data.get("reason") != "drained" for event in ended):
        return None
    if any(event.data.get("is_early") for event in stopped):
        return sum(int(event.data["arrivals"]) for event in stopped)
    if workload.arrivals.trace is not None:  # counted by the controller before the load; the file may be gone
        return next((int(event.data["arrivals"]) for event in run.events_of(INPUTS)), None)
    schedule = arrival_times_s(workload.arrivals, duration_s=workload.duration_s, seed=run.header.seed)
    return sum(1 for _ in schedule)


def _judge_calibration(run: Run, workload: Workload, requests: Sequence[Request]) -> Finding:
    return judge_calibration(
        [reading_from_json(event.data) for event in run.events_of(CALIBRATED)],
        busiest_by_worker(requests),
        error_ms_max=workload.calibration.error_ms_max,
        is_skipped=workload.calibration.is_skipped,
        needs_timing=any(slo.metric != GOODPUT for slo in workload.slos),
        is_tls=any(endpoint.startswith("https:") for endpoint in values_of(requests, "endpoint")),
    )


def _judge_replicas(run: Run, workload: Workload, *, subject: str) -> list[Finding]:
    seen = {event.data.get("endpoint"): event.data for event in run.events_of(EVENT_REPLICAS)}
    return [
        judge_replicas(
            seen.get(endpoint.name),
            expected=endpoint.spec.replicas,
            subject=subject if endpoint.name is None else f"endpoint:{endpoint.name}",
        )
        for endpoint in workload.endpoints
        if endpoint.spec.replicas is not None
    ]


def _figures(run: Run) -> list[ClientFigures]:
    rows = [row for name in series_names(run) if name.startswith("client-") for row in read_series(run, name)]
    return [
        ClientFigures(busy_ms_max=row["busy_ms_max"], clock_step_ms=row["clock_step_ms"])
        for row in rows
        if row.get("busy_ms_max") is not None and row.get("clock_step_ms") is not None
    ]


def judge_controls(ready: Sequence[Event]) -> Finding:
    """The stream reader must have found every fault that was planted for it, right before this load."""
    controls = [control for event in ready for control in event.data.get("controls", [])]
    missed = list(dict.fromkeys(c["name"] for c in controls if not c.get("is_proven")))  # of any load process
    proven = list(dict.fromkeys(c["name"] for c in controls if c.get("is_proven")))
    if not controls:
        observed = "the controls were not run"
    elif missed:
        observed = f"not found: {', '.join(missed)}"
    else:
        observed = f"found over a real socket: {', '.join(proven)}"
    return Finding(
        rule="stream-integrity-control",
        subject="client:load",
        outcome=Outcome.PASS if controls and not missed else Outcome.INCONCLUSIVE,
        observed=observed,
        expected="every planted answer, good and broken, is recognised by the reader that the load uses",
        evidence={"controls": controls},
        next_step=""
        if controls and not missed
        else "report this with the run folder; the error counts cannot be trusted",
    )

"""Reads from the record what an expected autoscaling is judged by, and has it judged."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests import plan as plans
from loadtests.rules.autoscale import Phases, Sample, Watch, judge_autoscale
from loadtests.spec.expect import AutoscaleSpec, find_phases
from loadtests.spec.workload import Workload
from loadtests.traffic.arrivals import arrival_times_s
from loadtests.watching.replica_watch import SERIES
from probes.breaches import CLIENT_ERRORS
from probes.finding import Finding
from probes.request import Request
from probes.request_columns import keep
from probes.slo import judge_slos
from probes.slo_spec import to_slos
from reports.request_table import open_requests
from reports.run import Run
from reports.table import read_series, series_names

_LATE_NS = 1_000_000_000  # sent later than this, an arrival no longer belongs to its spike
_ARRIVED = """SELECT count(*) FROM requests WHERE t_intended_ns >= $begin AND t_intended_ns < $end
AND coalesce(t_sent_ns - t_intended_ns, 0) <= $late AND NOT coalesce(list_contains($ours, error), false)"""


def judge_expectations(
    run: Run, workload: Workload, requests: Sequence[Request], *, subject: str
) -> list[Finding]:
    """Return what came of the expected autoscaling; nothing where the workload expects none."""
    if workload.expect is None:
        return []
    expected = workload.expect.autoscale
    phases = find_phases(workload.arrivals.rate)
    assert phases is not None  # checked with the workload
    phases = Phases(up_s=phases.up_s, idle_s=min(phases.idle_s, workload.duration_s))
    t0_ns = min((event.data["t0_ns"] for event in run.events_of(plans.STARTED)), default=0)
    judged = []
    count = expected.to_expectation()
    if count is not None:
        watch = _read_watch(run, workload, expected, phases, t0_ns=t0_ns)
        judged.append(judge_autoscale(count, phases, watch, subject=subject))
    return [*judged, *judge_capacity(expected, phases, requests, t0_ns=t0_ns)]


def judge_capacity(
    expected: AutoscaleSpec, phases: Phases, requests: Sequence[Request], *, t0_ns: int
) -> list[Finding]:
    """Judge the promises that hold again: of requests wanted after the limit and before the spike's end."""
    if not expected.scale_up.slos:
        return []
    begin_ns = t0_ns + round((phases.up_s + expected.scale_up.within_s) * 1e9)
    end_ns = t0_ns + round(phases.idle_s * 1e9)
    scaled = keep(requests, "t_intended_ns", where=lambda due_ns: begin_ns <= due_ns < end_ns)
    return judge_slos(to_slos(expected.scale_up.slos), scaled, phase="scaled up")


def _read_watch(
    run: Run, workload: Workload, expected: AutoscaleSpec, phases: Phases, *, t0_ns: int
) -> Watch:
    rows = read_series(run, SERIES) if SERIES in series_names(run) else []
    came = [row for row in rows if row.get("replicas") is not None]
    times_s = arrival_times_s(workload.arrivals, duration_s=workload.duration_s, seed=run.header.seed)
    assert expected.replicas is not None
    return Watch(
        samples=[
            Sample(
                t_s=round((row["t_ns"] - t0_ns) / 1e9, 3),
                at_least=row["replicas"],
                at_most=row.get("replicas_at_most"),
            )
            for row in sorted(came, key=lambda row: int(row["t_ns"]))
        ],
        looks=len(rows),
        problems=list(dict.fromkeys(str(row["problem"]) for row in rows if row.get("problem"))),
        planned=sum(phases.up_s <= at_s < phases.idle_s for at_s in times_s),
        arrived=_count_arrived(run, phases, t0_ns=t0_ns),
        source=expected.replicas.kind,
    )


def _count_arrived(run: Run, phases: Phases, *, t0_ns: int) -> int:
    """Count the spike's requests that were sent in time; one that met a full or closed door was load too."""
    values = {
        "begin": t0_ns + round(phases.up_s * 1e9),
        "end": t0_ns + round(phases.idle_s * 1e9),
        "late": _LATE_NS,
        "ours": sorted(CLIENT_ERRORS),
    }
    with open_requests(run.path) as connection:
        found = connection.execute(_ARRIVED, values).fetchone()
    return 0 if found is None else int(found[0])

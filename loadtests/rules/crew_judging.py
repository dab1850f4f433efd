"""Rules about the load processes of one run: all came to their end, and their sums agree with the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from probes.event import Event
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.request_table import open_requests

# Each sum of ``loadtests.processes.tally``, as SQL makes it from the rows of one worker.
_SUMS = {
    "rows": "count(*)",
    "failed": "count(*) FILTER (error IS NOT NULL AND NOT is_hung_up)",
    "hung_up": "count(*) FILTER (is_hung_up)",
    "dropped": "count(*) FILTER (error = 'dropped')",
    "events": "sum(events)",
    "gaps": "sum(len(gaps_us))",
    "tokens": "sum(coalesce(tokens_out, events))",
    "ttft_ms": "count(*) FILTER (error IS NULL AND t_sent_ns IS NOT NULL AND t_first_ns IS NOT NULL)",
    "itl_ms": "sum(len(gaps_us)) FILTER (error IS NULL)",
    "e2e_ms": "count(*) FILTER (error IS NULL AND t_sent_ns IS NOT NULL AND t_end_ns IS NOT NULL)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What was counted of one worker: by itself, by the master, and in its rows; None: nothing was said."""

    worker: int
    is_lost: bool
    by_worker: JsonObject | None
    by_master: JsonObject | None
    in_rows: JsonObject


def sum_rows(folder: Path) -> dict[int, JsonObject]:
    """Return the sums over each worker's rows, made by SQL: there may be millions.

    Raises:
        RecordError: a part cannot be read.
    """
    wanted = ", ".join(f"coalesce({sql}, 0) AS {name}" for name, sql in _SUMS.items())
    with open_requests(folder) as connection:
        cursor = connection.execute(f"SELECT worker, {wanted} FROM requests GROUP BY worker")  # noqa: S608
        rows = cursor.fetchall()
    return {int(row[0]): dict(zip(_SUMS, map(int, row[1:]), strict=True)) for row in rows}


def collect_sums(
    folder: Path, *, workers: int, ended: list[Event], merged: Event | None, lost: Mapping[int, Event]
) -> list[Sums]:
    """Return what each side counted of each worker."""
    by_worker = {int(event.data["worker"]): event.data for event in ended}
    by_master = {} if merged is None else merged.data.get("workers", {})
    in_rows = sum_rows(folder)
    return [
        Sums(
            worker=number,
            is_lost=number in lost,
            by_worker=_counts(by_worker.get(number)),
            by_master=_counts(by_master.get(str(number))),
            in_rows=in_rows.get(number, dict.fromkeys(_SUMS, 0)),
        )
        for number in sorted({*range(workers), *in_rows})
    ]


def _counts(data: JsonObject | None) -> JsonObject | None:
    """Return the comparable counts of a report: of a histogram, how many values it holds."""
    if data is None:
        return None
    found = {name: data.get(name) for name in _SUMS if name in data}
    return {name: value["count"] if isinstance(value, dict) else value for name, value in found.items()}


def judge_accounted(sums: list[Sums], *, subject: str) -> Finding:
    """What master, workers and rows count must be equal, to the last token; a lost worker's cannot be."""
    problems: list[str] = []
    for one in sums:
        if one.is_lost:
            reported = 0 if one.by_master is None else one.by_master["rows"]
            problems.append(
                f"worker {one.worker} was lost: {reported} rows reported, {one.in_rows['rows']} here"
            )
        elif one.by_worker is None or one.by_master is None:
            who = "itself" if one.by_worker is None else "the master"
            problems.append(f"worker {one.worker}: no sums by {who}")
        else:
            problems += _differences(one)
    rows = sum(one.in_rows["rows"] for one in sums)
    is_equal = bool(sums) and not problems
    return Finding(
        rule="requests-accounted",
        subject=subject,
        outcome=Outcome.PASS if is_equal else Outcome.INCONCLUSIVE,
        observed="; ".join(problems[:5])
        or f"{rows} rows of {len(sums)} load processes: requests, failures, events, gaps and tokens agree",
        expected="load processes, their master and the rows on disk have the same sums",
        evidence={
            "workers": [
                {
                    "worker": s.worker,
                    "worker_says": s.by_worker,
                    "master_says": s.by_master,
                    "rows": s.in_rows,
                }
                for s in sums
            ]
        },
        next_step="" if is_equal else "read locust*.log in the run folder, then run it again",
    )


def _differences(one: Sums) -> list[str]:
    assert one.by_worker is not None
    assert one.by_master is not None
    return [
        f"worker {one.worker}: {name} {said[name]} by {who}, {one.in_rows[name]} in its rows"
        for who, said in (("itself", one.by_worker), ("the master", one.by_master))
        for name in _SUMS
        if name in said and said[name] != one.in_rows[name]
    ]


def judge_workers(
    *,
    workers: int,
    ended: list[Event],
    lost: Mapping[int, Event],
    arrivals: int | None,
    rows: Mapping[int, int],
) -> Finding:
    """Every worker has to walk its share to the end; what a lost one left out nobody can send afterwards.

    ``arrivals`` is how many the whole schedule has; None: nobody knows, as in a closed loop.
    """
    drained = {int(event.data["worker"]) for event in ended if event.data.get("reason") == "drained"}
    problems = []
    for number in range(workers):
        if number in drained:
            continue
        share = "" if arrivals is None else f" of {len(range(number, arrivals, workers))} in its share"
        cause = lost[number].data if number in lost else {}
        reason = cause.get("reason") or "it did not come to its end"
        kept = f"; more may be in {cause['folder']} on {cause['host']}" if cause.get("folder") else ""
        problems.append(
            f"worker {number} was lost: {reason}; {rows.get(number, 0)} rows{share} are here{kept}"
        )
    return Finding(
        rule="workers",
        subject="client:load",
        outcome=Outcome.INCONCLUSIVE if problems else Outcome.PASS,
        observed="; ".join(problems) or f"all {workers} load processes came to their end",
        expected="every load process sends its share of the schedule to the end",
        evidence={"workers": workers, "lost": [n for n in range(workers) if n not in drained]},
        next_step="see why it went (its log, the kernel's, its network), then run it again"
        if problems
        else "",
    )

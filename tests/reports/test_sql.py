"""Every recipe of docs/sql.md over real runs, beside what our own code makes of the same records."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from probes.request import Request
from reports.related import nodes_of, related_runs, runs_beside
from reports.run import Run, load_run
from reports.sheet import build_sheet
from reports.table import read_requests, read_series
from tests.reports.kept import KEPT, kept_run

GUIDE = Path(__file__).parent.parent.parent / "docs" / "sql.md"
RECIPES = dict(re.findall(r"^```sql\n-- (\w+)\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE))
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def answers() -> dict[str, Rows]:
    """What each recipe returns, in the order of the guide and in one session."""
    found = {}
    with duckdb.connect() as connection:
        for name, text in RECIPES.items():
            connection.execute(text.replace("'runs/", f"'{KEPT}/"))
            names = [column[0] for column in connection.description or []]
            found[name] = [dict(zip(names, row, strict=True)) for row in connection.fetchall()]
    return found


def loads() -> list[Run]:
    return [load_run(kept_run("gameday").path / "load"), kept_run("load")]


def every_run() -> list[Run]:
    return [kept_run("burnin"), kept_run("gameday"), *loads()]


def requests_of(run: Run) -> list[Request]:
    return read_requests(run.path)


def failed_seconds() -> Counter[int]:
    ended = (r.t_end_ns for run in loads() for r in requests_of(run) if r.error is not None)
    return Counter(t_ns // 10**9 for t_ns in ended if t_ns is not None)


def outcomes(rows: Rows) -> None:
    said = {row["run"]: (row["kind"], row["host"], row["came_to"], row["failed"]) for row in rows}
    assert said == {
        run.header.id: (
            run.header.kind,
            run.header.host,
            str(run.outcome),
            sum(f.outcome is not None and f.outcome.value == "fail" for f in run.findings),
        )
        for run in every_run()
    }
    assert {row["came_to"] for row in rows} == {"PASS", "FAIL"}


def slowest(rows: Rows) -> None:
    every = [
        (run, r) for run in loads() for r in requests_of(run) if r.is_good and r.t_end_ns and r.t_sent_ns
    ]
    every.sort(key=lambda pair: pair[1].t_sent_ns - pair[1].t_end_ns)  # type: ignore[operator]
    assert [(row["run"], row["index"]) for row in rows] == [(run.path.name, r.index) for run, r in every[:10]]
    assert rows[0]["e2e_ms"] == round((every[0][1].t_end_ns - every[0][1].t_sent_ns) / 1e6, 1)  # type: ignore[operator]


def errors(rows: Rows) -> None:
    every = [(str(run.path), r) for run in loads() for r in requests_of(run) if not r.is_hung_up]
    sent = Counter((folder, r.replica or "not known") for folder, r in every)
    failed = Counter((folder, r.replica or "not known") for folder, r in every if r.error)
    assert {(row["folder"], row["replica"]): (row["requests"], row["failed"]) for row in rows} == {
        key: (count, failed[key]) for key, count in sent.items()
    }
    kinds = Counter(r.error for _, r in every if r.error)
    assert sum((Counter(row["kinds"]) for row in rows if row["kinds"]), Counter()) == kinds
    assert failed.total() > 0


def latency(run: Run, metric: str, percentile: str) -> float:
    [row] = [row for row in build_sheet(run).latencies if row.metric == metric]
    return row.values[percentile]


def ttft(rows: Rows) -> None:
    [own] = [row for row in rows if row["folder"] == str(kept_run("load").path)]  # all within one minute
    for percentile in ("p50", "p90", "p99"):
        assert own[percentile] == pytest.approx(latency(kept_run("load"), "ttft_ms", percentile))
    assert len(rows) == 3  # the game day went on from one minute into the next
    assert sum(row["answered"] for row in rows) == sum(r.is_good for run in loads() for r in requests_of(run))


def gaps(rows: Rows) -> None:
    for run, row in zip(loads(), rows, strict=True):
        assert row["folder"] == str(run.path)
        assert row["p50"] == pytest.approx(latency(run, "itl_ms", "p50"))
        assert row["longest"] == max(gap for r in requests_of(run) if r.is_good for gap in r.gaps_us) / 1000


def temperature(rows: Rows) -> None:
    bad = failed_seconds()
    samples = [s for s in read_series(kept_run("burnin"), "gpu") if s["t_ns"] // 10**9 in bad]
    hottest = max(s["temperature_c"] for s in samples)
    heat = next(f for f in kept_run("burnin").findings if f.rule == "heat" and str(f.outcome) == "FAIL")
    assert {row["gpu"] for row in rows} == {s["gpu"] for s in samples}
    assert (rows[0]["most_c"], rows[0]["gpu"]) == (hottest, heat.subject.removeprefix("gpu:"))
    assert f"at most {hottest} °C" in heat.observed
    assert rows[0]["seconds"] == len({s["t_ns"] // 10**9 for s in samples})


def host(rows: Rows) -> None:
    assert [row["run"] for row in rows] == [run.header.id for run in every_run()]
    assert nodes_of(kept_run("burnin")) == {"vm"}


def rules(rows: Rows) -> None:
    failed = [f for run in every_run() for f in run.findings if str(f.outcome) == "FAIL" and f.waiver is None]
    assert {(r["rule"], r["subject"], r["for_example"], r["next"]) for r in rows} == {
        (f.rule, f.subject, f.observed, f.next_step) for f in failed
    }


def moments(rows: Rows) -> None:
    told = {m.after_s for m in build_sheet(kept_run("gameday")).moments if m.after_s is not None}
    assert {row["moment"] for row in rows} == {"t_detect", "t_mitigate", "t_recover", "t_redundant"}
    for row in rows:
        assert any(row["after_inject_s"] == pytest.approx(after_s, abs=0.01) for after_s in told), (row, told)


def phases(rows: Rows) -> None:
    every = requests_of(loads()[0])
    before, during, after = (round(row["requests"] * (1 - row["answered_share"])) for row in rows)
    assert sum(row["requests"] for row in rows) == len(every)
    assert (before, during, after) == (0, sum(not r.is_good for r in every), 0)


def speed(rows: Rows) -> None:
    series = read_series(kept_run("burnin"), "matmul")
    for row in rows:
        own = [s["tflops"] for s in series if (s["device"], s["format"]) == (row["device"], row["format"])]
        assert (row["readings"], row["tflops"]) == (len(own), pytest.approx(statistics.median(own)))


CHECKS: dict[str, Callable[[Rows], None]] = {
    check.__name__: check
    for check in (
        outcomes, slowest, errors, ttft, gaps, temperature, host, rules, moments, phases, speed
    )
}  # fmt: skip


def test_every_recipe_is_checked() -> None:
    assert list(RECIPES) == ["views", *CHECKS]
    assert GUIDE.read_text().count("```sql") == len(RECIPES)


@pytest.mark.parametrize("name", CHECKS)
def test_a_recipe_finds_in_real_runs_what_our_own_code_finds(name: str, answers: dict[str, Rows]) -> None:
    assert answers[name]
    CHECKS[name](answers[name])


def test_a_failed_request_that_names_no_replica_is_of_one_that_is_not_known() -> None:
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE requests AS SELECT 'a' AS folder, unnest(['', NULL, 'r-1']) AS replica,"
            " 'status_502' AS error, false AS is_hung_up"
        )
        rows = connection.execute(RECIPES["errors"]).fetchall()

    assert {(replica, count) for _, replica, count, *_ in rows} == {("not known", 2), ("r-1", 1)}


def test_the_kept_game_day_is_told_of_the_burn_in_beside_it() -> None:
    day = kept_run("gameday")
    found = {one.path.name: one.when for one in related_runs(day, runs_beside(day))}

    assert found["load"] == "inside it"
    assert found[kept_run("burnin").path.name].startswith("at the same time, for 3")
    assert found[kept_run("load").path.name].startswith("began ")

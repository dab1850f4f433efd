"""The search for the highest rate that holds: where it looks, what a step shows, and a limit known before."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import overproof
from loadtests.plan import ARRIVALS_ENDED
from loadtests.search.find_max import Search as SearchOrder
from loadtests.search.find_max import check_search, step_spec
from loadtests.search.max_rate import Step, find_knee, find_saturated
from loadtests.search.rate_search import Tried, interval_of, next_rate
from loadtests.search.rate_step import Backlog, arrivals_needed, backlog_of, judge_step, variance_of
from loadtests.spec.workload import WorkloadSpec
from loadtests.traffic.arrivals import Arrivals
from probes.errors import ConfigError
from probes.outcome import Outcome
from probes.request import Request
from probes.slo import Slo
from reports.html import render_html
from reports.record import create_run
from reports.run import load_run
from tests.loadtests.endpoints import endpoint
from tests.probes.rows import answered

SLO = Slo(name="ttft", metric="ttft_ms", objective=0.95, bound=500)
TEXT = """
name: known
arrivals: {kind: constant, rate_per_s: 150}
duration_s: 5
calibration: {is_skipped: true}
prompt:
  input_tokens: {kind: constant, value: 16}
  output_tokens: {kind: constant, value: 16}
slos: [{metric: goodput, objective: 0.9}]
"""
CAPACITY_PER_S = 32 / (16 * 0.02)  # slots / (tokens * step)
ENDPOINT = ("--slots", "32", "--decode-step-ms", "20", "--prefill-tokens-per-s", "1e9", "--queue-max", "32")


def search(truth: float, *, start: float, served: float | None, unsure: float = 0.0) -> list[Tried]:
    """Search an endpoint that holds exactly below ``truth``; near it a step may be undecided."""
    tried: list[Tried] = []
    while (rate := next_rate(tried, start_per_s=start, precision=0.05)) is not None:
        near = abs(rate / truth - 1) < unsure
        outcome = Outcome.INCONCLUSIVE if near else Outcome.PASS if rate <= truth else Outcome.FAIL
        has_failed = any(one.outcome is Outcome.FAIL for one in tried)
        seen = served if outcome is Outcome.FAIL else None
        tried.append(Tried(rate_per_s=rate, outcome=outcome, is_long=has_failed, served_per_s=seen))
        assert len(tried) < 40
    return tried


@pytest.mark.parametrize("truth", [0.7, 7.3, 31.9, 33.0, 100.0, 517.0])
@pytest.mark.parametrize("start", [1.0, 30.0, 400.0])
def test_the_limit_is_enclosed_wherever_the_search_begins(truth: float, start: float) -> None:
    found = interval_of(search(truth, start=start, served=None))

    assert found.low_per_s is not None
    assert found.high_per_s is not None
    assert found.low_per_s <= truth < found.high_per_s <= found.low_per_s * 1.051


def test_what_came_out_under_overload_makes_the_search_short() -> None:
    plain, told = search(100, start=30, served=None), search(100, start=30, served=100.3)

    assert len(told) <= 6 < len(plain)
    assert interval_of(told).is_within(0.05)


def test_a_wrong_word_about_the_overload_costs_steps_but_never_the_interval() -> None:
    found = interval_of(search(60, start=30, served=100))

    assert found.low_per_s is not None
    assert found.high_per_s is not None
    assert found.low_per_s <= 60 < found.high_per_s
    assert found.is_within(0.06)


def test_rates_that_cannot_be_decided_end_the_search_and_stay_inside_the_interval() -> None:
    found = interval_of(search(100, start=30, served=None, unsure=0.04))

    assert found.low_per_s is not None
    assert found.high_per_s is not None
    assert found.low_per_s <= 96
    assert found.high_per_s >= 104


def test_a_low_end_that_was_tried_briefly_is_tried_again_before_it_counts() -> None:
    tried = [
        Tried(rate_per_s=99, outcome=Outcome.PASS),
        Tried(rate_per_s=102, outcome=Outcome.FAIL),
    ]

    assert next_rate(tried, start_per_s=1, precision=0.05) == 99


def test_a_growing_queue_fails_long_before_most_requests_were_slow() -> None:
    rows = [answered(i, ttft_ms=20 if i < 960 else 900) for i in range(1050)]
    slow = [answered(i, ttft_ms=900) for i in range(960, 1000)]  # a latest quarter, by itself undecided
    growing, steady = (Backlog(arrivals=900, before=40, growth=growth) for growth in (300, 5))

    def judged(backlog: Backlog, requests: list[Request], objective: float = 0.95) -> Outcome:
        slo = Slo(name="ttft", metric="ttft_ms", objective=objective, bound=500)
        options = {"variance": 1.0, "arrived_min": 60, "precision": 0.05}
        return judge_step([slo], requests, backlog, **options)

    late = [*rows[:30], *slow[:12]]
    assert judged(steady, late, 0.7) is Outcome.INCONCLUSIVE
    assert judged(growing, late, 0.7) is Outcome.FAIL
    assert judged(growing, rows[:740]) is Outcome.INCONCLUSIVE  # it grows, but nothing is late yet
    assert not Backlog(arrivals=900, before=40, growth=110).is_growing(1.0)  # chance explains that


def test_a_queue_that_drains_once_arrivals_have_ended_was_a_queue(tmp_path: Path) -> None:
    writer = create_run(tmp_path, kind="load", spec={}, seed=0)
    begin_ns = time.time_ns() - 8 * 10**9
    with writer:
        for second in range(8):
            counts = {"arrivals": 110 * second, "in_flight": 36 + 10 * second}
            writer.sample("client-0", {"t_ns": begin_ns + second * 10**9} | counts)
        writer.event("load", ARRIVALS_ENDED)
        writer.sample("client-0", {"t_ns": time.time_ns(), "arrivals": 820, "in_flight": 3})

    assert backlog_of(load_run(writer.path)).growth == 50


def test_a_step_above_capacity_does_not_pass_however_fast_its_first_requests_were() -> None:
    rows = [answered(i, ttft_ms=20) for i in range(400)]

    def judged(backlog: Backlog, arrived_min: int) -> Outcome:
        options = {"variance": 0.0, "precision": 0.05}
        return judge_step([SLO], rows, backlog, arrived_min=arrived_min, **options)

    assert judged(Backlog(arrivals=400, before=32, growth=40), 60) is Outcome.INCONCLUSIVE
    assert judged(Backlog(arrivals=400, before=32, growth=4), 1600) is Outcome.INCONCLUSIVE  # too short
    assert judged(Backlog(arrivals=400, before=32, growth=4), 60) is Outcome.PASS
    assert judged(Backlog(arrivals=0, before=0, growth=0), 60) is Outcome.INCONCLUSIVE


def test_how_even_arrivals_and_answers_are_says_what_chance_may_do() -> None:
    rows = [answered(i) for i in range(10)]

    assert variance_of(Arrivals(process="constant"), rows) < variance_of(Arrivals(), rows)
    assert variance_of(Arrivals(process="gamma", shape=0.25), rows) > variance_of(Arrivals(), rows)
    assert arrivals_needed(0.05) == 1600


def step(rate: float, outcome: Outcome, **changes: object) -> Step:
    data = {
        "requests": 100, "arrivals": 80, "growth": 0, "goodput_share": 1.0, "good_per_s": rate,
        "tokens_per_s": min(rate, 100) * 16, "served_per_s": None, "ttft_ms_p50": 20.0, "ttft_ms_p95": 30.0,
        "itl_ms_p50": 20.0, "e2e_ms_p95": 300.0, "turned_away": 0, "client": "", "is_long": True,
    }  # fmt: skip
    return Step(rate_per_s=rate, outcome=outcome, **(data | changes))  # type: ignore[arg-type]


def test_the_knee_and_what_saturated_are_named_or_said_to_be_unknown() -> None:
    fine = [step(25, Outcome.PASS), step(50, Outcome.PASS), step(98, Outcome.PASS)]
    over = step(150, Outcome.FAIL)

    def told(**changes: object) -> str:
        return find_saturated([*fine, step(150, Outcome.FAIL, **changes)], queue_seen=None).partition(":")[0]

    assert find_knee([*fine, over]) == 98
    assert find_knee(fine) is None
    assert told(turned_away=3) == "queue"
    assert told(ttft_ms_p50=900.0) == "slots"
    assert told(itl_ms_p50=80.0, ttft_ms_p50=900.0) == "tokens/s"
    assert told() == "not known"
    assert find_saturated([*fine, over], queue_seen=7).startswith("slots: up to 7")
    assert find_saturated([step(9, Outcome.INCONCLUSIVE, client="lag")], queue_seen=None) == "client: lag"


def spec(**changes: object) -> WorkloadSpec:
    data = {
        "name": "t",
        "arrivals": {"kind": "poisson", "rate_per_s": 10},
        "duration_s": 10,
        "slos": [{"metric": "ttft_ms", "statistic": "p90", "bound": 200}],
    }
    return WorkloadSpec.model_validate(data | changes)


def test_what_has_no_single_rate_or_no_promise_is_refused() -> None:
    spike = {"kind": "ramp", "from_per_s": 1, "to_per_s": 9, "ramp_s": 5}

    with pytest.raises(ConfigError, match="one rate"):
        check_search(spec(arrivals=spike))
    with pytest.raises(ConfigError, match="at least one"):
        check_search(spec(slos=[]))
    with pytest.raises(ConfigError, match="session"):
        check_search(spec(session={"turns": {"kind": "constant", "value": 2}}))


def test_each_step_has_its_share_of_the_doubt(tmp_path: Path) -> None:
    order = SearchOrder(spec=spec(), out=tmp_path, seed=1, within_s=300, precision=0.05)

    workload = step_spec(order, 25, seconds_max=60).to_workload()

    assert workload.slos[0].confidence == pytest.approx(1 - 0.05 / 12)
    assert workload.duration_s == 60


def start(folder: Path, url: str, *options: str) -> subprocess.Popen[str]:
    (folder / "known.yaml").write_text(TEXT)
    command = [sys.executable, overproof.__file__, "load", "find-max", str(folder / "known.yaml")]
    command += ["--endpoint", url, "--out", str(folder / "runs"), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_capacity_known_by_construction_is_found_roughly_in_seconds(tmp_path: Path) -> None:
    with endpoint(*ENDPOINT) as running:
        said, errors = start(
            tmp_path, running.url, "--within-s", "60", "--precision", "0.6", "--json"
        ).communicate(timeout=120)

    findings = {finding["rule"]: finding for finding in json.loads(said)["findings"]}
    evidence = findings["max-rate"]["evidence"]
    assert 0.7 * CAPACITY_PER_S <= evidence["low_per_s"] <= 1.05 * CAPACITY_PER_S, (errors, said)
    assert 0.95 * CAPACITY_PER_S <= evidence["high_per_s"] <= 1.6 * CAPACITY_PER_S
    assert evidence["saturated"].startswith("queue: ")
    run = load_run(next(path for path in (tmp_path / "runs").iterdir() if not path.is_symlink()))
    assert "<svg" in render_html(run)
    assert run.outcome is Outcome.PASS


def test_ctrl_c_leaves_a_readable_record_and_nothing_running(tmp_path: Path) -> None:
    with endpoint(*ENDPOINT) as running:
        child = start(tmp_path, running.url)
        steps = tmp_path / "runs" / "latest" / "steps"
        deadline = time.monotonic() + 30
        while not list(steps.glob("*/load.json")) and time.monotonic() < deadline:
            time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)

    assert child.returncode == 130
    found = {finding.rule: finding for finding in load_run(tmp_path / "runs" / "latest").findings}
    assert found["max-rate"].outcome is Outcome.INCONCLUSIVE
    assert "it was interrupted" in found["max-rate"].observed

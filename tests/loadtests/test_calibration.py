"""Calibration: who measures well is certified, who is held up is not, and no evidence is no pass."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gevent
import pytest

from loadtests.calibration.busiest import Busiest, busiest_by_worker
from loadtests.calibration.certified import Reading, judge_calibration, why_not_certified
from loadtests.calibration.client import Step, read_golden_streams, step_for
from loadtests.calibration.golden_record import GoldenRecord, GoldenStream
from loadtests.calibration.need import Need, need_of
from loadtests.calibration.timing_error import Heard, timing_error
from loadtests.spec.workload import WorkloadSpec, load_workload
from probes.child import wait_until
from probes.finding import Finding
from probes.outcome import Outcome
from probes.request import Request
from reports.record import RunHeader, create_run
from reports.run import load_run

MS = 1_000_000
GOOD = Reading(
    worker=0,
    offered_per_s=2000,
    events_per_s=2100,
    streams=64,
    requests=300,
    ttft_error_ms_p99=0.05,
    gap_error_ms_p99=0.02,
)
STEP = step_for(Need(events_per_s=2000, streams=64, tokens=100))


def judge(*readings: Reading, events_per_s: float = 1000, streams: int = 10, **how: bool) -> Finding:
    used = {0: Busiest(events_per_s=events_per_s, streams=streams)}
    return judge_calibration(readings, used, **how)  # type: ignore[arg-type]


def request(index: int, sent_ms: float, first_ms: float, last_ms: float, *, events: int) -> Request:
    sent, first, last = (round(at * MS) for at in (sent_ms, first_ms, last_ms))
    return Request(
        index=index, worker=0, endpoint="", t_intended_ns=sent, t_sent_ns=sent, t_first_ns=first,
        t_last_ns=last, t_end_ns=last, connect_ms=None, status=200, error=None, events=events,
    )  # fmt: skip


@pytest.fixture
def header(tmp_path: Path) -> RunHeader:
    with create_run(tmp_path / "runs", kind="load", spec={}, seed=1) as writer:
        return writer.header


@pytest.fixture
def held_up(request: pytest.FixtureRequest) -> Iterator[None]:
    """Block the hub for so many seconds, again and again, as a client does that has too much to do."""

    def block() -> None:
        while True:
            gevent.sleep(0.002)
            time.sleep(request.param)

    blocking = gevent.spawn(block)
    yield
    blocking.kill()


@pytest.mark.parametrize("is_tls", [False, True])
def test_the_client_that_a_run_uses_is_certified_on_this_machine(header: RunHeader, is_tls: bool) -> None:
    tries = []
    while len(tries) < 3 and not (tries and not why_not_certified(tries[-1], error_ms_max=1)):
        tries.append(read_golden_streams(replace(STEP, is_tls=is_tls), header=header, worker=0))

    found = tries[-1]
    assert why_not_certified(found, error_ms_max=1) == "", tries
    assert found.events_per_s > 1500
    assert found.streams == 64
    assert (found.failed, found.unmatched) == (0, 0)
    assert judge(found, is_tls=True).outcome is (Outcome.PASS if is_tls else Outcome.INCONCLUSIVE)


@pytest.mark.parametrize("held_up", [0.06], indirect=True)
def test_a_client_that_is_held_up_longer_than_a_gap_is_not_certified(
    held_up: None, header: RunHeader
) -> None:
    found = read_golden_streams(STEP, header=header, worker=0)

    assert "gaps were off by" in why_not_certified(found, error_ms_max=1)
    assert found.gap_error_ms_p99 is not None
    assert found.gap_error_ms_p99 > 10
    assert judge(found).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("held_up", [0.005], indirect=True)
def test_kernel_stamps_stay_right_while_the_client_is_late_by_5_ms(held_up: None, header: RunHeader) -> None:
    found = read_golden_streams(STEP, header=header, worker=0)

    assert found.lag_ms_p99 is not None
    assert found.lag_ms_p99 >= 4
    assert found.gap_error_ms_p50 is not None
    assert found.gap_error_ms_p50 < 1


def test_an_endpoint_killed_in_the_middle_certifies_nothing(header: RunHeader) -> None:
    def kill() -> None:
        gevent.sleep(0.6)
        for pid, line in descendants(os.getpid()):
            if "loadtests.calibration.golden" in line:
                os.kill(pid, signal.SIGKILL)

    killing = gevent.spawn(kill)
    found = read_golden_streams(STEP, header=header, worker=0)
    killing.join()

    assert "cannot be used" in why_not_certified(found, error_ms_max=1)
    assert judge(found).outcome is Outcome.INCONCLUSIVE


def test_a_run_within_what_was_certified_passes() -> None:
    found = judge(GOOD)

    assert found.outcome is Outcome.PASS
    assert found.observed.startswith("load process 0: error at p99 0.05 ms to first token, 0.02 ms in gaps")


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (judge(GOOD, events_per_s=2200), "it read 2,200 events/s, beyond the 2,100"),
        (judge(GOOD, is_tls=True), "it was not calibrated over TLS"),
        (judge(GOOD, streams=65), "it had 65 streams open, beyond the 64"),
        (judge(), "it was not calibrated"),
        (judge(replace(GOOD, worker=1)), "it was not calibrated"),
        (judge(replace(GOOD, ttft_error_ms_p99=1.2)), "time to first token was off by 1.20 ms at p99"),
        (judge(replace(GOOD, gap_error_ms_p99=1.2)), "gaps were off by 1.20 ms at p99"),
        (judge(replace(GOOD, requests=99)), "only 99 answers came"),
        (judge(replace(GOOD, failed=4)), "4 of 300 answers were not heard whole"),
        (judge(replace(GOOD, unmatched=4)), "4 of 300 answers were not heard whole"),
        (judge(replace(GOOD, clock_step_ms=-2)), "the clock jumped by -2 ms"),
        (judge(replace(GOOD, unsure_share=0.02)), "not sure itself of 2.0% of its times"),
        (judge(Reading(worker=0, offered_per_s=1, reason="it broke")), "it broke"),
        (judge_calibration([GOOD], {}), "nothing was sent"),
        (judge(is_skipped=True), "not calibrated, as asked for"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_beyond_or_missing_is_inconclusive_and_says_so(found: Finding, says: str) -> None:
    assert found.outcome is Outcome.INCONCLUSIVE
    assert says in found.observed
    assert found.next_step


def test_without_promises_about_times_a_skipped_calibration_does_not_matter() -> None:
    assert judge(is_skipped=True, needs_timing=False).outcome is None


def test_of_two_tries_the_better_one_counts_as_far_as_it_goes() -> None:
    slower = replace(GOOD, events_per_s=1200)
    too_fast = replace(GOOD, events_per_s=2100, gap_error_ms_p99=4.0)

    assert judge(too_fast, slower, events_per_s=1000).outcome is Outcome.PASS
    assert "beyond the 1,200" in judge(too_fast, slower, events_per_s=1300).observed


def test_errors_are_told_event_by_event_and_a_slow_write_is_not_the_clients() -> None:
    sends = array("q", [at * MS for at in (100, 110, 120, 130)])
    stream = GoldenStream("a", 50 * MS, 100 * MS, 10 * MS, sends, [(2, 3 * MS)])
    golden = GoldenRecord(streams=(stream,), clock_step_ns=0, blocked=0, cpu_s=0, wall_s=1)
    right = Heard(t_sent_ns=50 * MS, t_first_ns=100 * MS, gaps_us=[10_000, 12_000, 8_000])
    late = Heard(t_sent_ns=50 * MS, t_first_ns=102 * MS, gaps_us=[18_000, 0, 10_000])

    exact, wrong, cut = (
        timing_error(golden, heard)
        for heard in ({"a": right}, {"a": late}, {"a": replace(right, gaps_us=[10_000])})
    )
    assert (exact.ttft_error.most, exact.gap_error.most, exact.unmatched) == (0, 0, 0)
    assert (wrong.ttft_error.most, wrong.gap_error.most) == (2, 10)
    assert (exact.unsure_share, wrong.unsure_share) == (0.5, 0)  # 2 gaps of 4 times
    assert (cut.matched, cut.unmatched) == (0, 1)
    assert timing_error(golden, {"b": right}).unmatched == 2


def test_the_busiest_second_counts_events_where_they_came_and_streams_that_overlap() -> None:
    rows = [request(0, 0, 100, 1999, events=200), request(1, 1500, 1600, 1699, events=50)]

    (found,) = busiest_by_worker(rows).values()
    assert found.streams == 2
    assert found.events_per_s == pytest.approx(50 + 200 * 10 / 19, rel=0.01)
    assert busiest_by_worker([]) == {}


def test_what_a_workload_needs_follows_from_its_peak_and_its_answers() -> None:
    spec = {"name": "x", "duration_s": 60, "prompt": {"output_tokens": {"kind": "constant", "value": 100}}}
    constant = {"arrivals": {"kind": "constant", "rate_per_s": 50}}
    spike = {"arrivals": {"kind": "spike", "rate_per_s": 5, "spike_per_s": 80, "at_s": 9, "for_s": 9}}
    closed = {"arrivals": {"kind": "closed", "users": 300}}

    def need(more: dict[str, object], workers: int = 1) -> Need:
        workload = WorkloadSpec.model_validate(spec | more).to_workload()
        return need_of(workload, seed=1, workers=workers)

    assert need(constant) == Need(events_per_s=10_000, streams=700, tokens=100)
    assert need(constant, workers=2) == Need(events_per_s=5_000, streams=350, tokens=100)
    assert need(spike).events_per_s > 16_000
    assert need(closed).streams == 600
    assert need(constant | {"calibration": {"events_per_s": 77, "streams": 9}}).events_per_s == 77
    for path in (Path(__file__).parents[2] / "loadtests" / "workloads").glob("*.yaml"):
        assert need_of(load_workload(path).to_workload(), seed=1).events_per_s >= 2000


def test_each_step_asks_often_enough_for_a_p99() -> None:
    for rate, streams in ((500, 64), (2000, 64), (10_000, 200), (50_000, 800), (120_000, 1500)):
        step = step_for(Need(events_per_s=rate, streams=streams, tokens=100))

        assert isinstance(step, Step)
        requests = step.seconds * rate / step.tokens
        assert requests >= 150
        assert step.streams / (0.02 + step.tokens * step.gap_s) * step.tokens == pytest.approx(rate, rel=0.1)


def descendants(pid: int) -> list[tuple[int, str]]:
    """Return every process below one, with its command line."""
    parents: dict[int, list[tuple[int, str]]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        parents.setdefault(parent, []).append((int(folder.name), line))
    below, found = [pid], []
    while below:
        children = parents.get(below.pop(), [])
        found += children
        below += [child for child, _ in children]
    return found


def test_kill_9_of_the_controller_in_the_calibration_leaves_no_golden_endpoint(tmp_path: Path) -> None:
    workload = Path(__file__).parents[2] / "loadtests" / "workloads" / "demo.yaml"
    command = [sys.executable, "-P", "-m", "overproof", "load", "run", str(workload), "--path"]
    process = subprocess.Popen(
        [*command, str(tmp_path / "run")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def golden() -> list[int]:
        return [pid for pid, line in descendants(process.pid) if "loadtests.calibration.golden" in line]

    assert wait_until(lambda: bool(golden()), timeout_s=20, interval_s=0.02)
    pids = [pid for pid, _ in descendants(process.pid)]
    process.kill()
    process.wait()

    assert wait_until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids), timeout_s=10)
    assert not load_run(tmp_path / "run").events_of("load.calibrated")

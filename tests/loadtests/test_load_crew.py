"""Several load processes in one run: real Locust masters and workers, real signals, real networks."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from loadtests.spec.workload import load_workload
from loadtests.traffic.arrivals import arrival_times_s
from probes.child import wait_until
from probes.finding import Finding
from probes.outcome import Outcome
from reports.run import Run, load_run
from reports.table import read_requests, read_series
from tests.benchmarks import load_million
from tests.loadtests.crews import (
    Crew,
    end,
    free_port,
    locusts_below,
    relay,
    start_run,
    start_worker,
    write_workload,
)
from tests.loadtests.endpoints import RunningEndpoint, endpoint
from tests.loadtests.noise import OF_A_BUSY_MACHINE, undecided
from tests.loadtests.test_load_run import is_gone, listening_of

FAST = ("--decode-step-ms", "4", "--slots", "256")


@pytest.fixture(scope="module")
def fast_endpoint() -> Iterator[RunningEndpoint]:
    with endpoint(*FAST) as running:
        yield running


@pytest.fixture
def ends() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def finding(recorded: Run, rule: str) -> Finding:
    return next(found for found in recorded.findings if found.rule == rule)


def dispersion(times_s: list[float], *, duration_s: float, bins: int) -> float:
    """Return variance over mean of the counts in equal intervals: 1 for Poisson, 0 for even arrivals."""
    counts = [0] * bins
    for at_s in times_s:
        counts[min(bins - 1, int(at_s / duration_s * bins))] += 1
    mean = len(times_s) / bins
    return sum((count - mean) ** 2 for count in counts) / (bins - 1) / mean


def test_two_and_four_processes_send_the_very_schedule_of_one_and_their_sums_agree(
    tmp_path: Path, fast_endpoint: RunningEndpoint, ends: contextlib.ExitStack
) -> None:
    workload = write_workload(tmp_path, rate=60, duration=4)
    arguments = ("--endpoint", fast_endpoint.url, "--seed", "3")
    crews = {n: start_run(workload, tmp_path / f"of-{n}", "--processes", str(n), *arguments) for n in (2, 4)}
    for crew in crews.values():
        ends.callback(end, crew)
    codes = {count: crew.wait(60) for count, crew in crews.items()}
    arrivals = load_workload(workload).to_workload().arrivals
    wanted_ns = [round(at_s * 1e9) for at_s in arrival_times_s(arrivals, duration_s=4, seed=3)]

    assert set(codes.values()) <= {0, 3}, [crew.said for crew in crews.values()]
    for count, crew in crews.items():
        recorded, rows = load_run(crew.path), read_requests(crew.path)
        t0_ns = {event.data["t0_ns"] for event in recorded.events_of("load.started")}
        assert undecided(recorded) <= OF_A_BUSY_MACHINE
        assert len(t0_ns) == 1
        assert [row.t_intended_ns - min(t0_ns) for row in rows] == wanted_ns
        assert all(row.worker == row.index % count for row in rows)
        # Sent just when it was due, but for what a busy machine held up: so what was sent is Poisson too.
        assert statistics.median((row.t_sent_ns or 0) - row.t_intended_ns for row in rows) < 5e6
        sent_s = [((row.t_sent_ns or 0) - min(t0_ns)) / 1e9 for row in rows]
        # 99.9 % of Poisson samples of 16 counts lie within; even arrivals have about 0, bunches far more.
        assert 0.2 < dispersion(sent_s, duration_s=4, bins=16) < 2.7
        assert f"all {count} load processes" in finding(recorded, "workers").observed
        assert finding(recorded, "requests-accounted").outcome is Outcome.PASS
        merged = recorded.events_of("load.merged")[0].data
        assert merged["rows"] == len(rows) == merged["ttft_ms"]["count"]
        live = read_series(recorded, "load")
        assert live[-1]["rows"] == len(rows)
        assert all(later["t_ns"] > earlier["t_ns"] for earlier, later in pairwise(live))


def test_a_worker_killed_in_the_middle_is_missed_by_name_and_share_and_the_others_go_on(
    tmp_path: Path, fast_endpoint: RunningEndpoint, ends: contextlib.ExitStack
) -> None:
    workload = write_workload(tmp_path, rate=40, duration=6)
    crew = start_run(workload, tmp_path / "run", "--processes", "2", "--endpoint", fast_endpoint.url)
    ends.callback(end, crew)
    assert wait_until(lambda: crew.has_rows(0, 10) and crew.has_rows(1, 10), timeout_s=30)
    os.kill(locusts_below(crew.process.pid)["worker 1"], signal.SIGKILL)
    code = crew.wait()
    recorded, rows = load_run(crew.path), read_requests(crew.path)
    lost, by_worker = finding(recorded, "workers"), [sum(row.worker == n for row in rows) for n in (0, 1)]

    assert code == 3, crew.said
    assert recorded.state == "finished"
    assert (lost.outcome, lost.evidence["lost"]) == (Outcome.INCONCLUSIVE, [1])
    arrivals = finding(recorded, "accounting").evidence["arrivals"]
    assert f"{by_worker[1]} rows of {arrivals // 2} in its share are here" in lost.observed
    assert by_worker[0] == (arrivals + 1) // 2
    assert 10 <= by_worker[1] < arrivals // 2
    assert f"{arrivals - sum(by_worker)} missing" in finding(recorded, "accounting").observed
    assert finding(recorded, "requests-accounted").outcome is Outcome.INCONCLUSIVE
    assert recorded.events_of("load.worker_lost")[0].data["worker"] == 1


def test_a_lost_master_and_ctrl_c_end_all_processes_and_leave_a_readable_record(
    tmp_path: Path, fast_endpoint: RunningEndpoint, ends: contextlib.ExitStack
) -> None:
    port = free_port()
    workload = write_workload(tmp_path, rate=30, duration=60)
    crews: dict[str, Crew] = {}
    for name in ("master dies", "stopped"):
        joins = ("--expect-workers", "1", "--port", str(port)) if name == "master dies" else ()
        crews[name] = start_run(
            workload, tmp_path / name, "--processes", "2", *joins, "--endpoint", fast_endpoint.url
        )
        ends.callback(end, crews[name])
    elsewhere = start_worker(port, tmp_path / "elsewhere")
    ends.callback(end, elsewhere)
    for crew in crews.values():
        assert wait_until(lambda crew=crew: crew.has_rows(0) and crew.has_rows(1), timeout_s=40)
    pids = [pid for crew in (*crews.values(), elsewhere) for pid in locusts_below(crew.process.pid).values()]
    assert len(pids) == 3 + 3 + 1
    os.kill(locusts_below(crews["master dies"].process.pid)["master"], signal.SIGKILL)
    crews["stopped"].process.send_signal(signal.SIGINT)
    killed_s = time.monotonic()
    codes = {name: crew.wait() for name, crew in crews.items()}
    elsewhere_code = elsewhere.wait()

    assert time.monotonic() - killed_s < 20
    assert codes == {"master dies": 3, "stopped": 130}
    assert elsewhere_code == 3
    assert "the master has gone; what it had written is in" in elsewhere.said
    assert wait_until(lambda: all(is_gone(pid) for pid in pids), timeout_s=5)
    for crew in crews.values():
        recorded = load_run(crew.path)
        assert recorded.outcome is Outcome.INCONCLUSIVE
        assert finding(recorded, "workers").outcome is Outcome.INCONCLUSIVE
        assert {row.worker for row in read_requests(crew.path)} == {0, 1}
    kept = list((tmp_path / "elsewhere").glob("*-worker-2-*/requests/worker-2.ndjson"))
    assert kept
    assert kept[0].stat().st_size


KEY = ", api_key_env: SCALE_TEST_KEY, headers: {X-Tenant: {env: SCALE_TEST_TENANT}}"


def test_a_worker_elsewhere_brings_its_rows_and_no_key_travels_and_late_or_double_workers_are_refused(
    tmp_path: Path, fast_endpoint: RunningEndpoint, ends: contextlib.ExitStack
) -> None:
    port = free_port()
    workload = write_workload(tmp_path, rate=40, duration=60, endpoint=KEY)
    secrets = {"SCALE_TEST_KEY": "key-of-this-machine", "SCALE_TEST_TENANT": "tenant-of-this-machine"}
    allowed = ("--allow-env", "SCALE_TEST_KEY", "--allow-env", "SCALE_TEST_TENANT")
    joins = ("--expect-workers", "1", "--port", str(port))
    with relay(port) as between:
        crew = start_run(
            workload, tmp_path / "run", "--processes", "1", *joins, "--endpoint", fast_endpoint.url, **secrets
        )
        ends.callback(end, crew)
        worker = start_worker(between.port, tmp_path / "elsewhere", *allowed, **secrets)
        ends.callback(end, worker)
        assert wait_until(lambda: crew.has_rows(0), timeout_s=30), crew.path
        listening = {a for pid in locusts_below(crew.process.pid).values() for a in listening_of(pid)}
        late = start_worker(between.port, tmp_path / "late", *allowed, **secrets)
        ends.callback(end, late)
        late_code = late.wait()
        crew.process.send_signal(signal.SIGUSR1)  # nothing new is sent, by nobody
        codes = [crew.wait(), worker.wait(), late_code]
        carried = bytes(between.carried)
    recorded, rows = load_run(crew.path), read_requests(crew.path)

    assert codes[0] in (0, 3), crew.said
    assert codes[1:] == [0, 3], (worker.said, late.said)
    assert undecided(recorded) <= OF_A_BUSY_MACHINE
    assert "the master refuses this worker: the load has begun" in late.said
    assert recorded.events_of("load.worker_refused")
    assert {row.worker for row in rows} == {0, 1}
    assert len(rows) < 60 * 40
    assert finding(recorded, "requests-accounted").outcome is Outcome.PASS
    assert read_series(recorded, "client-1")
    assert not list((tmp_path / "elsewhere").iterdir())  # all is in the record
    assert b"overproof.part" in carried
    assert b"SCALE_TEST_KEY" in carried  # its name, so that the worker can look
    assert not any(secret.encode() in carried for secret in secrets.values())
    assert listening == {f"0100007F:{port:04X}"}


def test_a_worker_keeps_secrets_that_its_user_did_not_name_and_the_run_says_why(
    tmp_path: Path, fast_endpoint: RunningEndpoint, ends: contextlib.ExitStack
) -> None:
    port = free_port()
    secrets = {"SCALE_TEST_KEY": "a", "SCALE_TEST_TENANT": "b"}
    workload = write_workload(tmp_path, rate=40, duration=5, endpoint=KEY)
    joins = ("--processes", "0", "--expect-workers", "1", "--port", str(port))
    crew = start_run(workload, tmp_path / "run", *joins, "--endpoint", fast_endpoint.url, **secrets)
    ends.callback(end, crew)
    worker = start_worker(port, tmp_path / "elsewhere", "--allow-env", "SCALE_TEST_KEY", **secrets)
    ends.callback(end, worker)
    codes = [crew.wait(), worker.wait()]

    assert codes == [2, 2], (crew.said, worker.said)
    said = "the workload wants SCALE_TEST_TENANT; start this worker with --allow-env SCALE_TEST_TENANT"
    assert said in crew.said
    assert said in worker.said
    assert "worker 0 on " in crew.said


@pytest.fixture
def two_networks() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a wire between them: 10.231.9.1 and 10.231.9.2."""
    names = (f"opload{os.getpid()}a", f"opload{os.getpid()}b")

    def ip(*words: str) -> bool:
        return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0

    try:
        is_made = all(ip("netns", "add", name) for name in names) and ip(
            "-n", names[0], "link", "add", "opl0", "type", "veth", "peer", "name", "opl1", "netns", names[1]
        )
        if not is_made:
            pytest.skip("this machine does not let us make network namespaces")
        for name, link, address in zip(names, ("opl0", "opl1"), ("10.231.9.1", "10.231.9.2"), strict=True):
            assert ip("-n", name, "address", "add", f"{address}/24", "dev", link)
            assert ip("-n", name, "link", "set", link, "up")
            assert ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


@pytest.mark.needs("root")
def test_workers_of_another_network_load_the_endpoint_and_their_clock_and_rows_come_to_the_master(
    tmp_path: Path, two_networks: tuple[str, str], ends: contextlib.ExitStack
) -> None:
    here, there = (("ip", "netns", "exec", name) for name in two_networks)
    serve = [
        *here,
        sys.executable,
        "-P",
        "-m",
        "loadtests.endpoint",
        "--host",
        "10.231.9.1",
        "--port",
        "8099",
    ]
    server = subprocess.Popen([*serve, *FAST], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    ends.callback(lambda: (server.kill(), server.communicate()))
    workload = write_workload(tmp_path, rate=40, duration=4)
    crew = start_run(
        workload,
        tmp_path / "run",
        *("--endpoint", "http://10.231.9.1:8099", "--processes", "0", "--expect-workers", "2"),
        *("--listen", "10.231.9.1", "--port", "5599"),
        prefix=here,
    )
    ends.callback(end, crew)
    arguments = ("--master", "10.231.9.1", "--processes", "2")
    workers = start_worker(5599, tmp_path / "elsewhere", *arguments, prefix=there)
    ends.callback(end, workers)
    codes = [crew.wait(), workers.wait()]
    recorded, rows = load_run(crew.path), read_requests(crew.path)

    assert codes[0] in (0, 3), crew.said
    assert codes[1] == 0, workers.said
    assert undecided(recorded) <= OF_A_BUSY_MACHINE
    assert [row.index for row in rows] == list(range(len(rows)))
    assert {row.worker for row in rows} == {0, 1}
    assert finding(recorded, "requests-accounted").outcome is Outcome.PASS
    clocks = [event.data for event in recorded.events_of("load.worker_clock")]
    assert len(clocks) == 2
    assert all(abs(clock["ahead_ms"]) < 50 and 0 < clock["unsure_ms"] < 50 for clock in clocks)


def test_thousands_of_requests_leave_the_load_processes_as_small_as_hundreds_and_every_sum_agrees() -> None:
    found = load_million.measure(6000, processes=2, rate_per_s=1500)

    assert found.rows == found.sums == found.requests == 6000
    assert found.tokens == 4 * 6000
    assert found.accounted == "pass"
    early, late = found.rss_mib[0.1], found.rss_mib[0.95]
    assert len(early.keys() - {"controller"}) == 3  # a master and two workers
    grown = [late[name] - early[name] for name in (early.keys() & late.keys()) - {"controller"}]
    assert len(grown) == 3
    assert max(grown) < 4

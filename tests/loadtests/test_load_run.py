"""Load runs end to end: the command as its user types it, real processes, real sockets, real signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from probes.child import wait_until
from probes.event import Event
from probes.finding import Finding
from probes.outcome import Outcome
from probes.request import Request
from reports.run import Run, load_run, read_ndjson
from reports.table import read_requests, read_series
from tests.loadtests.endpoints import RunningEndpoint, endpoint
from tests.loadtests.noise import TRIES, is_left_open_by_noise, undecided

COMMAND = [sys.executable, "-P", "-m", "overproof", "load", "run"]
WORKLOAD = """
name: test
arrivals: {{kind: constant, rate_per_s: {rate}}}
duration_s: {duration}
prompt:
  input_tokens: {{kind: constant, value: 16}}
  output_tokens: {{kind: constant, value: 8}}
endpoint: {{timeout_s: {timeout}}}
in_flight_max: {in_flight}
slos:
  - {{metric: ttft_ms, statistic: p90, bound: 1000}}
  - {{metric: goodput, objective: 0.9}}
"""
FAST = ("--decode-step-ms", "4", "--slots", "64")


@dataclass(frozen=True)
class Started:
    """A load run that is going on."""

    process: subprocess.Popen[str]
    path: Path

    def events(self) -> list[Event]:
        return load_run(self.path).events if (self.path / "run.json").exists() else []

    def has(self, kind: str) -> bool:
        return any(event.kind == kind for event in self.events())

    def has_rows(self, replica: str | None = None) -> bool:
        rows = read_ndjson(self.path / "requests" / "worker-0.ndjson")
        return any(replica in (None, row["replica"]) for row in rows)

    def locust_pid(self) -> int:
        """Return the load process: the child whose command line names the locustfile."""
        return next(pid for pid, line in children_of(self.process.pid) if "locustfile.py" in line)

    def wait(self) -> int:
        code = self.process.wait(timeout=40)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        return code


def write_workload(
    folder: Path, *, rate: float = 40, duration: float = 2, timeout: float = 5, in_flight: int = 100
) -> Path:
    path = folder / "workload.yaml"
    path.write_text(WORKLOAD.format(rate=rate, duration=duration, timeout=timeout, in_flight=in_flight))
    return path


def start(workload: Path, path: Path, *arguments: str, cwd: Path | None = None) -> Started:
    command = [*COMMAND, str(workload), "--path", str(path), *arguments]
    process = subprocess.Popen(
        command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return Started(process, path)


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


def children_of(parent: int) -> list[tuple[int, str]]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ppid = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if ppid == parent:
            found.append((int(folder.name), line))
    return found


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def finding(recorded: Run, rule: str, subject: str = "") -> Finding:
    return next(f for f in recorded.findings if f.rule == rule and subject in f.subject)


@pytest.fixture(scope="module")
def fast_endpoint() -> Iterator[RunningEndpoint]:
    with endpoint(*FAST, "--name", "replica-0") as running:
        yield running


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, fast_endpoint: RunningEndpoint) -> tuple[Run, str]:
    """One good run, from a folder full of someone else's modules; its record and what it printed."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "reports").mkdir()
    (folder / "loadtests").mkdir()
    for name in ("reports/__init__.py", "loadtests/__init__.py", "probes.py", "statistics.py", "gevent.py"):
        (folder / name).write_text("raise RuntimeError('someone else’s file was imported')\n")
    workload = write_workload(folder)
    for _ in range(TRIES):
        done = run(str(workload), "--endpoint", fast_endpoint.url, "--seed", "7", "--json", cwd=folder)
        recorded = load_run(folder / "runs" / "latest")
        if not is_left_open_by_noise(recorded):
            break
    assert done.returncode == 0, done.stdout + done.stderr
    return recorded, done.stdout


def test_a_good_run_passes_with_one_json_document_on_stdout(good: tuple[Run, str]) -> None:
    recorded, stdout = good
    document = json.loads(stdout)

    assert (document["outcome"], document["state"], document["seed"]) == ("pass", "finished", 7)
    assert Path(document["run"]) == recorded.path
    assert finding(recorded, "slo", "ttft").evidence["total"] == 80
    assert finding(recorded, "slo", "goodput").evidence["samples_needed"] == 29


def test_every_arrival_has_one_row_with_who_answered_and_when(good: tuple[Run, str]) -> None:
    rows = read_requests(good[0].path)

    assert [row.index for row in rows] == list(range(80))
    assert {(row.error, row.status, row.replica, row.tokens_out) for row in rows} == {
        (None, 200, "replica-0", 8)
    }
    starts = [row.t_intended_ns - rows[0].t_intended_ns for row in rows]
    assert starts == [index * 25_000_000 for index in range(80)]


def test_the_verdict_names_the_faults_that_the_reader_was_proven_to_find(good: tuple[Run, str]) -> None:
    control = finding(good[0], "stream-integrity-control")

    assert control.outcome is Outcome.PASS
    assert control.observed == (
        "found over a real socket: good, cut, truncated, reset, doubled, garbled, html, error"
    )


def test_the_clients_own_figures_are_on_record_each_second(good: tuple[Run, str]) -> None:
    figures = read_series(good[0], "client-0")

    assert len(figures) >= 2
    assert figures[-1]["ended"] == figures[-1]["arrivals"] == 80
    assert all(0 <= row["lag_ms_max"] < 1000 for row in figures)


@pytest.mark.parametrize("stream", ["true", "false"])
def test_the_completions_api_is_loaded_like_the_chat(
    tmp_path: Path, fast_endpoint: RunningEndpoint, stream: str
) -> None:
    workload, path = write_workload(tmp_path, rate=20, duration=1), tmp_path / "run"
    how = f"endpoint: {{api: completions, stream: {stream}, timeout_s: 20}}\nname: completions"
    text = workload.read_text().replace("endpoint: {timeout_s: 5}", "").replace("name: test", how)
    workload.write_text(text.partition("slos:")[0])
    done = run(str(workload), "--path", str(path), "--endpoint", fast_endpoint.url, "--no-calibration")
    recorded = load_run(path)

    assert [row.error for row in read_requests(path)] == [None] * 20, done.stderr
    assert {row.tokens_out for row in read_requests(path)} == {8}
    assert finding(recorded, "prompt-size").outcome is Outcome.PASS
    assert "/v1/completions" in (path / "locust.log").read_text()


def test_judging_again_from_the_folder_gives_the_same_verdict(good: tuple[Run, str]) -> None:
    command = [sys.executable, "-P", "-m", "overproof", "judge", str(good[0].path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert load_run(good[0].path).findings == good[0].findings


def test_the_judgement_of_a_run_that_lost_a_row_or_its_controls_is_inconclusive(
    good: tuple[Run, str], tmp_path: Path
) -> None:
    from loadtests.judging import judge_run

    copy = tmp_path / "copy"
    (copy / "requests").mkdir(parents=True)
    for name in ("run.json", "events.ndjson"):
        (copy / name).write_text((good[0].path / name).read_text())
    controls = (
        (copy / "events.ndjson").read_text().replace('"found":"no_done","is_proven":true', '"found":null')
    )
    (copy / "events.ndjson").write_text(controls)
    rows = read_requests(good[0].path)[1:]
    names = Request.__dataclass_fields__
    lines = [json.dumps({name: getattr(row, name) for name in names}) for row in rows]
    (copy / "requests" / "worker-0.ndjson").write_text("\n".join(lines) + "\n")

    found = {item.rule: item for item in judge_run(load_run(copy)) if item.outcome is Outcome.INCONCLUSIVE}

    assert set(found) == {"accounting", "requests-accounted", "stream-integrity-control"}
    assert "rows 80 by itself, 79 in its rows" in found["requests-accounted"].observed
    assert "1 missing" in found["accounting"].observed
    assert found["stream-integrity-control"].observed == "not found: cut"


def test_the_traffic_of_a_game_day_is_judged_by_the_game_day_alone(
    good: tuple[Run, str], tmp_path: Path
) -> None:
    """The same broken promise: FAIL of a load test, and no verdict of the traffic of a game day."""
    from loadtests.judging import judge_run
    from reports.sheet import build_sheet

    copy = tmp_path / "copy"
    shutil.copytree(good[0].path, copy)
    header = json.loads((copy / "run.json").read_text())
    header["spec"]["slos"] = [{"metric": "ttft_ms", "statistic": "p80", "bound": 0.001}]
    (copy / "run.json").write_text(json.dumps(header))
    alone = judge_run(load_run(copy))
    event = {"t_ns": header["started_ns"], "host": "h", "source": "load", "kind": "load.in_gameday"}
    with (copy / "events.ndjson").open("a") as events:
        events.write(json.dumps(event | {"data": {}}) + "\n")
    of_gameday = judge_run(load_run(copy))

    assert [f.outcome for f in alone if f.rule == "slo"] == [Outcome.FAIL]
    assert [f.outcome for f in of_gameday if f.rule == "slo"] == [None]
    assert [f.outcome for f in of_gameday if f.rule == "errors"] == [None]
    assert [f for f in of_gameday if f.subject.startswith("client:")] == [
        f for f in alone if f.subject.startswith("client:")
    ]
    assert "judged there" in build_sheet(load_run(copy)).title


PLAIN_LOCUSTFILE = """
from locust import FastHttpUser, task
class Plain(FastHttpUser):
    @task
    def chat(self):
        body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "stream": True}
        for _ in self.client.iter_lines("/v1/chat/completions", method="POST", json=body):
            pass
"""


def test_a_stream_cut_without_done_fails_here_and_is_a_success_for_locust_alone(tmp_path: Path) -> None:
    locustfile = tmp_path / "plain.py"
    locustfile.write_text(PLAIN_LOCUSTFILE)
    plain = [sys.executable, "-P", "-m", "locust", "-f", str(locustfile), "--headless", "-u", "2", "-r", "2"]
    with endpoint(*FAST, "--fault", "cut:0.5") as running:
        beside = subprocess.Popen(
            [*plain, "-t", "4s", "--host", running.url, "--json-file", str(tmp_path / "plain")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        done = run(str(write_workload(tmp_path)), "--endpoint", running.url, "--out", str(tmp_path / "runs"))
        beside.wait(timeout=30)
    stats = json.loads((tmp_path / "plain.json").read_text())
    recorded = load_run(tmp_path / "runs" / "latest")
    rows = read_requests(recorded.path)

    assert done.returncode == 1, done.stdout + done.stderr
    cut = [row for row in rows if row.error == "no_done"]
    assert 20 <= len(cut) <= 60
    assert len(cut) + sum(row.error is None for row in rows) == 80
    errors = finding(recorded, "errors").evidence["errors"][0]
    assert (errors["kind"], errors["count"]) == ("no_done", len(cut))
    assert "no [DONE]" in errors["example"]
    assert sum(entry["num_requests"] for entry in stats) > 5
    assert sum(entry["num_failures"] for entry in stats) == 0
    table = next(
        line for line in (recorded.path / "locust.log").read_text().splitlines() if "Aggregated" in line
    )
    assert f" {len(cut)}(" in table  # Locust's own table, fed by us, has every one of them


def test_an_endpoint_that_hangs_costs_dropped_arrivals_and_timeouts_and_nothing_waits_in_silence(
    tmp_path: Path,
) -> None:
    workload = write_workload(tmp_path, rate=20, duration=1.5, timeout=1, in_flight=5)
    with endpoint(*FAST, "--fault", "hang") as running:
        done = run(str(workload), "--endpoint", running.url, "--out", str(tmp_path / "runs"))
    rows = read_requests(tmp_path / "runs" / "latest")

    assert done.returncode == 1, done.stdout + done.stderr
    kinds = [row.error for row in rows]
    assert len(kinds) == 30
    assert kinds[:5] == ["timeout"] * 5
    assert kinds[5:15] == ["dropped"] * 10
    assert set(kinds) == {"timeout", "dropped"}


def test_rows_are_on_disk_while_the_load_runs_and_nothing_listens_beyond_loopback(
    tmp_path: Path, fast_endpoint: RunningEndpoint
) -> None:
    started = start(write_workload(tmp_path, duration=30), tmp_path / "run", "--endpoint", fast_endpoint.url)
    assert wait_until(started.has_rows, timeout_s=20)
    listening = {address for pid, _ in children_of(started.process.pid) for address in listening_of(pid)}
    before = list(read_ndjson(started.path / "requests" / "worker-0.ndjson"))
    time.sleep(1.2)
    after = list(read_ndjson(started.path / "requests" / "worker-0.ndjson"))
    asked_at = time.monotonic()
    started.process.send_signal(signal.SIGUSR1)
    code = started.wait()
    took_s = time.monotonic() - asked_at
    recorded = load_run(started.path)

    assert listening == set()
    assert len(after) - len(before) >= 20
    assert set(after[-1]) == set(Request.__dataclass_fields__)
    # SIGUSR1: no new arrivals, what was under way is drained, and the run is whole.
    assert took_s < 8
    assert recorded.state == "finished"
    assert finding(recorded, "accounting").outcome is Outcome.PASS
    assert len(read_requests(recorded.path)) < 30 * 40
    assert recorded.outcome is not Outcome.FAIL
    assert code == (3 if undecided(recorded) else 0)  # two seconds of a busy machine decide little
    assert not (tmp_path / "latest").is_symlink()


def listening_of(pid: int) -> set[str]:
    """Return the addresses on which a process listens, as /proc has them."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            inodes.add(str(link.readlink()))
        except OSError:
            continue
    text = "".join(Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6"))
    rows = [line.split() for line in text.splitlines()]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


def test_a_stop_signal_in_any_phase_leaves_130_a_readable_record_and_no_process(tmp_path: Path) -> None:
    phases: dict[str, Callable[[Started], bool]] = {
        "starting": lambda s: (s.path / "run.json").exists(),
        "proving": lambda s: (s.path / "locust.log").exists(),
        "draining": lambda s: s.has("load.arrivals_ended"),
        "loading": lambda s: s.has_rows(),
    }
    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGTERM]
    with endpoint("--slots", "500", "--decode-step-ms", "300") as running:
        runs = {}
        for phase in phases:
            (tmp_path / phase).mkdir()
            workload = write_workload(
                tmp_path / phase, duration=0.8 if phase == "draining" else 20, timeout=30
            )
            runs[phase] = start(workload, tmp_path / phase / "run", "--endpoint", running.url)
        for (phase, is_there), number in zip(phases.items(), signals, strict=True):
            assert wait_until(lambda s=runs[phase], f=is_there: f(s), timeout_s=20, interval_s=0.01), phase
            runs[phase].process.send_signal(number)
        codes = {phase: started.wait() for phase, started in runs.items()}

    assert codes == dict.fromkeys(phases, 130)
    for phase, started in runs.items():
        recorded = load_run(started.path)
        assert recorded.state == "interrupted", phase
        assert recorded.findings, phase
        assert recorded.outcome is not Outcome.PASS
        assert (started.path / "report.html").exists()
        ended = recorded.events_of("load.process_ended")
        assert all(is_gone(event.data["pid"]) for event in ended)
    drained = {row.error for row in read_requests(runs["draining"].path)}
    assert "abandoned" in drained


def test_after_kill_9_of_the_controller_load_and_endpoint_leave_and_the_record_is_readable(
    tmp_path: Path,
) -> None:
    started = start(write_workload(tmp_path, rate=10, duration=60), tmp_path / "run")
    assert wait_until(started.has_rows, timeout_s=20)
    pids = [pid for pid, _ in children_of(started.process.pid)]
    started.process.kill()
    started.wait()

    assert len(pids) == 2  # Locust and the built-in endpoint
    assert wait_until(lambda: all(is_gone(pid) for pid in pids), timeout_s=8)
    command = [sys.executable, "-P", "-m", "overproof", "report", str(started.path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    document = json.loads(done.stdout)
    assert (done.returncode, document["state"], document["outcome"]) == (3, "interrupted", "inconclusive")
    assert read_requests(started.path)


def test_a_load_process_that_dies_is_inconclusive_and_a_lost_parent_stops_the_run(
    tmp_path: Path, fast_endpoint: RunningEndpoint
) -> None:
    for name in ("dies", "orphan"):
        (tmp_path / name).mkdir()
    arguments = ("--endpoint", fast_endpoint.url)
    dies = start(write_workload(tmp_path / "dies", duration=60), tmp_path / "dies" / "run", *arguments)
    orphan = start(
        write_workload(tmp_path / "orphan", duration=60),
        tmp_path / "orphan" / "run",
        *arguments,
        "--lifeline",
    )
    assert wait_until(lambda: dies.has_rows() and orphan.has_rows(), timeout_s=20)
    os.kill(dies.locust_pid(), signal.SIGKILL)
    assert orphan.process.stdin is not None
    orphan.process.stdin.close()

    assert (dies.wait(), orphan.wait()) == (3, 130)
    lost = finding(load_run(dies.path), "accounting")
    assert lost.outcome is Outcome.INCONCLUSIVE
    assert "the load process ended early" in lost.observed


def test_an_endpoint_that_refuses_or_is_none_is_exit_3_with_one_clear_line(tmp_path: Path) -> None:
    workload = write_workload(tmp_path)
    with endpoint("--fault", "html") as running:
        html = run(str(workload), "--endpoint", running.url, "--out", str(tmp_path / "runs"), "--json")
    refused = run(str(workload), "--endpoint", running.url, "--out", str(tmp_path / "runs"), "--json")

    assert (html.returncode, refused.returncode) == (3, 3)
    assert "wanted a completion in JSON, got text/html: '<!doctype html>" in html.stderr
    assert f"{running.url}: cannot be reached: Connection refused; is it running?; record:" in refused.stderr
    assert html.stderr.count("\n") == refused.stderr.count("\n") == 1
    assert load_run(tmp_path / "runs" / "latest").outcome is Outcome.INCONCLUSIVE


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=420k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.needs("root")
def test_a_disk_that_fills_stops_the_run_with_exit_3_and_keeps_what_is_there(
    tmp_path: Path, small_disk: Path, fast_endpoint: RunningEndpoint
) -> None:
    workload = write_workload(tmp_path, rate=100, duration=60)
    done = run(str(workload), "--endpoint", fast_endpoint.url, "--path", str(small_disk / "run"))
    recorded = load_run(small_disk / "run")

    assert done.returncode == 3, done.stderr
    assert "No space left on device; the run stops here" in done.stderr
    assert recorded.outcome is Outcome.INCONCLUSIVE
    assert len(read_requests(recorded.path)) > 50

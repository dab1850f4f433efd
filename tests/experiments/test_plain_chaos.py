"""Experiments under the real ``chaos`` program, with load, record, probes and verdict by a few lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from experiments.injecting.ledger import UNDONE, read_ledger
from experiments.injecting.permission import allow
from experiments.recovery_probe import traffic_recovers
from probes.child import process_state, wait_until
from probes.errors import ConfigError, TargetError
from probes.json_types import JsonObject
from probes.live_load import find_load
from probes.outcome import Outcome
from probes.slo import slo_holds
from probes.slo_probes import error_budget_holds, goodput_share, slo_findings
from reports.run import Run, load_run
from tests.experiments.test_foreign_actions import endpoint
from tests.processes import Job, start_job, wait_for

pytestmark = pytest.mark.timeout(900)  # days of half a minute, on a machine that others keep busy

PLAIN = Path(__file__).parents[2] / "experiments/catalogue/plain"
CHAOS = [sys.executable, "-P", "-W", "ignore", "-m", "chaostoolkit", "--no-version-check", "run"]
GOOD: JsonObject = {"metric": "ttft_ms", "statistic": "p80", "bound": 1000}
TARGET = "local-server"


def chaos(folder: Path, document: JsonObject, url: str, pid: int) -> subprocess.Popen[str]:
    """Start ``chaos run`` on an experiment."""
    (folder / "experiment.yaml").write_text(yaml.safe_dump(document))
    with (folder / "chaos.log").open("w") as log:
        return subprocess.Popen(
            [*CHAOS, "experiment.yaml"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"ENDPOINT": url, "SERVER_PID": str(pid)},
            text=True,
        )


def status_of(process: subprocess.Popen[str], folder: Path) -> int:
    """Return the exit status; what it said is the message when it does not come to its end."""
    try:
        return process.wait(timeout=110)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(f"`chaos run` has no end; it said:\n{said(folder)}") from None


def shipped(folder: Path, *, allowed: bool = True) -> JsonObject:
    """The example of the catalogue, with its target marked."""
    document = yaml.safe_load((PLAIN / "stop-and-go.yaml").read_text())
    assert isinstance(document, dict)
    document["controls"][0]["provider"]["arguments"]["folder"] = str(PLAIN)
    if allowed:
        place = folder / "runs/targets" / TARGET
        place.mkdir(parents=True)
        allow(place)
    return document


def said(folder: Path) -> str:
    return (folder / "chaos.log").read_text(errors="replace")


def journal_of(folder: Path) -> JsonObject:
    journal = json.loads((folder / "journal.json").read_text())
    assert isinstance(journal, dict)
    return journal


def run_of(folder: Path) -> Run:
    (path,) = (folder / "runs").glob("*-gameday-*/run.json")
    return load_run(path.parent)


def test_the_shipped_example_passes_and_says_so_in_exit_code_journal_and_record(tmp_path: Path) -> None:
    for attempt in range(3):  # on a busy machine the client, or the server, is rightly found too slow
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with endpoint() as (url, pid):
            document = shipped(folder)
            document["extensions"][0] |= {"steady_s": 3, "after_s": 3}
            status = status_of(chaos(folder, document, url, pid), folder)
        run = run_of(folder)
        if run.outcome is Outcome.PASS:
            break
    again = start_job(["judge", str(run.path)], folder)

    assert (status, run.outcome, run.state) == (0, Outcome.PASS, "finished"), said(folder)
    assert said(folder).splitlines()[-1].endswith(run.path.name)
    assert journal_of(folder)["overproof"]["outcome"] == "pass"
    assert len(run.events_of("chaos.activity.completed")) == 6
    assert [entry.state for entry in read_ledger(run.path)] == [UNDONE]
    assert again.wait(timeout_s=60) == 0


def test_chaos_toolkit_exits_1_where_only_our_verdict_is_bad(tmp_path: Path) -> None:
    """The same, but that nothing says how the fault is seen: Chaos Toolkit alone is content."""
    document = shipped(tmp_path)
    del document["steady-state-hypothesis"]  # on a busy machine it would stop at the gate
    document["method"] = document["method"][:2]
    document["extensions"][0] |= {"steady_s": 2, "recovery_s": 3, "after_s": 2}
    del document["extensions"][0]["faults"][0]["verify"]
    with endpoint() as (url, pid):
        status = status_of(chaos(tmp_path, document, url, pid), tmp_path)
    run = run_of(tmp_path)
    ours = json.loads((run.path / "journal.json").read_text())

    assert (ours["status"], ours["deviated"]) == ("completed", False)
    assert (status, run.outcome) == (1, Outcome.INCONCLUSIVE), said(tmp_path)
    assert journal_of(tmp_path)["status"] == "failed"
    assert {f.rule for f in run.findings if f.outcome is Outcome.INCONCLUSIVE} >= {"fault", "undo"}


def test_a_control_that_cannot_do_its_work_lets_nothing_be_carried_out(tmp_path: Path) -> None:
    document = shipped(tmp_path, allowed=False)
    with endpoint() as (url, pid):
        status = status_of(chaos(tmp_path, document, url, pid), tmp_path)
        state = process_state(pid)

    assert status == 1
    assert "target allowed: no .gameday-allowed" in said(tmp_path)
    assert journal_of(tmp_path)["run"] == []
    assert state != "T"


def test_kill_9_of_chaos_toolkit_leaves_no_load_and_the_fault_is_undone(tmp_path: Path) -> None:
    document = shipped(tmp_path)
    document["method"][0]["pauses"] = {"after": 60}
    document["extensions"][0]["steady_s"] = 2
    del document["steady-state-hypothesis"]
    with endpoint() as (url, pid):
        process = chaos(tmp_path, document, url, pid)
        has_hit = wait_until(lambda: process_state(pid) == "T", timeout_s=60)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=5)
        is_mended = wait_until(lambda: process_state(pid) != "T", timeout_s=30)
        run = run_of(tmp_path)
        is_undone = wait_until(lambda: [e.state for e in read_ledger(run.path)] == [UNDONE], timeout_s=30)
        load = json.loads((run.path / "load/run.json").read_text())["pid"]
        is_gone = wait_until(lambda: not process_state(load), timeout_s=20)

    assert (has_hit, is_mended, is_undone, is_gone) == (True, True, True, True), said(tmp_path)
    assert run.state == "interrupted"


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Job, int]]:
    """A load test that runs under runs/, as a user starts it, and the pid of what it loads."""
    monkeypatch.chdir(tmp_path)
    workload = yaml.safe_load((PLAIN / "chat-with-promises.yaml").read_text())
    workload["duration_s"] = 600  # longer than what is asked of it takes: it is ended before
    (tmp_path / "workload.yaml").write_text(yaml.safe_dump(workload))
    with endpoint() as (url, pid):
        job = start_job(["load", "run", "workload.yaml", "--endpoint", url, "--no-calibration"], tmp_path)
        wait_for(lambda: bool(list(tmp_path.glob("runs/*/requests/*"))), job, timeout_s=60, what="requests")
        yield job, pid
        job.signal(signal.SIGKILL)
        job.wait(timeout_s=10)
        assert wait_until(lambda: not job.descendants(), timeout_s=10)


def in_the_end(ask: Callable[[], object]) -> object:
    """Return a probe's first answer: seconds in which others delay all requests alike decide nothing."""
    deadline = time.monotonic() + 90
    while True:
        try:
            return ask()
        except TargetError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def test_probes_answer_yes_no_and_nobody_can_say(load: tuple[Job, int], tmp_path: Path) -> None:
    job, pid = load
    impossible: JsonObject = {"metric": "ttft_ms", "statistic": "p80", "bound": 0.001}

    with pytest.raises(TargetError, match="has not run for the 500 s"):
        slo_holds(window_s=500)
    assert in_the_end(lambda: slo_holds(window_s=4, wait_s=60)) is True
    assert in_the_end(lambda: slo_holds([impossible], window_s=4)) is False
    with pytest.raises(TargetError, match="at least 299 are needed to pass"):
        slo_holds([GOOD | {"statistic": "p99"}], window_s=4)
    with pytest.raises(ConfigError, match="slos: statistik: Extra"):
        slo_holds([GOOD | {"statistik": "p99"}], window_s=4)
    assert wait_until(lambda: slo_findings(window_s=4)["outcome"] == "pass", timeout_s=90)
    assert in_the_end(lambda: goodput_share(window_s=4)) == 1
    with pytest.raises(TargetError, match="at least 1000 are wanted"):
        goodput_share(window_s=4, requests_min=1000)
    assert in_the_end(lambda: error_budget_holds(0.9, window_s=4)) is True
    assert in_the_end(lambda: error_budget_holds(0.9, slos=[impossible], window_s=4)) is False
    assert traffic_recovers(within_s=60) is True

    os.kill(pid, signal.SIGSTOP)  # all rows that come are good ones: nothing answers any more
    assert wait_until(lambda: find_load("", "runs").read(window_s=3, settle_s=1).under_way > 5, timeout_s=30)
    with pytest.raises(TargetError, match="requests are still under way"):
        slo_holds(window_s=3, settle_s=1)
    with pytest.raises(TargetError, match="what is under way decides"):
        error_budget_holds(0.9, window_s=3, settle_s=1, requests_min=1)
    assert traffic_recovers(within_s=0.5, settle_s=1) is False
    os.kill(pid, signal.SIGCONT)

    (run,) = tmp_path.glob("runs/*-load-*/")
    job.signal(signal.SIGKILL)
    job.wait(timeout_s=10)
    with pytest.raises(TargetError, match=r"sends no more requests|its process is gone"):
        slo_holds(window_s=4, run=str(run))
    with pytest.raises(TargetError, match="no load test runs under"):
        slo_holds(window_s=4)


def test_the_names_of_the_record_are_those_of_the_record() -> None:
    from loadtests import plan
    from probes import live_load
    from reports import record, run

    text = Path(live_load.__file__).read_text()

    assert all(f'"{n}/*.ndjson"' in text for n in (record.REQUESTS_FOLDER,))
    assert f'"{record.SERIES_FOLDER}/client-*.ndjson"' in text
    assert {record.RUN_FILE, record.EVENTS_FILE} == {"run.json", "events.ndjson"}
    assert set(live_load._ENDED) == {
        plan.ARRIVALS_ENDED, plan.ENDED, run.FINISHED, run.INTERRUPTED, run.STOPPED, run.CRASHED,
    }  # fmt: skip

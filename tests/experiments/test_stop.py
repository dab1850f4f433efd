"""The stop button, where there is nobody to hear it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.faults.replica import KILL
from experiments.injecting.injection import undo_pending
from experiments.injecting.ledger import ARMED, UNDONE, Ledger, read_ledger
from experiments.processes.stop import STOP_FILE, running_gamedays, stop_gameday, watch_for_stop
from probes.child import process_start_time, wait_until
from probes.errors import ConfigError, TargetError
from probes.event import event_to_line, now, to_json_line
from reports.record import RUN_FILE, UNDO_FILE, create_run, write_atomically
from reports.run import INTERRUPTED

GONE = {"lab": "/nowhere", "supervisor": {"pid": 1, "start_time": 1}, "victims": [], "others": []}


def run_of(out: Path, *, kind: str = "gameday", **changed: object) -> Path:
    """A run whose controller is as stated."""
    writer = create_run(out, kind=kind, spec={}, seed=1)
    writer.close()
    header = replace(writer.header, **changed)  # type: ignore[arg-type]
    row = {name: getattr(header, name) for name in header.__slots__}
    write_atomically(writer.path / RUN_FILE, to_json_line(row))
    return writer.path


def test_where_the_controller_is_dead_stop_undoes(tmp_path: Path) -> None:
    folder = run_of(tmp_path, pid_start_time=1)
    with Ledger(folder) as ledger:
        ledger.arm(KILL.name, "replica:a", GONE)

    found = running_gamedays(tmp_path)
    stopped = stop_gameday(folder)

    assert found == [folder]
    assert (stopped.how, stopped.is_restored, len(stopped.undone)) == ("its controller was gone", True, 1)
    assert [entry.state for entry in read_ledger(folder)] == [UNDONE]
    assert running_gamedays(tmp_path) == []


def test_a_controller_that_does_not_stop_is_killed_and_its_faults_are_undone(tmp_path: Path) -> None:
    code = "import time; print('here', flush=True); time.sleep(60)"
    deaf = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert deaf.stdout is not None
    deaf.stdout.readline()
    folder = run_of(tmp_path, pid=deaf.pid, pid_start_time=process_start_time(deaf.pid))
    with Ledger(folder) as ledger:
        ledger.arm(KILL.name, "replica:a", GONE)
    stopped = stop_gameday(folder, timeout_s=0.5)
    status = deaf.wait(timeout=10)
    deaf.stdout.close()

    assert "was killed" in stopped.how
    assert status == -signal.SIGKILL
    assert (folder / STOP_FILE).exists()
    assert stopped.is_restored


def test_a_game_day_of_another_host_is_asked_by_the_file_and_never_undone_here(tmp_path: Path) -> None:
    folder = run_of(tmp_path, host="elsewhere")
    with Ledger(folder) as ledger:
        ledger.arm(KILL.name, "replica:a", GONE)

    with pytest.raises(
        TargetError, match="of elsewhere: does not answer; run `overproof gameday stop` there"
    ):
        stop_gameday(folder, timeout_s=0.5)
    was_asked = (folder / STOP_FILE).exists()
    (folder / "events.ndjson").write_text(event_to_line(now("controller", INTERRUPTED)))
    with pytest.raises(TargetError, match="has ended and left something; run `overproof gameday undo` there"):
        stop_gameday(folder, timeout_s=0.5)

    assert was_asked
    assert [entry.state for entry in read_ledger(folder)] == [ARMED]


def test_a_fault_that_was_injected_on_another_host_is_not_called_undone_here(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.arm(KILL.name, "replica:a", GONE)
    path = tmp_path / UNDO_FILE
    path.write_text(path.read_text().replace(os.uname().nodename, "elsewhere"))

    (undone,) = undo_pending(tmp_path, by="test")

    assert (undone.is_restored, undone.did) == (False, "it was injected on elsewhere; undo it there")
    assert read_ledger(tmp_path)[0].is_pending


def test_a_run_that_is_no_game_day_is_left_alone(tmp_path: Path) -> None:
    folder = run_of(tmp_path, kind="load")

    with pytest.raises(ConfigError, match="is a load run, no game day"):
        stop_gameday(folder)
    assert not (folder / STOP_FILE).exists()


def test_the_watch_sends_one_signal_once_the_file_is_there(tmp_path: Path) -> None:
    heard, said = threading.Event(), []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.set())
    try:
        end = watch_for_stop(tmp_path, said.append)
        was_silent = not wait_until(heard.is_set, timeout_s=0.6)
        write_atomically(tmp_path / STOP_FILE, '{"by": "ann@desk"}')
        is_heard = wait_until(heard.is_set, timeout_s=10)
        end()
    finally:
        signal.signal(signal.SIGTERM, before)

    assert was_silent
    assert is_heard
    assert said == ["ann@desk"]

"""The first process of a host keeps its services running, and lets one be stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.child import wait_until
from tests.cluster import supervisor

Start = Callable[[dict[str, list[str]]], None]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a supervisor in a process namespace of its own, as on a host; what it runs ends with it."""
    running: list[subprocess.Popen[bytes]] = []

    def with_services(services: dict[str, list[str]]) -> None:
        listed = tmp_path / "services.json"
        listed.write_text(json.dumps(services))
        command = [sys.executable, "-I", supervisor.__file__, str(listed)]
        running.append(subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", *command]))

    yield with_services
    for process in running:
        process.kill()
        process.wait(timeout=10)


def service(folder: Path) -> list[str]:
    """Return a service that notes each of its starts, by its pid outside."""
    note = (
        f"import os,time; print('start', flush=True); open({str(folder / 'alive')!r}, 'a'); time.sleep(600)"
    )
    return [sys.executable, "-c", note]


def starts(folder: Path) -> int:
    log = folder / "sleeper.log"
    return log.read_text().splitlines().count("start") if log.exists() else 0


def pids(folder: Path) -> list[int]:
    """Return the processes of the service, found by the file that they name."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if len(words) > 2 and words[1] == b"-c" and str(folder / "alive").encode() in words[2]:
            found.append(int(entry.name))
    return found


@pytest.mark.needs("root")
def test_a_service_that_is_killed_is_started_again(tmp_path: Path, start: Start) -> None:
    start({"sleeper": service(tmp_path)})
    assert wait_until(lambda: starts(tmp_path) == 1, timeout_s=20)

    os.kill(pids(tmp_path)[0], signal.SIGKILL)

    assert wait_until(lambda: starts(tmp_path) == 2, timeout_s=20)
    assert "sleeper ended with -9" in (tmp_path / "sleeper.log").read_text()


@pytest.mark.needs("root")
def test_a_service_that_is_stopped_stays_down_until_it_is_let_go(tmp_path: Path, start: Start) -> None:
    start({"sleeper": service(tmp_path)})
    assert wait_until(lambda: starts(tmp_path) == 1, timeout_s=20)

    (tmp_path / "sleeper.stopped").touch()
    assert wait_until(lambda: not pids(tmp_path), timeout_s=20)
    (tmp_path / "sleeper.stopped").unlink()

    assert wait_until(lambda: starts(tmp_path) == 2, timeout_s=20)


@pytest.mark.needs("root")
def test_a_program_that_is_missing_keeps_no_other_from_running(tmp_path: Path, start: Start) -> None:
    start({"missing": [str(tmp_path / "nowhere")], "sleeper": service(tmp_path)})

    assert wait_until(lambda: starts(tmp_path) == 1, timeout_s=20)
    assert "No such file" in (tmp_path / "missing.log").read_text()


@pytest.mark.needs("root")
def test_services_end_with_their_supervisor(tmp_path: Path) -> None:
    listed = tmp_path / "services.json"
    listed.write_text(json.dumps({"sleeper": service(tmp_path)}))
    command = [sys.executable, "-I", supervisor.__file__, str(listed)]
    host = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", *command])
    assert wait_until(lambda: starts(tmp_path) == 1, timeout_s=20)

    host.kill()
    host.wait(timeout=10)

    assert wait_until(lambda: not pids(tmp_path), timeout_s=20)

"""What the doctor takes for a process that a game day has left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from experiments.injecting.crash_points import RUN_VARIABLE
from experiments.processes.doctor import find_leftovers
from probes.child import wait_until


@contextmanager
def left_by(run: Path, *command: str) -> Iterator[int]:
    """Have something run that says it is of a game day; yield its pid once it is what it is to be."""
    child = subprocess.Popen(command, env=os.environ | {RUN_VARIABLE: str(run)})
    try:
        assert wait_until(lambda: processes_of(run) != set(), timeout_s=10)
        yield child.pid
    finally:
        child.kill()
        child.wait()


def processes_of(run: Path) -> set[int]:
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_asleep = (folder / "comm").read_text() == "sleep\n"
            if is_asleep and f"{RUN_VARIABLE}={run}".encode() in (folder / "environ").read_bytes().split(
                b"\0"
            ):
                found.add(int(folder.name))
        except OSError:
            continue
    return found


def found_of(run: Path, out: Path) -> set[str]:
    return {each.subject for each in find_leftovers(out) if f"of {run}," in each.observed}


def test_a_process_whose_controller_is_gone_is_left_over(tmp_path: Path) -> None:
    run = tmp_path / "gone"
    with left_by(run, "sleep", "60") as pid:
        found = found_of(run, tmp_path)

    assert found == {f"pid {pid}"}


@pytest.mark.needs("root", "unshare")
def test_a_process_of_a_game_day_inside_a_container_is_that_containers_own(tmp_path: Path) -> None:
    run = tmp_path / "inside"
    with left_by(run, "unshare", "--pid", "--fork", "--kill-child", "sleep", "60") as pid:
        found, inside = found_of(run, tmp_path), processes_of(run)

    assert inside - {pid}
    assert found <= {f"pid {pid}"}  # who started the container is out here

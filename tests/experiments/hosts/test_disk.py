"""A full disk, on small file systems in memory: a writer finds no room; undoing deletes that very file."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.host_agent.armed import TIMER, boot_id, boottime_s, make_armed
from experiments.host_agent.fault import Refused
from experiments.host_agent.faults.disk import FULL
from probes.child import wait_until

pytestmark = pytest.mark.needs("root")
SIZE = 8 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


def capture(disk: Path, **arguments: Any) -> dict[str, Any]:
    return dict(json.loads(json.dumps(FULL.capture({"folder": str(disk)} | arguments))))


def free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def test_a_writer_finds_no_room_and_afterwards_the_disk_is_as_before(disk: Path) -> None:
    (disk / "theirs").write_bytes(bytes(1 << 20))
    before, listed = free(disk), sorted(disk.iterdir())
    state = capture(disk, leave_bytes=0)
    assert FULL.verify(state)[0] is False

    FULL.inject(state)

    assert FULL.verify(state)[0] is True
    with pytest.raises(OSError) as caught, (disk / "writer").open("wb", buffering=0) as file:  # noqa: PT011
        file.write(bytes(65536))
    assert caught.value.errno == errno.ENOSPC
    (disk / "writer").unlink()
    assert FULL.undo(state)[::2] == (True, True)
    assert (free(disk), sorted(disk.iterdir())) == (before, listed)


@pytest.mark.parametrize(
    ("given", "left"), [({"leave_bytes": 1 << 20}, 1 << 20), ({"leave_percent": 25}, 2 << 20)]
)
def test_as_much_is_left_as_was_asked_for(disk: Path, given: dict[str, int], left: int) -> None:
    state = capture(disk, **given)
    FULL.inject(state)

    assert free(disk) == left
    assert FULL.verify(state)[0]
    FULL.undo(state)


def test_undo_twice_and_never_injected_is_harmless_and_says_so(disk: Path) -> None:
    state = capture(disk, leave_bytes=0)

    assert FULL.undo(state)[::2] == (True, False)
    FULL.inject(state)
    assert FULL.undo(state)[::2] == (True, True)
    assert FULL.undo(state)[::2] == (True, False)


def test_a_file_that_was_made_and_not_yet_filled_is_deleted(disk: Path) -> None:
    state = capture(disk, leave_bytes=0)
    Path(state["file"]).touch()

    assert FULL.undo(state)[::2] == (True, True)
    assert list(disk.iterdir()) == []


def test_a_file_of_somebody_else_under_that_name_is_neither_overwritten_nor_deleted(disk: Path) -> None:
    state = capture(disk, leave_bytes=0)
    Path(state["file"]).write_text("theirs")

    with pytest.raises(Refused, match="File exists"):
        FULL.inject(state)
    assert FULL.undo(state)[0] is False
    assert Path(state["file"]).read_text() == "theirs"


def test_what_a_link_under_that_name_points_to_is_left_alone(disk: Path) -> None:
    state, theirs = capture(disk, leave_bytes=0), disk / "theirs"
    theirs.write_text(state["token"])
    Path(state["file"]).symlink_to(theirs)

    assert FULL.undo(state)[0] is False
    assert theirs.exists()


def test_an_unmounted_disk_is_not_called_restored(disk: Path) -> None:
    state = capture(disk, leave_bytes=0)
    FULL.inject(state)
    subprocess.run(["umount", disk], check=True)

    is_restored, said, _ = FULL.undo(state)

    assert not is_restored
    assert "is not mounted" in said
    with pytest.raises(Refused, match="no longer mounted"):
        FULL.inject(state)
    assert list(disk.iterdir()) == []  # nothing was written into the folder that lay beneath


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "give one of"),
        ({"leave_bytes": 0, "leave_percent": 0}, "give one of"),
        ({"leave_bytes": -1}, "between"),
        ({"leave_percent": 100}, "between"),
        ({"leave_percent": 99.9}, "nothing to fill"),
        ({"folder": "relative", "leave_bytes": 0}, "absolute"),
        ({"folder": "/nowhere", "leave_bytes": 0}, "no folder"),
        ({"folder": "/", "leave_bytes": 4096}, "file system of /"),
    ],
)
def test_an_empty_or_dangerous_selection_is_refused(disk: Path, arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why):
        capture(disk, **arguments)


def test_a_folder_that_is_not_there_is_said_in_a_sentence() -> None:
    assert FULL.missing({"folder": "/nowhere/at/all"}) == ["there is no folder /nowhere/at/all"]


def test_a_timer_whose_log_is_on_the_full_disk_tries_again(disk: Path, tmp_path: Path) -> None:
    state, base = capture(disk, leave_bytes=0), tmp_path / "overproof"
    FULL.inject(state)
    order = {
        "id": "one",
        "fault": "disk.full",
        "arguments": {"folder": str(disk)},
        "state": state,
        "run": "run",
    }
    order |= {"by": "test", "boot_id": boot_id(), "undo_at_boottime_s": boottime_s(), "t_ns": 0}
    armed = make_armed(base, order, b"")
    away = tmp_path / "away"
    away.mkdir()
    subprocess.run(["mount", "--bind", disk, away], check=True)
    subprocess.run(["umount", disk], check=True)  # so the first try fails, and says so on a full log
    words = [sys.executable, "-P", "-m", "experiments.host_agent.timer", str(base), "one", "nonce"]
    with Path("/dev/full").open("wb") as log:
        timer = subprocess.Popen(words, stderr=log, stdin=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: bool(armed.read(TIMER)), timeout_s=20)
        time.sleep(1.0)
        subprocess.run(["mount", "--bind", away, disk], check=True)

        assert timer.wait(timeout=20) == 0
    finally:
        timer.kill()
        timer.wait(timeout=10)
        subprocess.run(["umount", "-l", away], check=True)
    assert armed.undone["is_restored"] is True

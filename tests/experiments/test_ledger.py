"""The write-ahead ledger: what it holds survives whatever happens to its writers."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.injecting.ledger import (
    ARMED,
    INJECTED,
    SPACE_BYTES,
    UNDONE,
    VERIFIED,
    Ledger,
    ledger_folders,
    read_ledger,
)
from probes.errors import RecordError, TargetError
from reports.record import UNDO_FILE


def test_an_entry_keeps_what_undoing_needs_and_its_last_state(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        first = ledger.arm("replica.kill", "replica:a", {"pid": 7})
        second = ledger.arm("replica.kill", "replica:b", {"pid": 8})
        ledger.note(first, INJECTED)
        ledger.note(first, VERIFIED, observed="gone")
        ledger.note(second, UNDONE, did="nothing")

    entries = read_ledger(tmp_path)

    assert [(e.id, e.subject, e.captured, e.state) for e in entries] == [
        (first, "replica:a", {"pid": 7}, VERIFIED),
        (second, "replica:b", {"pid": 8}, UNDONE),
    ]
    assert [e.is_pending for e in entries] == [True, False]
    assert entries[0].detail == {"observed": "gone"}


def test_a_folder_without_a_ledger_has_no_entries(tmp_path: Path) -> None:
    assert read_ledger(tmp_path) == []


def test_an_armed_entry_is_on_the_disk_when_its_writer_is_killed_right_after(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from experiments.injecting.ledger import Ledger\n"
        "Ledger(Path(sys.argv[1])).arm('replica.kill', 'replica:a', {'pid': 7})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    died = subprocess.run([sys.executable, "-P", "-c", code, str(tmp_path)], timeout=30, check=False)

    assert died.returncode == -signal.SIGKILL
    assert [entry.state for entry in read_ledger(tmp_path)] == [ARMED]


def test_a_line_torn_by_a_crash_does_not_swallow_the_next(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        first = ledger.arm("replica.kill", "replica:a", {})
    with (tmp_path / UNDO_FILE).open("a") as file:
        file.write('{"id":"' + first + '","state":"undo')
    with Ledger(tmp_path) as ledger:
        ledger.note(first, INJECTED)
        second = ledger.arm("replica.kill", "replica:b", {})

    assert [(e.id, e.state) for e in read_ledger(tmp_path)] == [(first, INJECTED), (second, ARMED)]


def test_space_is_taken_beforehand_and_readers_see_none_of_it(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.arm("replica.kill", "replica:a", {})
    taken = (tmp_path / UNDO_FILE).stat()

    assert taken.st_blocks * 512 >= SPACE_BYTES
    assert taken.st_size < 1000
    assert b"\0" not in (tmp_path / UNDO_FILE).read_bytes()


def test_two_processes_write_at_once_and_no_line_is_lost(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from experiments.injecting.ledger import INJECTED, Ledger\n"
        "with Ledger(Path(sys.argv[1])) as ledger:\n"
        "    for i in range(20):\n"
        "        ledger.note(ledger.arm('replica.kill', f'replica:{sys.argv[2]}-{i}', {'i': i}), INJECTED)\n"
    )
    command = [sys.executable, "-P", "-c", code, str(tmp_path)]
    writers = [subprocess.Popen([*command, name]) for name in "ab"]

    ends = [writer.wait(timeout=30) for writer in writers]
    entries = read_ledger(tmp_path)

    assert ends == [0, 0]
    assert {e.subject for e in entries} == {f"replica:{n}-{i}" for n in "ab" for i in range(20)}
    assert {e.state for e in entries} == {INJECTED}


def test_whoever_waits_too_long_for_another_that_undoes_is_told(tmp_path: Path) -> None:
    with Ledger(tmp_path) as first, first.alone(timeout_s=1), Ledger(tmp_path) as second:
        waiting = second.alone(timeout_s=0.1)
        with pytest.raises(TargetError, match="another process has been undoing"):
            waiting.__enter__()
    with Ledger(tmp_path) as third, third.alone(timeout_s=1):
        pass


def test_a_folder_that_takes_no_ledger_is_an_error_before_anything_is_injected(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="nothing is injected"):
        Ledger(tmp_path / "nowhere")


def test_latest_is_not_counted_twice(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        Ledger(tmp_path / name).close()
    (tmp_path / "latest").symlink_to("b")
    (tmp_path / "empty").mkdir()

    assert ledger_folders(tmp_path) == [tmp_path / "a", tmp_path / "b"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "overproof-test", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096) == 4096:
                pass
        except OSError:
            return


@pytest.mark.needs("root")
def test_on_a_full_disk_an_armed_fault_can_still_be_noted_as_undone(small_disk: Path) -> None:
    with Ledger(small_disk) as ledger:
        entry = ledger.arm("replica.kill", "replica:a", {})
        fill(small_disk / "ballast")
        for _ in range(50):
            ledger.note(entry, INJECTED, detail="x" * 200)
        ledger.note(entry, UNDONE)
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "one more").write_bytes(b"x" * 4096)

    assert [e.state for e in read_ledger(small_disk)] == [UNDONE]


@pytest.mark.needs("root")
def test_on_a_full_disk_nothing_is_armed(small_disk: Path) -> None:
    fill(small_disk / "ballast")

    with pytest.raises(RecordError, match="No space left on device"):
        Ledger(small_disk)

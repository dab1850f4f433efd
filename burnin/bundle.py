"""What a vendor asks for when a part is sent back, collected after a FAIL: bug report, BMC log, kernel log.

It is collected by the runner that travels to nodes (``burnin.node.tool_run``): what comes back are bounded
chunks, wherever it ran. Nothing here changes a verdict, and nothing of the record is touched.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from burnin.node.tool_run import END_GRACE_S, FINISHED, OUTPUT, Program
from probes.child import end_child, python_module, start_child
from probes.event import Event, event_from_line
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.run import Run

FOLDER = "bundle"
INDEX_FILE = "index.json"
RUNNER_GRACE_S = 10.0  # the runner keeps the program's deadline itself
NOT_WRITTEN = "not written"
_MIB = 1 << 20
Runner = Callable[[Program], contextlib.AbstractContextManager[Iterator[Event]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One file of the bundle, and the programs that can make it: the first that succeeds does."""

    file: str
    programs: tuple[Program, ...]


def bundle_items() -> tuple[Item, ...]:
    """Return what is collected, each with its deadline and size limit."""
    report = Program(
        tool="nvidia-bug-report",
        command=["nvidia-bug-report.sh", "--output-file", "{file}"],
        within_s=600.0,  # minutes on eight GPUs, longer with one that hardly answers
        bytes_max=64 * _MIB,
        file="nvidia-bug-report.log",  # the script packs it and appends .gz
    )
    return (
        Item(file="nvidia-bug-report.log", programs=(report,)),
        Item(
            file="bmc-events.txt",
            programs=tuple(
                _printed(f"ipmitool sel {form}", ["ipmitool", "sel", form], 90.0, 8 * _MIB)
                for form in ("elist", "list")
            ),
        ),
        Item(
            file="kernel-log.txt",
            programs=(
                _printed("dmesg", ["dmesg"], 30.0, 32 * _MIB),
                _printed("journalctl", ["journalctl", "-k", "-b", "--no-pager"], 60.0, 32 * _MIB),
            ),
        ),
    )


def _printed(tool: str, command: list[str], within_s: float, bytes_max: int) -> Program:
    return Program(tool=tool, command=command, within_s=within_s, bytes_max=bytes_max)


def is_wanted(run: Run) -> bool:
    """Say whether there is anything to send a part back for: a FAIL of a run that came to its end."""
    return run.outcome is Outcome.FAIL and run.state == "finished"


def collect_bundle(
    run: Path, items: Sequence[Item] | None = None, *, runner: Runner | None = None
) -> list[JsonObject]:
    """Collect each item into the run's folder and return the index; ``runner`` None: on this machine.

    A disk that is full is told, in the index if that still fits and on standard error in any case.

    Raises:
        Interrupted: somebody stopped us; nothing is left running, and the index says how far it came.
    """
    folder, index = run / FOLDER, list[JsonObject]()
    try:
        folder.mkdir(exist_ok=True)
        for item in bundle_items() if items is None else items:
            for program in item.programs:
                entry: JsonObject = {"file": item.file, "tool": program.tool, "failure": "interrupted"}
                index.append(entry)
                entry |= collect(program, folder, item.file, runner or run_here)
                if entry["is_complete"]:
                    break
    except OSError as error:
        _tell(f"bundle: {folder} cannot be written: {error.strerror}")
    finally:
        _write_index(folder, index)
    lacking = [
        item for item in _files(index) if not any(e.get("is_complete") for e in index if e["file"] == item)
    ]
    _tell(f"bundle: {folder}" + (f"; not whole: {', '.join(lacking)}, see {INDEX_FILE}" if lacking else ""))
    return index


def _files(index: Sequence[JsonObject]) -> list[str]:
    return list(dict.fromkeys(str(entry["file"]) for entry in index))


def collect(program: Program, folder: Path, name: str, runner: Runner) -> JsonObject:
    """Run one program and keep what comes of it; return its line of the index."""
    entry: JsonObject = {"command": program.command, "within_s": program.within_s, "failure": ""}
    started, path = time.monotonic(), folder / name
    with runner(program) as events, path.open("wb", buffering=0) as file:
        entry |= _receive(events, file)
    entry["seconds"] = round(time.monotonic() - started, 3)
    return _finish(entry, path)


@contextlib.contextmanager
def run_here(program: Program) -> Iterator[Iterator[Event]]:
    """Run a program on this machine and yield what its runner says."""
    runner = start_child(python_module("burnin.node.tool_run"), stderr=subprocess.DEVNULL)
    try:
        assert runner.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            runner.stdin.write(program.to_line())
        yield _events(runner, within_s=program.within_s + RUNNER_GRACE_S)
    finally:
        if not end_child(runner, grace_s=END_GRACE_S + 1):
            _tell(f"a process of group {runner.pid} cannot be ended: it is stuck in the kernel")


def _finish(entry: JsonObject, path: Path) -> JsonObject:
    """Give the file its name, or take it away where nothing came, and say whether it is whole."""
    is_packed = entry.pop("is_packed", False)
    entry.pop("is_there", None)
    if entry.get("is_late") and not entry["failure"]:
        entry["failure"] = f"not done within {entry['within_s']:.0f} s"
    is_torn = str(entry["failure"]).startswith(NOT_WRITTEN)
    if is_torn or not path.stat().st_size:
        path.unlink()  # on a full disk the index, which says so, needs the room more
    elif is_packed:
        path = path.rename(path.with_name(f"{path.name}.gz"))
        entry["file"] = path.name
    is_whole = not entry["failure"] and not entry.get("is_truncated")
    entry["is_complete"] = is_whole and entry.get("exit_code") == 0 and path.exists()
    return entry


def _receive(events: Iterator[Event], file: IO[bytes]) -> JsonObject:
    """Write chunks as they come; a disk that is full ends the writing, not the program's accounting."""
    failure, said = "", JsonObject()
    for event in events:
        if event.kind == OUTPUT and not failure:
            try:
                file.write(base64.b64decode(str(event.data["base64"])))
            except OSError as error:
                failure = f"{NOT_WRITTEN}: {error.strerror}"
        elif event.kind == FINISHED:
            said = {key: value for key, value in event.data.items() if key != "tool"}
    if not said:
        return {"failure": failure or "its runner did not answer in time"}
    return said | {"failure": failure or said["failure"]}


def _events(runner: subprocess.Popen[str], *, within_s: float) -> Iterator[Event]:
    """Yield what the runner says, until it has finished or its time is up."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(runner, lines), name="from tool", daemon=True).start()
    deadline = time.monotonic() + within_s
    while True:
        try:
            line = lines.get(timeout=max(deadline - time.monotonic(), 0.01))
        except queue.Empty:
            return
        if line is None:
            return
        event = event_from_line(line)
        yield event
        if event.kind == FINISHED:
            return


def _read(runner: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    assert runner.stdout is not None
    with runner.stdout as said:
        for line in said:
            lines.put(line)
    lines.put(None)


def _write_index(folder: Path, index: Sequence[JsonObject]) -> None:
    try:
        text = json.dumps(list(index), indent=2, ensure_ascii=False) + "\n"
        with (folder / INDEX_FILE).open("w", encoding="utf-8", errors="replace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        _tell(f"bundle: no {INDEX_FILE}: {error.strerror}")


def _tell(text: str) -> None:
    sys.stderr.write(f"overproof: {text}\n")

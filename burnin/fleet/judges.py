"""Judges the records of hosts in a few processes of their own, so that the controller stays awake meanwhile.

As a program: reads a folder per line, seals and judges the record in it, answers with one line of rows for
the fleet's tables. It ends with its input.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from probes.child import end_child, python_module, start_child
from probes.errors import RecordError
from probes.json_types import JsonObject

JUDGES_MAX = 4


class Judges:
    """A few processes that judge, each one record at a time."""

    def __init__(self, count: int | None = None) -> None:
        self._count = count or min(JUDGES_MAX, os.cpu_count() or 1)
        self._idle: queue.LifoQueue[subprocess.Popen[str] | None] = queue.LifoQueue()
        self._all: list[subprocess.Popen[str]] = []
        for _ in range(self._count):
            self._idle.put(None)  # started when the first record comes

    def judge(self, folder: Path) -> JsonObject:
        """Judge one record and return what its host adds to the fleet's tables.

        Raises:
            RecordError: the judge broke on it.
        """
        child = self._idle.get()
        if child is None:
            child = start_child(python_module("burnin.fleet.judges"))
            self._all.append(child)
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(str(folder)) + "\n")
            answer = child.stdout.readline()
        except OSError:
            answer = ""
        if not answer:
            end_child(child)
        self._idle.put(child if answer else None)
        found = json.loads(answer or "null")
        if not isinstance(found, dict) or "error" in found:
            reason = found["error"] if isinstance(found, dict) else "the judge ended"
            raise RecordError(f"{folder}: could not be judged: {reason}")
        return found

    def __enter__(self) -> Judges:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._all:
            end_child(child, grace_s=1.0)
            if child.stdout is not None:
                child.stdout.close()


def main() -> None:
    """Judge one record per line."""
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        folder = Path(json.loads(line))
        try:
            answer = judge_host(folder)
        except Exception as error:  # whatever breaks on one record must not end the judging of all others
            answer = {"error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(BrokenPipeError):
            out.write(json.dumps(answer) + "\n")
            out.flush()


def judge_host(folder: Path) -> JsonObject:
    """Seal and judge one host's record; return its outcome and its rows of each table."""
    from burnin.fleet.summary import summarise
    from burnin.judging import judge_run
    from reports.run import load_run
    from reports.session import rejudge
    from reports.table import seal

    with contextlib.suppress(RecordError):
        seal(folder)
    rejudge(load_run(folder), judge_run)
    run = load_run(folder)
    return {"outcome": run.outcome.value, "tables": summarise(run)}


if __name__ == "__main__":
    main()

"""Runs one program of somebody else to its end, its deadline or its size limit, and says what it printed.

The program shares the process group of this runner. So whoever ends the group ends the program with all that
it started, and a runner whose lifeline is cut ends the group itself. SIGTERM comes first: ``dcgmi`` stops
its diagnostic on it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

from burnin.node.lifeline import ORDER_WITHIN_S
from burnin.node.speaker import Speaker
from probes.child import read_first_line, watch_lifeline
from probes.event import to_json_line
from probes.json_types import JsonObject

CHUNK_BYTES = 32 * 1024
COMPLAINTS_BYTES = 4000
END_GRACE_S = 2.0  # between SIGTERM and leaving the rest to SIGKILL
EVERY_S = 0.02
FINISHED = "tool.finished"
OUTPUT = "tool.output"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program and its limits."""

    tool: str  # how the record calls it
    command: list[str]
    within_s: float
    bytes_max: int  # of what comes back; the rest is counted and thrown away
    environment: dict[str, str | None] = field(default_factory=dict)  # None: taken out
    # It writes a file, whose path stands for "{file}" in the command, perhaps with ".gz" appended by the
    # program itself; empty: what it prints is wanted.
    file: str = ""
    silence_s: float | None = (
        None  # of whoever wants it, where a network lies between; None: its end is heard
    )

    def to_json(self) -> JsonObject:
        """Return the line that the runner reads."""
        return asdict(self)

    def to_line(self) -> str:
        """Return the same as the one line of JSON that a runner reads first."""
        return to_json_line(self.to_json())


class _Stop:
    """Whether somebody wants this to end."""

    is_wanted = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.is_wanted = True


def main() -> None:
    """Run the program that the first line names."""
    line = read_first_line(within_s=ORDER_WITHIN_S)
    if not line:
        return
    stop = _Stop()
    signal.signal(signal.SIGTERM, stop.on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    program = Program(**json.loads(line))
    watch_lifeline(_end_group, silence_s=program.silence_s)
    run_program(program, Speaker(program.tool), stop)
    os._exit(0)


def _end_group() -> None:
    """End the program and ourselves: nobody listens any more."""
    with contextlib.suppress(OSError):
        os.killpg(0, signal.SIGTERM)
    time.sleep(END_GRACE_S / 2)
    os.killpg(0, signal.SIGKILL)


def run_program(program: Program, speaker: Speaker, stop: _Stop) -> None:
    """Run it and say what came of it, also where it could not be started at all."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="overproof-tool-") as folder:
        printed, errors = Path(folder) / "printed", Path(folder) / "errors"
        wanted = Path(folder) / program.file if program.file else printed
        command = [part.replace("{file}", str(wanted)) for part in program.command]
        speaker.say("tool.started", tool=program.tool, command=command)
        try:
            ended = _run(program, command, printed, errors, stop)
        except OSError as error:
            ended = {"exit_code": None, "failure": f"cannot be started: {error.strerror or error}"}
        said: JsonObject = {"exit_code": None, "failure": "", "is_late": False, "is_too_big": False} | ended
        said["seconds"] = round(time.monotonic() - started, 3)
        packed = wanted.with_name(f"{wanted.name}.gz")
        is_packed = packed.exists() and not wanted.exists()
        said |= {"is_packed": is_packed} | _send(program, speaker, packed if is_packed else wanted)
        beside = [errors, *([printed] if program.file else [])]  # tells why nothing came
        said["complaints"] = "".join(
            _read(path, COMPLAINTS_BYTES).decode(errors="replace") for path in beside
        )
        speaker.say(FINISHED, tool=program.tool, **said)


def _run(program: Program, command: list[str], printed: Path, errors: Path, stop: _Stop) -> JsonObject:
    environment = {k: v for k, v in os.environ.items() if k not in program.environment}
    environment |= {k: v for k, v in program.environment.items() if v is not None}
    with printed.open("wb") as output, errors.open("wb") as complaints:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=complaints,
            env=environment,
            cwd=printed.parent,
        )
    deadline = time.monotonic() + program.within_s
    # A flood must not fill the disk on its way to being thrown away.
    room = 4 * program.bytes_max
    is_late = is_too_big = False
    while process.poll() is None and not stop.is_wanted and not is_late and not is_too_big:
        time.sleep(EVERY_S)
        is_late = time.monotonic() >= deadline
        is_too_big = _size(printed) > room or _size(errors) > room
    if process.poll() is None:
        stop_gently(process)
    # None: SIGTERM was not enough; whoever started us ends the group.
    return {"exit_code": process.poll(), "is_late": is_late, "is_too_big": is_too_big}


def stop_gently(process: subprocess.Popen[bytes]) -> None:
    """Ask the whole group to end, which ourselves do not heed, and wait a moment for the program."""
    os.killpg(0, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=END_GRACE_S)


def _send(program: Program, speaker: Speaker, wanted: Path) -> JsonObject:
    """Say what came, in chunks, and how much of it there was."""
    kept, digest = 0, hashlib.sha256()
    for number, chunk in enumerate(_chunks(wanted, program.bytes_max)):
        kept += len(chunk)
        digest.update(chunk)
        text = base64.b64encode(chunk).decode()
        speaker.say(OUTPUT, tool=program.tool, number=number, base64=text)
    size = _size(wanted)
    return {
        "bytes": kept,
        "sha256": digest.hexdigest(),
        "is_truncated": size > kept,
        "is_there": wanted.exists(),
    }


def _chunks(path: Path, bytes_max: int) -> Iterator[bytes]:
    left = bytes_max
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk


def _read(path: Path, bytes_max: int) -> bytes:
    return b"".join(_chunks(path, bytes_max))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    main()

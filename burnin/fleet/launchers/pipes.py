"""A program that a process of this machine carries: itself, or the client of what runs it elsewhere."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO

from probes.child import end_child
from probes.errors import TargetError

CHUNK_BYTES = 1 << 16
ERRORS_BYTES_MAX = 1 << 16  # of standard error, the last are kept
WRITE_WITHIN_S = 30.0


class PipeChannel:
    """The two streams of a process, whose standard error is kept as a tail."""

    def __init__(
        self, command: Sequence[str], *, host: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._host = host
        self.begin_s = 0.0
        self._errors = self._held = b""
        self._is_ended = False
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if environment is None else dict(environment),
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)

    @property
    def pid(self) -> int:
        """The process on this machine."""
        return self._process.pid

    def write(self, data: bytes) -> None:
        """Send to its standard input."""
        assert self._process.stdin is not None
        rest, deadline = memoryview(data), time.monotonic() + WRITE_WITHIN_S
        while rest:
            left_s = deadline - time.monotonic()
            try:
                if left_s <= 0 or not _polled([self._process.stdin], select.POLLOUT, left_s):
                    raise TargetError(f"{self._host}: takes no input for {WRITE_WITHIN_S:.0f} s")
                rest = rest[self._process.stdin.write(rest) or 0 :]
            except (OSError, ValueError) as error:
                raise TargetError(f"{self._host}: its program has gone: {error}") from error

    def wait(self, within_s: float) -> bool:
        """Wait for output or its end; what comes on standard error meanwhile is kept."""
        deadline = time.monotonic() + within_s
        while not self._held and self._process.stdout and not self._process.stdout.closed:
            ready = self._ready(max(deadline - time.monotonic(), 0))
            if self._process.stdout in ready:
                return True
            if self._process.stderr in ready:
                self._keep_errors()
            elif time.monotonic() >= deadline:
                return False
        return True

    def _ready(self, within_s: float) -> list[IO[bytes]]:
        open_ = [each for each in (self._process.stdout, self._process.stderr) if each and not each.closed]
        return _polled(open_, select.POLLIN, within_s)

    def _keep_errors(self) -> None:
        assert self._process.stderr is not None
        data = self._process.stderr.read(CHUNK_BYTES)
        if not data:
            self._process.stderr.close()
        self._errors = (self._errors + data)[-ERRORS_BYTES_MAX:]

    def read(self) -> bytes:
        """Return what came from its standard output; empty at its end."""
        assert self._process.stdout is not None
        if self._held:
            held, self._held = self._held, b""
            return held
        while not self.wait(3600.0):
            pass
        try:
            return bytes(self._process.stdout.read(CHUNK_BYTES) or b"")
        except ValueError:  # somebody ended the program meanwhile
            return b""

    def unread(self, data: bytes) -> None:
        """Put back what was read too far."""
        self._held = data + self._held

    def errors(self) -> bytes:
        """Return the last that came from its standard error."""
        return self._errors

    def hang_up(self, *, within_s: float) -> None:
        """Close its standard input, and let it leave by itself: some take a signal ill while they do."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._process.stdin.close()
            self._process.wait(timeout=within_s)

    def end(self) -> int | None:
        """End the process and its group; its exit status, None where the kernel holds on to it."""
        if self._is_ended:  # its number may be somebody else's by now
            return self._process.returncode
        self._is_ended = is_gone = end_child(self._process)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        if is_gone and not self._process.stderr.closed:
            self._keep_errors()
        self._process.stdout.close()
        self._process.stderr.close()
        return self._process.returncode if is_gone else None


def _polled(streams: Sequence[IO[bytes] | None], what: int, within_s: float) -> list[IO[bytes]]:
    """Return the streams that are ready; ``select`` would take none beyond the thousandth open file."""
    poller, known = select.poll(), {}
    for stream in streams:
        if stream is not None and not stream.closed:
            known[stream.fileno()] = stream
            poller.register(stream, what)
    return [known[number] for number, _ in poller.poll(within_s * 1000)]

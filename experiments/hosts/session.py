"""The line to the agent on a host: one SSH connection for each, and one JSON object a line each way.

The agent travels with the connection, is held in memory there, and leaves with it. Only what is armed stays.
"""

from __future__ import annotations

import atexit
import json
import shlex
import threading
import time
from typing import Any

import paramiko

from experiments.faults.fault import FaultRefused
from experiments.hosts.agent_modules import build_agent
from experiments.hosts.host import Host
from probes.errors import TargetError
from probes.event import to_json_line
from probes.json_types import JsonObject
from probes.ssh import SshConnections, closing_after

CONNECT_WITHIN_S = 15.0
ANSWER_WITHIN_S = 60.0  # of one order; each of its commands has its own deadline on the host
_HELLO = b"overproof-agent-begins\n"
_NOISE_BYTES_MAX = 1 << 16  # what a login shell may print before
_CHUNK_BYTES = 1 << 15
_STALE_S = 30.0  # the agent leaves a line that is silent for a minute
# The word after it marks our processes on the host, which no fault may hit; the last one, which the login
# shell fills in, tells which connection carries us also where a wrapper, such as sudo, keeps that to itself.
_FIRST = "import sys;exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
_MARK = "experiments.host_agent"
_WAY_IN = '"$SSH_CONNECTION"'
_SECOND = f"""
import os, signal, sys, tempfile
signal.alarm(60)
def keep(content):
    try:
        descriptor = os.memfd_create("overproof", 0)
    except (AttributeError, OSError):
        descriptor = os.dup(tempfile.TemporaryFile().fileno())
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest):]
    return "/proc/self/fd/%d" % descriptor
path = keep(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))
base = sys.stdin.buffer.readline().decode().rstrip("\\n")
if sys.version_info < (3, 10):
    sys.exit("python is %s there; 3.10 or later is needed" % sys.version.split()[0])
os.environ["SSH_CONNECTION"] = sys.argv[2]
sys.path.insert(0, path)
from experiments.host_agent.agent import main
os.write(1, {_HELLO!r})
main(base, path)
"""


class HostSession:
    """A line to one host; made anew where it has broken. Threads take turns."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._connections = SshConnections()
        self._client: paramiko.SSHClient | None = None  # None: there is no line
        self._channel: paramiko.Channel | None = None
        self._lock = threading.Lock()
        self._used_at = 0.0
        self._rest = b""

    def ask(
        self,
        do: str,
        *,
        within_s: float = ANSWER_WITHIN_S,
        connect_s: float = CONNECT_WITHIN_S,
        **order: object,
    ) -> JsonObject:
        """Have the agent carry out one order; return its answer.

        Raises:
            FaultRefused: it says why not; nothing was done.
            TargetError: the host cannot be reached, or does not answer in time.
        """
        with self._lock:
            if self._channel is None or time.monotonic() - self._used_at > _STALE_S or self._channel.closed:
                self._open(connect_s)
            answer = self._exchange({"do": do} | order, within_s)
        if "refused" in answer:
            raise FaultRefused(f"{self.host.name}: {answer['refused']}")
        if "error" in answer:
            raise TargetError(f"{self.host.name}: {do}: {answer['error']}")
        return dict(answer["ok"])

    def _exchange(self, order: JsonObject, within_s: float) -> JsonObject:
        assert self._channel is not None
        deadline = time.monotonic() + within_s
        try:
            self._send(to_json_line(order).encode(), deadline)
            answer = json.loads(self._read_line(deadline))
        except (OSError, EOFError, paramiko.SSHException, ValueError) as error:
            self._drop()
            why = f"no answer within {within_s:g} s" if isinstance(error, TimeoutError) else str(error)
            raise TargetError(f"{self.host.name}: {order['do']}: the connection broke: {why}") from error
        except BaseException:  # a stop in the midst of it: the next order must not get this one's answer
            self._drop()
            raise
        self._used_at = time.monotonic()
        assert isinstance(answer, dict)
        return answer

    def _send(self, data: bytes, deadline: float) -> None:
        assert self._channel is not None
        rest = memoryview(data)
        while rest:
            self._channel.settimeout(max(deadline - time.monotonic(), 0.001))
            sent = self._channel.send(bytes(rest[:_CHUNK_BYTES]))
            if not sent:
                raise EOFError("the host has closed it")
            rest = rest[sent:]

    def _read_line(self, deadline: float) -> bytes:
        while b"\n" not in self._rest:
            self._read_more(deadline)
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _read_more(self, deadline: float) -> None:
        assert self._channel is not None
        self._channel.settimeout(max(deadline - time.monotonic(), 0.001))
        data = self._channel.recv(_CHUNK_BYTES)
        if not data:
            raise EOFError(f"the agent has left: {self._last_words()}")
        self._rest += data

    def _last_words(self) -> str:
        assert self._channel is not None
        said = b""
        while self._channel.recv_stderr_ready() and (data := self._channel.recv_stderr(_CHUNK_BYTES)):
            said += data
        lines = (said or self._rest).decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"

    def _open(self, connect_s: float) -> None:
        self._drop()
        deadline = time.monotonic() + connect_s
        self._client = self._connections.connect(self.host.to_target(), within_s=connect_s)
        try:
            with closing_after(max(deadline - time.monotonic(), 1.0) + 1.0, self._client):
                self._begin(deadline)
        except (OSError, EOFError, paramiko.SSHException) as error:
            self._drop()
            raise TargetError(f"{self.host.name}: logged in, but the agent did not begin: {error}") from error

    def _begin(self, deadline: float) -> None:
        assert self._client is not None
        transport = self._client.get_transport()
        if transport is None:
            raise EOFError("the connection is gone")
        self._channel = transport.open_session(timeout=max(deadline - time.monotonic(), 0.1))
        words = [*self.host.wrapper, self.host.python, "-I", "-S", "-c", _FIRST, _MARK]
        self._channel.exec_command(f"exec {shlex.join(words)} {_WAY_IN}")
        second, archive = _SECOND.encode(), build_agent()
        opening = b"%d\n%s%d\n%s%s\n" % (
            len(second), second, len(archive), archive, self.host.folder.encode(),
        )  # fmt: skip
        self._send(opening, deadline)
        self._rest = b""
        while _HELLO not in self._rest:
            self._read_more(deadline)
            self._rest = self._rest[-_NOISE_BYTES_MAX:]
        self._rest = self._rest.partition(_HELLO)[2]

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = self._channel = None
        self._rest = b""

    def close(self) -> None:
        """End the line; the agent leaves."""
        with self._lock:
            self._drop()
            self._connections.close()


_sessions: dict[Host, HostSession] = {}
_sessions_lock = threading.Lock()


def session_of(host: Host) -> HostSession:
    """Return this process's line to a host."""
    with _sessions_lock:
        return _sessions.setdefault(host, HostSession(host))


def close_sessions() -> None:
    """End every line of this process."""
    with _sessions_lock:
        ended = list(_sessions.values())
        _sessions.clear()
    for session in ended:
        session.close()


atexit.register(close_sessions)


def answer_or_none(host: Host, do: str, **order: Any) -> JsonObject | str:
    """Return an answer, or why there is none."""
    try:
        return session_of(host).ask(do, **order)
    except TargetError as error:
        return str(error)

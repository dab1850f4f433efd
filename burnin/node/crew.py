"""The agent's children, one worker per device and one sampler: each can hang or die alone."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from burnin.node.pace import PULSE
from burnin.node.raw import RAW_KEPT
from burnin.node.speaker import Speaker
from burnin.node.stall import Sign, note_pulse
from burnin.node.tool_run import FINISHED, OUTPUT
from probes.child import end_child, python_module, start_child
from probes.event import Event, event_from_line
from probes.json_types import JsonObject

HEARTBEAT = "heartbeat"  # consumed by the launcher, never recorded
HEARTBEAT_EVERY_S = 1.0
END_GRACE_S = 1.0
STUCK_GRACE_S = 3.0  # once more: where processors are short the kernel takes seconds to end a process
SAMPLER = "sampler"
# What sampler and tools say to the agent as well.
HEARD = (
    "nvml.inventory",
    "gpu.snapshot",
    "host.snapshot",
    "gpu.processes",
    "host.load.done",
    RAW_KEPT,
    OUTPUT,
    FINISHED,
)


@dataclass(slots=True, eq=False, kw_only=True)
class Member:
    """One child and what is known of it."""

    name: str  # of the device, "sampler", or of a tool of the vendor
    process: subprocess.Popen[str]
    is_worker: bool = True
    is_ready: bool = False
    is_gone: bool = False
    sign: Sign  # of life; the sampler's is never looked at


def node_module(module: str) -> list[str]:
    """Return the command that runs one of our modules on a node, from the archive that we came in, if any.

    Python 3.10 lacks ``-P``, so there the folder we stand in is taken off the import path first thing.
    """
    archive = getattr(globals()["__loader__"], "archive", None)
    if archive is not None:
        return [sys.executable, str(archive), module]
    if hasattr(sys.flags, "safe_path"):  # 3.11 and later
        return python_module(module)
    run = f"runpy.run_module({module!r}, run_name='__main__')"
    return [sys.executable, "-c", f"import sys, runpy; sys.path[:] = [p for p in sys.path if p]; {run}"]


class Crew:
    """Starts children, hears them all in one place, and ends them."""

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self._inbox: queue.SimpleQueue[tuple[Member, str | None]] = queue.SimpleQueue()
        self._beat_at = 0.0
        self._is_one_stuck = False
        self.members: list[Member] = []
        self.heard: list[Event] = []  # from the sampler: inventory and snapshots

    def start(
        self,
        name: str,
        module: str,
        first_line: JsonObject,
        *,
        is_worker: bool,
        env: Mapping[str, str] | None = None,
    ) -> Member:
        """Start a child, ``env`` on top of our own environment, and give it its first line."""
        process = start_child(node_module(module), env=os.environ | dict(env or {}))
        member = Member(name=name, process=process, is_worker=is_worker, sign=Sign(device=name))
        self.members.append(member)
        threading.Thread(target=self._read, args=(member,), name=f"from {name}", daemon=True).start()
        self.tell(member, first_line)
        return member

    def tell(self, member: Member, line: JsonObject) -> None:
        """Send one line; a child that has gone will be noticed by the end of its output."""
        assert member.process.stdin is not None
        try:
            member.process.stdin.write(json.dumps(line) + "\n")
        except OSError:
            return

    def _read(self, member: Member) -> None:
        assert member.process.stdout is not None
        for line in member.process.stdout:
            self._inbox.put((member, line))
        self._inbox.put((member, None))

    def hear(self, *, timeout_s: float = 0.2) -> None:
        """Take in what has been said, for at most ``timeout_s``, and show the launcher that we live."""
        if time.monotonic() - self._beat_at >= HEARTBEAT_EVERY_S:
            self._beat_at = time.monotonic()
            self._speaker.say(HEARTBEAT)
        try:
            member, line = self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            return
        if line is None:
            self._note_end(member)
        else:
            self._take(member, line)

    def _take(self, member: Member, line: str) -> None:
        try:
            event = event_from_line(line)
        except ValueError:
            self._speaker.say("line.torn", child=member.name, line=line[:200])
            return
        if event.kind == PULSE:
            note_pulse(member.sign, event.data, now_s=time.monotonic())
            return
        self._speaker.pass_on(event)
        if event.kind == "worker.ready":
            member.is_ready = True
        elif event.kind in ("round.done", "worker.failed"):
            member.sign.is_busy = False
            member.is_gone = member.is_gone or event.kind == "worker.failed"
        elif not member.is_worker and event.kind in HEARD:
            self.heard.append(event)

    def _note_end(self, member: Member) -> None:
        if member.is_gone:
            return
        member.is_gone, member.sign.is_busy = True, False
        with contextlib.suppress(subprocess.TimeoutExpired):
            member.process.wait(timeout=END_GRACE_S)
        code = member.process.returncode  # None: it closed its output and lives on
        other = "sampler.died" if member.name == SAMPLER else "tool.died"
        kind = "worker.died" if member.is_worker else other
        self._speaker.say(kind, device=member.name, exit_code=code)

    def end(self, member: Member) -> None:
        """End a child for certain; one that SIGKILL cannot end is stuck in the kernel, and named."""
        member.is_gone, member.sign.is_busy = True, False
        # Where one is stuck, others are too: they need not all be waited for that long.
        graces_s = (END_GRACE_S,) if self._is_one_stuck else (END_GRACE_S, STUCK_GRACE_S)
        if not any(end_child(member.process, grace_s=grace_s) for grace_s in graces_s):
            self._is_one_stuck = True
            self._speaker.say("process.stuck", device=member.name, pid=member.process.pid)

    def end_all(self) -> None:
        """End every child."""
        for member in self.members:
            self.end(member)

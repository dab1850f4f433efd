"""Launches the agent on this machine and carries what it says into the record.

The agent's standard input stays open as its lifeline. An agent that gives no sign of life, or is not done in
time, is ended; what it has said until then is in the record and is judged.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from burnin.node.agent import READY_WITHIN_S, STAGE_GRACE_S
from burnin.node.crew import HEARTBEAT
from burnin.node.order import LOADED_STAGES, Order, order_to_line
from probes.child import end_child, python_module, start_child
from probes.event import SAMPLE, Event, event_from_line
from reports.record import RunWriter, open_for_append

# The agent's heart beats every second; ending a child that is stuck in the kernel takes it a few seconds.
SILENCE_S = 20.0
ROUNDS_S_MAX = 600.0  # the agent's grace for the rounds of all stages of a cycle, on sixteen GPUs
LOG_FILE = "agent.log"


def launch(
    order: Order, writer: RunWriter, *, on_event: Callable[[Event], None], silence_s: float = SILENCE_S
) -> None:
    """Run one order on this machine; return when the agent has finished, or has been ended.

    Raises:
        RecordError: the record can no longer be written.
        Interrupted: somebody stopped us. In both cases nothing is left running.
    """
    log = open_for_append(writer.path / LOG_FILE)
    try:
        agent = start_child(python_module("burnin.node.agent"), stderr=log)
    finally:
        os.close(log)
    try:
        assert agent.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # an agent that is gone already is seen by its silence
            agent.stdin.write(order_to_line(order))
        _carry(agent, writer, on_event, deadline_s=longest_s(order), silence_s=silence_s)
    finally:
        is_gone = end_child(agent)
    if not is_gone:
        writer.event("launcher", "process.stuck", device="agent", pid=agent.pid)


def longest_s(order: Order) -> float:
    """Return the time after which an agent with this order must be done, all its own deadlines used up."""
    stages_s = sum(
        (2 * stage.length_s + STAGE_GRACE_S) * (order.cycles if stage.name in LOADED_STAGES else 1)
        for stage in order.stages
    )
    stages_s += ROUNDS_S_MAX * order.cycles
    return READY_WITHIN_S + stages_s + 2 * STAGE_GRACE_S


def _carry(
    agent: subprocess.Popen[str],
    writer: RunWriter,
    on_event: Callable[[Event], None],
    *,
    deadline_s: float,
    silence_s: float,
) -> None:
    """Write each line into the record until the agent has finished, is silent for too long, or is late."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(agent, lines), name="from agent", daemon=True).start()
    deadline = time.monotonic() + deadline_s
    while True:
        try:
            line = lines.get(timeout=min(silence_s, max(deadline - time.monotonic(), 0.01)))
        except queue.Empty:
            reason = "its time was up" if time.monotonic() >= deadline else f"silent for {silence_s:.0f} s"
            writer.event("launcher", "agent.lost", reason=reason)
            return
        if line is None:
            code = agent.poll()
            writer.event("launcher", "agent.lost", reason=f"it ended before it was done, exit code {code}")
            return
        if _take(line, writer, on_event):
            return


def _read(agent: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    assert agent.stdout is not None
    with agent.stdout as said:
        for line in said:
            lines.put(line)
    lines.put(None)


def _take(line: str, writer: RunWriter, on_event: Callable[[Event], None]) -> bool:
    """Put one line where it belongs; return whether it was the last."""
    try:
        event = event_from_line(line)
    except ValueError:
        writer.event("launcher", "line.torn", child="agent", line=line[:200])
        return False
    if event.kind == HEARTBEAT:
        return False
    if event.kind == SAMPLE:
        writer.sample(event.source, {"t_ns": event.t_ns, "host": event.host, **event.data})
    else:
        writer.append_event(event)
    on_event(event)
    return event.kind == "agent.finished"


def log_tail(folder: Path, *, lines: int = 5) -> str:
    """Return the last lines that the agent and its children wrote to standard error."""
    try:
        text = (folder / LOG_FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])

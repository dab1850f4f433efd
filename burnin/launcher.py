"""Launches the agent on this machine and carries what it says into the record.

The agent's standard input stays open as its lifeline. An agent that gives no sign of life, or is not done in
time, is ended; what it has said until then is in the record and is judged.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from burnin.fleet.archive import build_archive
from burnin.fleet.carry import LOG_FILE, SILENCE_S, Carrier
from burnin.fleet.host import Access, Host
from burnin.fleet.launchers.channel import ARCHIVE, Program
from burnin.fleet.launchers.local import LocalLauncher
from burnin.node.agent import READY_WITHIN_S, STAGE_GRACE_S
from burnin.node.order import LOADED_STAGES, Order
from probes.errors import TargetError
from probes.event import Event
from reports.record import RunWriter

BEGIN_WITHIN_S = 30.0
ROUNDS_S_MAX = 600.0  # the agent's grace for the rounds of all stages of a cycle, on sixteen GPUs


def launch(
    order: Order, writer: RunWriter, *, on_event: Callable[[Event], None], silence_s: float = SILENCE_S
) -> None:
    """Run one order on this machine; return when the agent has finished, or has been ended.

    Raises:
        RecordError: the record can no longer be written.
        Interrupted: somebody stopped us. In both cases nothing is left running.
    """
    host, launcher = Host(name=os.uname().nodename, access=Access(launcher="local")), LocalLauncher()
    try:
        channel = launcher.start(host, agent_program(), within_s=BEGIN_WITHIN_S)
        carrier = Carrier(
            channel=channel, writer=writer, host=host.name, on_event=on_event, silence_s=silence_s
        )
        carrier.carry(order, deadline_s=longest_s(order))
    except TargetError as error:
        writer.event("launcher", "agent.lost", reason=str(error))
    finally:
        stuck = launcher.close()
    for pid in stuck:
        writer.event("launcher", "process.stuck", device="agent", pid=pid)


def agent_program() -> Program:
    """Return the agent, as it starts on any host."""
    return Program(arguments=(ARCHIVE, "burnin.node.agent"), archive=build_archive())


def longest_s(order: Order) -> float:
    """Return the time after which an agent with this order must be done, all its own deadlines used up."""
    stages_s = sum(
        (2 * stage.length_s + STAGE_GRACE_S) * (order.cycles if stage.name in LOADED_STAGES else 1)
        for stage in order.stages
    )
    stages_s += ROUNDS_S_MAX * order.cycles
    return READY_WITHIN_S + stages_s + 2 * STAGE_GRACE_S


def log_tail(folder: Path, *, lines: int = 5) -> str:
    """Return the last lines that the agent and its children wrote to standard error."""
    try:
        text = (folder / LOG_FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])

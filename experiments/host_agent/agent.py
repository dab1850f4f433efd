"""What answers on a host: one JSON object a line in, one out, over the connection that started it.

Nothing is broken before its undo is on this disk and a timer has proven that it would carry it out.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from experiments.host_agent import permission
from experiments.host_agent.armed import SEEN, Armed, armed_of, boot_id, boottime_s, every_armed, make_armed
from experiments.host_agent.carries import what_it_carries
from experiments.host_agent.fault import HostFault, Refused
from experiments.host_agent.faults import FAULTS, load_host_fault
from experiments.host_agent.faults.process import select
from experiments.host_agent.timer import start_timer, why_not_ready
from probes.child import process_state

SILENCE_S = 60  # after which the line counts as cut: whoever is there says something more often
LATER_S = 0.5  # until a fault that cuts our connection begins: the answer is out by then
_LEFT_S_MIN = 1.0


class Agent:
    """Answers orders; ``base`` is our folder on this host."""

    def __init__(self, base: Path, archive: Path) -> None:
        self._base = base
        self._archive = archive
        self._lock = permission.HostLock(base)
        self._orders: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "look": self.look,
            "processes": self.processes,
            "capture": self.capture,
            "hold": self.hold,
            "release": self.release,
            "arm": self.arm,
            "inject": self.inject,
            "verify": self.verify,
            "healed": self.healed,
            "undo": self.undo,
        }

    def answer(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry one order out; whatever goes wrong becomes an answer."""
        try:
            return {"ok": self._orders[order["do"]](order)}
        except Refused as error:
            return {"refused": str(error)}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def look(self, order: dict[str, Any]) -> dict[str, Any]:
        """Say what this host is, what is armed here, and who may break what.

        What is overdue and has no timer any more, as after a reboot, is undone now.
        """
        for armed in every_armed(self._base):
            if armed.is_pending and armed.left_s <= 0 and why_not_ready(armed):
                with contextlib.suppress(Exception):  # it stays pending, and is said to be
                    armed.undo("a look at the host")
        faults = [str(name) for name in order.get("faults", ())]
        return {
            "boot_id": boot_id(),
            "boottime_s": boottime_s(),
            "name": socket.gethostname(),
            "user_id": os.geteuid(),
            "not_allowed": permission.why_not_allowed(self._base, faults),
            "taken": permission.why_taken(self._base, str(order.get("run", ""))),
            "carries": what_it_carries(),
            "armed": [_shown(armed) for armed in every_armed(self._base) if armed.order],
        }

    def processes(self, order: dict[str, Any]) -> dict[str, Any]:
        """Say which processes a selector names, and the state of each."""
        rows = [
            {"pid": found.pid, "start_time": found.start_time, "state": process_state(found.pid)}
            for found in select(order["arguments"])
        ]
        return {"processes": rows}

    def capture(self, order: dict[str, Any]) -> dict[str, Any]:
        """Return the state before a fault; nothing is touched."""
        fault = _fault(order)
        if missing := fault.missing(order["arguments"]):
            raise Refused("; ".join(missing))
        state = fault.capture(order["arguments"])
        carries = what_it_carries() if order.get("with_carries") else []
        return {"state": state, "boot_id": boot_id(), "boottime_s": boottime_s(), "carries": carries}

    def hold(self, order: dict[str, Any]) -> dict[str, Any]:
        """Keep other game days off this host until this connection ends."""
        if why := permission.why_taken(self._base, order["run"]):
            raise Refused(why)
        if who := self._lock.take(order["run"], order["by"]):
            raise Refused(f"another game day runs on it: {who}")
        return {}

    def release(self, order: dict[str, Any]) -> dict[str, Any]:
        """Let other game days onto this host again."""
        del order
        self._lock.give_back()
        return {}

    def arm(self, order: dict[str, Any]) -> dict[str, Any]:
        """Put the undo on the disk and start its timer; return once that has proven itself."""
        if order["boot_id"] != boot_id():
            raise Refused("the host was booted again since it was looked at")
        if why := permission.why_not_allowed(self._base, [order["fault"]]):
            raise Refused(why)
        if why := permission.why_taken(self._base, order["run"]):
            raise Refused(why)
        kept = ("id", "fault", "arguments", "state", "run", "by", "boot_id", "undo_at_boottime_s")
        armed = make_armed(
            self._base,
            {key: order[key] for key in kept} | {"t_ns": time.time_ns()},
            self._archive.read_bytes(),
        )
        try:
            timer = start_timer(armed, secrets.token_hex(8))
        except Refused:
            armed.undo("nothing was injected: no timer")
            raise
        return {"timer": timer, "left_s": armed.left_s}

    def inject(self, order: dict[str, Any]) -> dict[str, Any]:
        """Break what is armed, while its timer watches."""
        armed = armed_of(self._base, order["id"])
        with armed.alone():
            if not armed.is_pending:
                raise Refused("it is not armed here, or has been undone")
            if why := why_not_ready(armed):
                raise Refused(f"its timer does not watch: {why}")
            if armed.left_s < _LEFT_S_MIN:
                raise Refused(f"its timer undoes it in {armed.left_s:.1f} s: too soon; raise undo_after_s")
            if armed.order["state"].get("may_cut_ssh"):
                _inject_later(armed)
                return {"is_later": True}
            load_host_fault(armed.order["fault"]).inject(armed.order["state"])
        return {"is_later": False}

    def verify(self, order: dict[str, Any]) -> dict[str, Any]:
        """Say whether the fault is there; of one that has cut us off, what was seen then."""
        armed = armed_of(self._base, order["id"])
        if armed.order["state"].get("may_cut_ssh"):
            return armed.read(SEEN) or {"is_verified": False, "observed": "nothing was seen of it yet"}
        is_verified, observed = load_host_fault(armed.order["fault"]).verify(armed.order["state"])
        return {"is_verified": is_verified, "observed": observed}

    def healed(self, order: dict[str, Any]) -> dict[str, Any]:
        """Say whether the platform has healed it; our own undo is no healing."""
        armed = armed_of(self._base, order["id"])
        fault: Any = load_host_fault(armed.order["fault"])
        is_healed, observed = fault.healed(armed.order["state"])
        return {"is_healed": is_healed and not armed.undone, "observed": observed}

    def undo(self, order: dict[str, Any]) -> dict[str, Any]:
        """Put a fault back, from what is on this disk, or where that is gone from what we were given."""
        armed = armed_of(self._base, order["id"])
        if armed.order:
            return armed.undo(order["by"])
        is_restored, did, has_acted = _fault(order).undo(order["state"])
        did = f"it was not armed on the host: {did}"
        return {
            "is_restored": is_restored,
            "did": did,
            "has_acted": has_acted,
            "by": order["by"],
            "ago_s": 0.0,
        }


def _fault(order: dict[str, Any]) -> HostFault:
    if order["fault"] not in FAULTS:
        raise Refused(f"{order['fault']!r} is no fault; there are {', '.join(FAULTS)}")
    return load_host_fault(order["fault"])


def _shown(armed: Armed) -> dict[str, Any]:
    order = armed.order
    row = {
        "id": order["id"],
        "fault": order["fault"],
        "subject": order["state"]["subject"],
        "run": order["run"],
    }
    return row | {"left_s": armed.left_s, "undone": armed.undone, "timer": why_not_ready(armed) or "watches"}


def _inject_later(armed: Armed) -> None:
    """Inject from a process of its own, which outlives our connection, and note what is seen."""
    if os.fork():
        return
    os.setsid()
    signal.alarm(0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    os.closerange(3, 64)
    status = 1
    try:
        time.sleep(LATER_S)
        with armed.alone():
            if armed.is_pending:
                fault = load_host_fault(armed.order["fault"])
                fault.inject(armed.order["state"])
                is_verified, observed = fault.verify(armed.order["state"])
                armed.write(SEEN, {"is_verified": is_verified, "observed": observed})
        status = 0
    except Exception as error:
        armed.write(SEEN, {"is_verified": False, "observed": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(status)


def serve(orders: IO[bytes], answers: IO[bytes], base: Path, archive: Path) -> None:
    """Answer until the line ends, or is silent for too long."""
    agent = Agent(base, archive)
    while True:
        signal.alarm(SILENCE_S)
        line = orders.readline()
        signal.alarm(0)
        if not line:
            return
        answers.write(json.dumps(agent.answer(json.loads(line))).encode() + b"\n")
        answers.flush()


def main(base: str, archive: str) -> None:
    """Serve our standard streams; what anybody prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers, Path(base), Path(archive))

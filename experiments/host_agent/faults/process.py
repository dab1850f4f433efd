"""Killing and stopping processes, chosen by a pattern over command lines, a pid file, or a systemd unit."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.host_agent.armed import boot_id
from experiments.host_agent.fault import Refused, run_command
from experiments.host_agent.processes import Found, ancestors, every_process, read_process, send, why_spared
from probes.child import is_alive, process_state, wait_until

_SELECTORS = ("pattern", "pid_file", "unit")
_TAKES_HOLD_WITHIN_S = 5.0
_BACK_WITHIN_S = 10.0  # after we have started it again
_SHOWN_CHARACTERS = 120
_SHOWN = 5
_TOOLS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def select(arguments: dict[str, Any]) -> list[Found]:
    """Return the processes that one selector names; those that nobody may hit make it a refusal.

    Raises:
        Refused: it names none, or one that may not be hit.
    """
    given = [key for key in _SELECTORS if arguments.get(key)]
    if len(given) != 1:
        raise Refused(f"one of {', '.join(_SELECTORS)} is wanted, got {', '.join(given) or 'none'}")
    ours = ancestors(os.getpid())
    found = matching(arguments)
    if given == ["pattern"]:  # the words of our own connection may hold anything: they are no match
        found = [f for f in found if f.pid not in ours or why_spared(f, ours=[])]
    for process in found:
        if why := why_spared(process, ours=ours):
            raise Refused(f"{given[0]} {arguments[given[0]]!r} names pid {process.pid}, and {why}")
    return found


def matching(arguments: dict[str, Any]) -> list[Found]:
    """Return the processes that a selector names now.

    Raises:
        Refused: it is no selector.
    """
    if pattern := arguments.get("pattern"):
        try:
            wanted = re.compile(str(pattern))
        except re.error as error:
            raise Refused(f"pattern {pattern!r}: no regular expression: {error}") from error
        return [f for f in every_process() if wanted.search(f.command)]
    if pid_file := arguments.get("pid_file"):
        pid = _read_pid(Path(str(pid_file)))
    else:
        status, said = run_command(["systemctl", "show", "-p", "MainPID", "--value", str(arguments["unit"])])
        if status:
            raise Refused(f"unit {arguments['unit']!r}: systemctl says: {said}")
        pid = int(said) if said.isdecimal() else 0
    found = read_process(pid) if pid > 0 else None
    return [] if found is None else [found]


def _read_pid(path: Path) -> int:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return 0
    return int(text) if text.isdecimal() else 0


def capture_processes(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return who would be hit, and how many may be.

    Raises:
        Refused: nobody, or more than ``count_max``.
    """
    found, count_max = select(arguments), int(arguments.get("count_max") or 1)
    key = next(key for key in _SELECTORS if arguments.get(key))
    if not found:
        raise Refused(f"{key} {arguments[key]!r} names no process that runs")
    if len(found) > count_max:
        shown = "; ".join(f"{f.pid} {f.command[:_SHOWN_CHARACTERS]}" for f in found[:_SHOWN])
        raise Refused(
            f"{key} {arguments[key]!r} names {len(found)} processes, at most {count_max} may be hit "
            f"(count_max): {shown}"
        )
    rows: list[dict[str, Any]] = [
        {"pid": f.pid, "start_time": f.start_time, "command": f.command} for f in found
    ]
    shown = ", ".join(f"{row['command'][:_SHOWN_CHARACTERS]} (pid {row['pid']})" for row in rows)
    return {
        "subject": f"process:{shown}",
        "identity": {"processes": rows},
        "selector": {key: arguments[key]},
        "processes": [row | _surroundings(int(row["pid"])) for row in rows],
        "boot_id": boot_id(),
    }


def _surroundings(pid: int) -> dict[str, Any]:
    folder = Path(f"/proc/{pid}")
    try:
        status = folder.stat()
        where = str((folder / "cwd").readlink())
    except OSError as error:
        raise Refused(f"pid {pid}: cannot be looked at: {error.strerror}; who logs in must own it, or be root"
        ) from error  # fmt: skip
    return {"uid": status.st_uid, "gid": status.st_gid, "cwd": where}


def _missing(arguments: dict[str, Any]) -> list[str]:
    if arguments.get("unit"):
        return [] if run_command(["systemctl", "--version"])[0] == 0 else ["systemctl is not there"]
    return []


def _hit(state: dict[str, Any], number: signal.Signals) -> None:
    for row in state["processes"]:
        if not send(row["pid"], row["start_time"], number):
            raise Refused(f"pid {row['pid']} was gone before it was hit: {row['command']}")


def _pids(state: dict[str, Any]) -> str:
    return ", ".join(str(row["pid"]) for row in state["processes"])


@dataclass(frozen=True)
class Kill:
    """SIGKILL. Who is to start it again is the platform's affair; undoing does where it has not.

    Takes ``pattern``, ``pid_file`` or ``unit``; ``count_max``; ``restart``, the words that start it again; or
    ``supervisor``, the name of who does, where nothing on this host could.
    """

    name: str = "process.kill"

    def missing(self, arguments: dict[str, Any]) -> list[str]:
        """Say what must be there and is not."""
        return _missing(arguments)

    def capture(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return whom it would hit, and what would start it again."""
        state = capture_processes(arguments)
        restart = [str(word) for word in arguments.get("restart") or []]
        if arguments.get("unit") and not restart:
            restart = ["systemctl", "start", str(arguments["unit"])]
        if not restart and not arguments.get("supervisor"):
            raise Refused(
                "nothing would start it again if the platform does not: give restart (its words), a unit, or "
                "supervisor (who does)"
            )
        return state | {"restart": restart, "supervisor": str(arguments.get("supervisor") or "")}

    def inject(self, state: dict[str, Any]) -> None:
        """Kill those very processes."""
        _hit(state, signal.SIGKILL)

    def verify(self, state: dict[str, Any]) -> tuple[bool, str]:
        """See that they are gone; a new one is another process."""
        wait_until(lambda: not _alive(state), timeout_s=_TAKES_HOLD_WITHIN_S, interval_s=0.01)
        alive = _alive(state)
        return not alive, f"pid {alive} still runs" if alive else f"pid {_pids(state)} is gone"

    def healed(self, state: dict[str, Any]) -> tuple[bool, str]:
        """See whether as many run as before, none of them one that was hit."""
        hit = {(row["pid"], row["start_time"]) for row in state["processes"]}
        new = [f for f in matching(state["selector"]) if (f.pid, f.start_time) not in hit]
        new = [f for f in new if not why_spared(f, ours=ancestors(os.getpid()))]
        wanted = len(hit)
        if len(new) >= wanted:
            return True, f"runs again as pid {', '.join(str(f.pid) for f in new)}"
        return False, f"{len(new)} of {wanted} run again"

    def undo(self, state: dict[str, Any]) -> tuple[bool, str, bool]:
        """See that as many run as before; start them again where the platform has not."""
        rebooted = state["boot_id"] != boot_id()
        alive = [] if rebooted else _alive(state)
        if len(alive) == len(state["processes"]):
            return True, f"nothing to do: pid {_pids(state)} runs, it was not hit", False
        is_healed, seen = self.healed(state)
        if is_healed:
            return True, f"nothing to do: it {seen}", False
        if not state["restart"]:
            return False, f"{seen}; {state['supervisor']} was to start it, and we have no words to", False
        for row in state["processes"][len(alive) :]:
            _start(state["restart"], row)
        back = wait_until(lambda: self._is_whole(state), timeout_s=_BACK_WITHIN_S, interval_s=0.1)
        return back, f"{' '.join(state['restart'])}: {self.healed(state)[1]}", True

    def _is_whole(self, state: dict[str, Any]) -> bool:
        return len(_alive(state)) == len(state["processes"]) or self.healed(state)[0]


def _alive(state: dict[str, Any]) -> list[int]:
    return [row["pid"] for row in state["processes"] if is_alive(row["pid"], row["start_time"])]


def _start(words: list[str], row: dict[str, Any]) -> None:
    """Start a process where the one that was hit stood, as who it was."""
    is_root = os.geteuid() == 0
    child = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=row["cwd"] if Path(row["cwd"]).is_dir() else "/",
        env={"PATH": _TOOLS},
        user=row["uid"] if is_root else None,
        group=row["gid"] if is_root else None,
        extra_groups=[] if is_root else None,
    )
    deadline = time.monotonic() + 1.0
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    child.returncode = child.returncode or 0  # it stays, on purpose: Popen must not warn


@dataclass(frozen=True)
class Stop:
    """SIGSTOP: connections stay open and nothing answers. Takes ``pattern``, ``pid_file`` or ``unit``."""

    name: str = "process.stop"

    def missing(self, arguments: dict[str, Any]) -> list[str]:
        """Say what must be there and is not."""
        return _missing(arguments)

    def capture(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return whom it would hit; one that is stopped already cannot be."""
        state = capture_processes(arguments)
        stopped = [row["pid"] for row in state["processes"] if process_state(row["pid"]) in ("T", "t")]
        if stopped:
            raise Refused(f"pid {stopped} is stopped already")
        return state

    def inject(self, state: dict[str, Any]) -> None:
        """Stop those very processes."""
        _hit(state, signal.SIGSTOP)

    def verify(self, state: dict[str, Any]) -> tuple[bool, str]:
        """See in /proc that each of them is stopped."""
        pids = [row["pid"] for row in state["processes"]]
        wait_until(
            lambda: all(process_state(pid) == "T" for pid in pids),
            timeout_s=_TAKES_HOLD_WITHIN_S,
            interval_s=0.01,
        )
        states = {pid: process_state(pid) or "gone" for pid in pids}
        seen = ", ".join(f"pid {pid} is in state {state}" for pid, state in states.items())
        return all(state == "T" for state in states.values()), seen

    def undo(self, state: dict[str, Any]) -> tuple[bool, str, bool]:
        """Let those go on that are still there and stopped."""
        if state["boot_id"] != boot_id():
            return True, "nothing to do: the host was booted again", False
        stopped = [row for row in state["processes"] if _is_stopped(row)]
        for row in stopped:
            send(row["pid"], row["start_time"], signal.SIGCONT)
        wait_until(
            lambda: not any(map(_is_stopped, stopped)), timeout_s=_TAKES_HOLD_WITHIN_S, interval_s=0.01
        )
        left = [row["pid"] for row in state["processes"] if _is_stopped(row)]
        if left:
            return False, f"pid {left} is still stopped", True
        gone = [row["pid"] for row in state["processes"] if not is_alive(row["pid"], row["start_time"])]
        did = f"pid {', '.join(str(row['pid']) for row in stopped)} goes on" if stopped else "nothing to do"
        return True, did + (f"; pid {gone} is gone" if gone else ""), bool(stopped)


def _is_stopped(row: dict[str, Any]) -> bool:
    return is_alive(row["pid"], row["start_time"]) and process_state(row["pid"]) == "T"


KILL = Kill()
STOP = Stop()

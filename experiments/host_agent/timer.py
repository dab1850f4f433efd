"""The timer on a host: it undoes one armed fault when its time is up, with nobody's help.

A process in a session of its own, which neither the end of our connection nor of sshd ends. Its clock is
CLOCK_BOOTTIME: nobody can set it. It undoes at once where the machine was booted again meanwhile, and when it
is told to leave. Where undoing fails it tries again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from experiments.host_agent.armed import ARCHIVE, LOG, TIMER, Armed, armed_of, boottime_s
from experiments.host_agent.fault import Refused
from experiments.host_agent.faults import load_host_fault
from experiments.host_agent.systemd import has_systemd, remove_unit, start_unit
from probes.child import is_alive, process_start_time

READY_WITHIN_S = 20.0
MODULE = "experiments.host_agent.timer"
_POLL_S = 0.2
_BETWEEN_TRIES_S = 1.0
_BETWEEN_TRIES_S_MAX = 60.0
_TRY_FOR_S = 7 * 86400.0


def start_timer(armed: Armed, nonce: str) -> dict[str, Any]:
    """Start the timer of an armed fault; return what it says of itself, once it has proven that it watches.

    Raises:
        Refused: it does not; nothing may be broken.
    """
    base, entry_id = armed.folder.parent.parent, armed.folder.name
    words = [sys.executable, "-I", "-S", str(armed.folder / ARCHIVE), MODULE, str(base), entry_id, nonce]
    if has_systemd():
        start_unit(entry_id, words)
    else:
        _start_process(words, armed.folder / LOG)
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if not (why := why_not_ready(armed, nonce)):
            return armed.read(TIMER)
        time.sleep(0.02)
    said = (armed.folder / LOG).read_text(errors="replace").strip()[-300:] if not has_systemd() else ""
    raise Refused(f"no timer that undoes could be started: {why} {said}; nothing is broken")


def why_not_ready(armed: Armed, nonce: str = "") -> str:
    """Say what is wrong with the timer of an armed fault; empty: it watches."""
    row = armed.read(TIMER)
    if not row or (nonce and row["nonce"] != nonce):
        return "it has not said that it watches"
    if not is_alive(row["pid"], row["start_time"]):
        return f"its process {row['pid']} is gone"
    if row["session"] == os.getsid(0):
        return "it is in the session of our connection"
    return ""


def _start_process(words: list[str], log: Path) -> None:
    with log.open("ab") as output:
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/"
        )
    child.returncode = 0  # it outlives us on purpose: Popen must neither wait for it nor warn


def prove(armed: Armed, nonce: str) -> None:
    """Show that this process could undo: it reads the order, has the fault's code, and its clock goes.

    Raises:
        Refused: it could not.
    """
    order, before = armed.order, boottime_s()
    if not order:
        raise Refused("there is no order")
    if missing := load_host_fault(order["fault"]).missing(order["arguments"]):
        raise Refused("; ".join(missing))
    time.sleep(0.02)
    if boottime_s() <= before:
        raise Refused("CLOCK_BOOTTIME stands still")
    me = os.getpid()
    row = {"pid": me, "start_time": process_start_time(me), "session": os.getsid(0), "nonce": nonce}
    armed.write(TIMER, row)


def watch(armed: Armed) -> bool:
    """Wait until the time is up or somebody has undone it; return whether it is put back."""
    is_told_to_leave = False

    def leave(number: int, frame: object) -> None:
        del number, frame
        nonlocal is_told_to_leave
        is_told_to_leave = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    wait_s, next_at, give_up_at = _BETWEEN_TRIES_S, 0.0, boottime_s() + armed.left_s + _TRY_FOR_S
    while armed.is_pending and boottime_s() < give_up_at:
        if (is_told_to_leave or armed.left_s <= 0) and boottime_s() >= next_at:
            if _try_to_undo(armed):
                return True
            next_at, wait_s = boottime_s() + wait_s, min(wait_s * 2, _BETWEEN_TRIES_S_MAX)
        time.sleep(_POLL_S)
    return not armed.is_pending


def _try_to_undo(armed: Armed) -> bool:
    try:
        done = armed.undo("timer on the host")
    except Exception as error:  # whatever it is: the next try may go well, and nobody else is there
        done = {"is_restored": False, "did": f"{type(error).__name__}: {error}"}
    with contextlib.suppress(OSError):  # the disk with the log may be full, and the next try must come
        sys.stderr.write(f"{done['did']}\n")
        sys.stderr.flush()
    return bool(done["is_restored"])


def main(arguments: list[str]) -> int:
    """Watch one armed fault."""
    base, entry_id, nonce = arguments
    with contextlib.suppress(OSError):  # what presses on memory must not end who undoes it
        Path("/proc/self/oom_score_adj").write_text("-1000")
    armed = armed_of(Path(base), entry_id)
    prove(armed, nonce)
    is_undone = watch(armed)
    if is_undone and has_systemd():
        remove_unit(entry_id)
    return 0 if is_undone else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A value that DCGM never measured: ``dcgmi test --inject``. Synthetic: only who asks DCGM sees it.

DCGM stamps an injected value four seconds ahead, and takes what it measures for newer after that. So a
process of its own injects again every second, until it is ended or its time is over. Every client of DCGM on
the host sees the value.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.host_agent.fault import Refused, run_command

EVERY_S = 1.0
FOR_S_MAX = 3600.0
AGES_OUT_WITHIN_S = 12.0  # the four seconds ahead, and the interval at which DCGM measures
_WITHIN_S = 20.0
_POLL_S = 0.5
_PROCESS_WITHIN_S = 10.0
_INJECTED = "Successfully injected"
_MARK = "OVERPROOF_DCGM"  # in its environment, and so in that of each injection under way
# By itself, since what travelled may be gone while it runs. Arguments: mark, seconds, interval, command.
_AGAIN = """
import subprocess, sys, time
end, every = time.monotonic() + float(sys.argv[2]), float(sys.argv[3])
while time.monotonic() < end:
    try:
        subprocess.run(sys.argv[4:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20)
    except subprocess.TimeoutExpired:
        pass
    time.sleep(every)
"""


@dataclass(frozen=True)
class Inject:
    """Injects ``value`` into ``field`` (its number) of GPU ``number`` of DCGM, for ``for_s`` at most."""

    name: str = "gpu.dcgm-inject"
    dcgmi: str = "dcgmi"
    ages_out_within_s: float = AGES_OUT_WITHIN_S

    def missing(self, arguments: dict[str, Any]) -> list[str]:
        """Say what must be there and is not."""
        del arguments
        status, said = run_command([self.dcgmi, "discovery", "-l"], deadline_s=_WITHIN_S)
        if status == 127:
            return ["dcgmi is not installed (package datacenter-gpu-manager)"]
        return [] if status == 0 else [f"DCGM's daemon does not answer: {said}"]

    def capture(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return what DCGM tells of that field now."""
        given = {key: arguments.get(key) for key in ("number", "field", "value")}
        for key, value in given.items():
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or (key != "value" and value < 0)
            ):
                raise Refused(f"{key}: wanted a number, got {value!r}")
        for_s = float(arguments.get("for_s") or 600.0)
        if not 0 < for_s <= FOR_S_MAX:
            raise Refused(f"for_s: wanted seconds, more than 0 and at most {FOR_S_MAX:g}, got {for_s:g}")
        state = {
            "number": int(arguments["number"]),
            "field": int(arguments["field"]),
            "value": f"{arguments['value']:g}",
            "for_s": for_s,
            "mark": f"overproof-dcgm-{secrets.token_hex(8)}",
        }
        before = self._read(state)
        if before is None:
            raise Refused(f"DCGM does not tell field {state['field']} of GPU {state['number']}")
        if _same(before, str(state["value"])):
            raise Refused(f"field {state['field']} of GPU {state['number']} is {before} already")
        return state | {"before": before, "subject": f"dcgm:gpu {state['number']}, field {state['field']}"}

    def inject(self, state: dict[str, Any]) -> None:
        """Inject it once, to see that DCGM takes it, and start the process that goes on."""
        status, said = run_command(self._words(state, str(state["value"])), deadline_s=_WITHIN_S)
        if status or _INJECTED not in said:
            raise Refused(f"DCGM did not take the value: {said}")
        subprocess.Popen(
            [
                *(sys.executable, "-I", "-c", _AGAIN, state["mark"], f"{state['for_s']:g}", f"{EVERY_S:g}"),
                *self._words(state, str(state["value"])),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {_MARK: state["mark"]},
        ).returncode = 0  # it stays, on purpose: Popen must not wait for it nor warn
        if not _wait_marked(state["mark"], is_wanted=True):  # undoing finds it by that mark alone
            raise Refused("the process that injects again did not start")

    def verify(self, state: dict[str, Any]) -> tuple[bool, str]:
        """Ask DCGM for the field, as its clients do."""
        now, runs = self._read(state), bool(_marked(state["mark"]))
        is_there = now is not None and _same(now, state["value"]) and runs
        going = "is" if runs else "is not"
        return is_there, f"DCGM tells {now} for {state['subject']}; it {going} injected again and again"

    def undo(self, state: dict[str, Any]) -> tuple[bool, str, bool]:
        """End the process, and wait until DCGM tells something else; what stays is set to what it was."""
        ended = _end(state["mark"])
        did = f"ended pid {', '.join(map(str, ended))}" if ended else "nothing to do"
        now = self._wait_for_another(state, self.ages_out_within_s)
        if now is not None and not _same(now, state["value"]) and not _marked(state["mark"]):
            return True, f"{did}: DCGM tells {now}", bool(ended)
        if _is_number(state["before"]):  # as with the last XID, which nothing that is measured replaces
            run_command(self._words(state, state["before"]), deadline_s=_WITHIN_S)
            now, did = self._wait_for_another(state, 0), f"{did}, injected {state['before']} again"
        is_restored = now is not None and not _same(now, state["value"]) and not _marked(state["mark"])
        return is_restored, f"{did}: DCGM tells {now}" + ("" if is_restored else "; restart its daemon"), True

    def _words(self, state: dict[str, Any], value: str) -> list[str]:
        where = ["--gpuid", str(state["number"]), "-f", str(state["field"])]
        return [self.dcgmi, "test", "--inject", *where, "-v", value]

    def _wait_for_another(self, state: dict[str, Any], within_s: float) -> str | None:
        deadline = time.monotonic() + within_s
        while (now := self._read(state)) is None or _same(now, state["value"]):
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        return now

    def _read(self, state: dict[str, Any]) -> str | None:
        """Return the field's last value; None: DCGM did not tell."""
        number = state["number"]
        command = [self.dcgmi, "dmon", "-e", str(state["field"]), "-i", str(number), "-c", "1"]
        status, said = run_command(command, deadline_s=_WITHIN_S)
        rows = re.findall(rf"^\s*(?:GPU\s+)?{number}\s+(\S+)\s*$", said, re.MULTILINE) if status == 0 else []
        return str(rows[-1]) if rows else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _same(one: str, other: str) -> bool:
    return one == other or (_is_number(one) and _is_number(other) and float(one) == float(other))


def _marked(mark: str) -> list[int]:
    """Return the processes that carry the mark: what injects again, and an injection that it has begun."""
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208
        try:
            held = Path("/proc", entry, "environ").read_bytes().split(b"\0") if entry.isdigit() else []
        except OSError:
            continue
        if f"{_MARK}={mark}".encode() in held:
            found.append(int(entry))
    return found


def _end(mark: str) -> list[int]:
    """End them and see that they are gone; return who they were."""
    ended = _marked(mark)
    for pid in ended:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    _wait_marked(mark, is_wanted=False)
    return ended


def _wait_marked(mark: str, *, is_wanted: bool) -> bool:
    """Wait until there is such a process, or none; a new one shows its mark a moment after its start."""
    deadline = time.monotonic() + _PROCESS_WITHIN_S
    while bool(_marked(mark)) is not is_wanted:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


INJECT = Inject()

"""A machine that is switched off through its management controller (IPMI, Redfish), by commands of the user.

It runs on another host, the one that the experiment names: the machine itself, once off, holds no timer. So
the timer that switches it on again is the other host's, and lives as long as that one does.
"""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass
from typing import Any

from experiments.host_agent.fault import Refused, run_command

COMMAND_WITHIN_S = 60.0
OFF_WITHIN_S = 60.0
ON_WITHIN_S = 60.0
_POLL_S = 1.0
# Commands are kept on the disk and in the record, where no password belongs.
_SECRET = re.compile(r"-P|--?pass(word|wd)?(=.*)?|[a-z]+://[^/\s]*:[^/\s]*@.*", re.IGNORECASE)


@dataclass(frozen=True)
class Off:
    """Runs ``switch_off`` and ``switch_on``; ``status`` prints what ``is_on`` and ``is_off`` match.

    The commands are lists of words. Passwords go into a file that they name.
    """

    name: str = "host.power"
    poll_s: float = _POLL_S

    def missing(self, arguments: dict[str, Any]) -> list[str]:
        """Say what must be there and is not: that the controller tells whether the machine is on."""
        words = arguments.get("status")
        if not isinstance(words, list) or not words:
            return []  # for capture to refuse
        status, said = run_command([str(word) for word in words], deadline_s=COMMAND_WITHIN_S)
        return [] if status == 0 else [f"the power of the machine cannot be asked for: {said or words[0]}"]

    def capture(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the commands, once the machine was seen to be on, and to be another one than this."""
        machine = str(arguments.get("machine") or "")
        if not machine:
            raise Refused("machine: none is named")
        if _is_this_host(machine):
            raise Refused(
                f"{machine} is the host that this would run on, and with it the timer that switches it on; "
                "run it on another host"
            )
        state: dict[str, Any] = {"subject": f"machine:{machine}", "machine": machine}
        for key in ("switch_off", "switch_on", "status"):
            state[key] = _words(arguments, key)
        for key, default in (("is_on", r"\b[Oo]n\b"), ("is_off", r"\b[Oo]ff\b")):
            state[key] = str(arguments.get(key) or default)
        is_on, said = self._is_on(state)
        if is_on is not True:
            raise Refused(f"{machine}: was to be on, and its controller says: {said}")
        return state

    def inject(self, state: dict[str, Any]) -> None:
        """Switch it off, if it is still on."""
        is_on, said = self._is_on(state)
        if is_on is not True:
            raise Refused(f"{state['machine']}: was to be on, and its controller says: {said}")
        status, said = run_command(state["switch_off"], deadline_s=COMMAND_WITHIN_S)
        if status:
            raise Refused(f"{state['machine']} could not be switched off: {said}")

    def verify(self, state: dict[str, Any]) -> tuple[bool, str]:
        """Ask its controller until it is off."""
        is_seen, said = self._wait(state, False, OFF_WITHIN_S)
        return is_seen, f"{state['machine']}: its controller says: {said}"

    def undo(self, state: dict[str, Any]) -> tuple[bool, str, bool]:
        """Switch it on, if it is not; that it comes up again is for the experiment's own probes to see."""
        if self._is_on(state)[0] is True:
            return True, f"nothing to do: {state['machine']} is on", False
        _, complaint = run_command(state["switch_on"], deadline_s=COMMAND_WITHIN_S)
        is_seen, said = self._wait(state, True, ON_WITHIN_S)
        if is_seen:
            return True, f"switched {state['machine']} on", True
        return False, f"{state['machine']}: its controller says: {said}; {complaint}".rstrip("; "), True

    def _wait(self, state: dict[str, Any], is_wanted: bool, within_s: float) -> tuple[bool, str]:
        deadline = time.monotonic() + within_s
        while True:
            is_on, said = self._is_on(state)
            if is_on is is_wanted or time.monotonic() > deadline:
                return is_on is is_wanted, said
            time.sleep(self.poll_s)

    def _is_on(self, state: dict[str, Any]) -> tuple[bool | None, str]:
        """Return whether it is on; None: the answer says neither, or both."""
        status, said = run_command(state["status"], deadline_s=COMMAND_WITHIN_S)
        is_on, is_off = (bool(re.search(state[key], said)) for key in ("is_on", "is_off"))
        return (None if status or is_on == is_off else is_on), said


def _words(arguments: dict[str, Any], key: str) -> list[str]:
    words = arguments.get(key)
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise Refused(f"{key}: wanted a command as a list of words, got {words!r}")
    if any(_SECRET.fullmatch(word) for word in words):
        raise Refused(f"{key}: holds a password, which would be kept; let the command read it from a file")
    return words


def _is_this_host(machine: str) -> bool:
    names = {socket.gethostname(), socket.getfqdn(), "localhost"}
    if machine in names or machine.partition(".")[0] in {name.partition(".")[0] for name in names}:
        return True
    try:
        addresses = {found[4][0] for found in socket.getaddrinfo(machine, None)}
    except OSError:
        return False  # a name that only its controller knows
    for address in addresses:
        try:
            family = socket.AF_INET6 if ":" in str(address) else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.bind((address, 0))  # only an address of our own can be bound
            return True
        except OSError:
            continue
    return False


OFF = Off()

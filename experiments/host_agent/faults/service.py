"""A service that is stopped: a unit of systemd, such as kubelet, nvidia-fabricmanager or slurmd."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

from experiments.host_agent.fault import Refused, run_command

STOP_WITHIN_S = 100.0  # systemd itself kills what does not stop within 90 s
START_WITHIN_S = 100.0
_SETTLED_WITHIN_S = 10.0
_POLL_S = 0.1
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.(service|socket|timer)")
# Without these nobody gets in any more, or the timer that undoes is gone as well.
_WAY_IN = re.compile(r"(ssh|sshd|NetworkManager|wpa_supplicant|networking)(@.*)?\.(service|socket)")
_OF_THE_SYSTEM = re.compile(r"(systemd-|dbus|polkit|overproof).*")
_PROPERTIES = ("Id", "LoadState", "ActiveState", "UnitFileState", "InvocationID", "TriggeredBy")
_TAKES_ALONG = ("RequiredBy", "BoundBy", "ConsistsOf")  # what systemd stops together with it
_UP = ("active", "reloading", "activating")


@dataclass(frozen=True)
class Stop:
    """Stops ``unit``; ``may_cut_ssh`` allows one without which nobody can log in."""

    name: str = "service.stop"
    systemctl: str = "systemctl"

    def missing(self, arguments: dict[str, Any]) -> list[str]:
        """Say what must be there and is not."""
        del arguments
        status, said = run_command([self.systemctl, "list-units", "--no-legend", "--type=target"])
        if status == 127:
            return ["systemctl is not installed: this host does not run systemd"]
        return [] if status == 0 else [f"systemd does not answer: {said}"]

    def capture(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return how the unit and those that stop with it are now."""
        unit = _unit(arguments)
        shown = self._show(unit)
        if shown["LoadState"] != "loaded":
            raise Refused(f"{unit}: systemd knows no such unit (it is {shown['LoadState'] or 'absent'})")
        if shown["ActiveState"] != "active":
            raise Refused(f"{unit} is {shown['ActiveState']}, not active: there is nothing to stop")
        # An alias names the same service: what it really is decides what may be done to it.
        real = _unit({**arguments, "unit": shown["Id"] or unit})
        also = [other for key in _TAKES_ALONG for other in shown[key].split() if other.endswith(".service")]
        active = sorted(other for other in set(also) if self._show(other)["ActiveState"] == "active")
        for other in active:
            _unit({**arguments, "unit": other})
        return {
            "subject": f"service:{real}" + (f" with {', '.join(active)}" if active else ""),
            "unit": real,
            "also": active,
            "enabled": shown["UnitFileState"],
            "invocation": shown["InvocationID"],
        }

    def inject(self, state: dict[str, Any]) -> None:
        """Tell systemd to stop it, and wait until it has."""
        now = self._show(state["unit"])
        if (now["ActiveState"], now["InvocationID"]) != ("active", state["invocation"]):
            raise Refused(f"{state['unit']} is no longer the one that was chosen: it is {now['ActiveState']}")
        status, said = run_command([self.systemctl, "stop", state["unit"]], deadline_s=STOP_WITHIN_S)
        if status:
            raise Refused(f"{state['unit']} could not be stopped: {said}")

    def verify(self, state: dict[str, Any]) -> tuple[bool, str]:
        """Ask systemd whether it is down."""
        shown = self._show(state["unit"])
        wakes = f"; {shown['TriggeredBy']} may start it again" if shown["TriggeredBy"] else ""
        is_down = shown["ActiveState"] in ("inactive", "failed")
        return is_down, f"{state['unit']} is {shown['ActiveState'] or 'unknown'}{wakes}"

    def undo(self, state: dict[str, Any]) -> tuple[bool, str, bool]:
        """Start what was active and is not; see that it is, and that it starts at boot as before."""
        started, down = [], []
        for unit in (state["unit"], *state["also"]):
            if self._show(unit)["ActiveState"] in _UP:
                continue
            run_command([self.systemctl, "reset-failed", unit])  # a limit of starts may be reached
            run_command([self.systemctl, "start", unit], deadline_s=START_WITHIN_S)
            started.append(unit)
        for unit in (state["unit"], *state["also"]):
            if not self._is_active(unit):
                down.append(unit)
        did = f"started {', '.join(started)}" if started else f"nothing to do: {state['unit']} runs"
        if down:
            return False, f"{did}; still not active: {', '.join(down)}", bool(started)
        enabled = self._show(state["unit"])["UnitFileState"]
        if enabled != state["enabled"]:  # we never change that; somebody else has
            did += f"; it was {state['enabled']} for the next boot and is {enabled} by somebody else"
        return True, did, bool(started)

    def _is_active(self, unit: str) -> bool:
        deadline = time.monotonic() + _SETTLED_WITHIN_S
        while (now := self._show(unit)["ActiveState"]) != "active":
            if now not in _UP or time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _show(self, unit: str) -> dict[str, str]:
        """Return some properties of a unit; all empty where systemd does not answer."""
        wanted = [*_PROPERTIES, *_TAKES_ALONG]
        _, said = run_command([self.systemctl, "show", f"--property={','.join(wanted)}", "--", unit])
        rows = (line.partition("=") for line in said.splitlines())
        return dict.fromkeys(wanted, "") | {key: value for key, _, value in rows if key in wanted}


def _unit(arguments: dict[str, Any]) -> str:
    unit = str(arguments.get("unit") or "")
    unit = unit if not unit or "." in unit else f"{unit}.service"
    if not _UNIT.fullmatch(unit) or unit.startswith("-"):
        raise Refused(f"unit: wanted one unit by its name, such as kubelet.service, got {unit!r}")
    if _OF_THE_SYSTEM.fullmatch(unit):
        raise Refused(f"{unit} is part of the system itself, which could not undo anything without it")
    if _WAY_IN.fullmatch(unit) and arguments.get("may_cut_ssh") is not True:
        raise Refused(f"{unit} is our own way in; say may_cut_ssh: true if that is meant")
    return unit


STOP = Stop()

"""What runs of a cluster, seen from the machine: its hosts, their services and wires."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from probes.child import wait_until
from tests.cluster.plan import CONTROL_PLANE, MARK, Clocks, Plan
from tests.processes import processes_with

_PLAN_FILE = "plan.json"


def write_plan(plan: Plan) -> None:
    """Write down what is about to be started, before anything of it is."""
    plan.folder.mkdir(parents=True)
    content = asdict(plan) | {"folder": str(plan.folder)}
    (plan.folder / _PLAN_FILE).write_text(json.dumps(content))


def read_plan(folder: Path) -> Plan | None:
    """Return the plan of the cluster in a folder; None where there is none."""
    try:
        content = json.loads((folder / _PLAN_FILE).read_text())
    except FileNotFoundError:
        return None
    clocks = Clocks(**content["clocks"])
    return Plan(folder=folder, network=content["network"], node_count=content["node_count"], clocks=clocks)


def processes_of(folder: Path) -> list[tuple[int, str]]:
    """Return pid and command of every process of a cluster, those in its containers apart."""
    return processes_with(f"{MARK}={folder}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """The hosts of a running cluster, and what can happen to one."""

    plan: Plan

    def pid(self, host: str) -> int:
        """Return the supervisor of a host, which is the first process in its namespaces."""
        listed = f"{self.plan.folder}/{host}/services.json"
        for pid, command in processes_of(self.plan.folder):
            if command.strip().endswith(listed) and "supervisor.py" in command:
                return pid
        raise ProcessLookupError(f"{host} does not run")

    def is_running(self, host: str) -> bool:
        """Say whether a host is switched on."""
        try:
            self.pid(host)
        except ProcessLookupError:
            return False
        return True

    def ask(self, host: str, *command: str, timeout_s: float = 60) -> str:
        """Run a command on a host and return what it printed."""
        enter = ["nsenter", "--target", str(self.pid(host)), "--mount", "--uts", "--ipc", "--net", "--pid"]
        done = subprocess.run(
            [*enter, *command],
            env=os.environ | {MARK: str(self.plan.folder)},  # removed with the cluster if we are killed
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{host}: {' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def service_pids(self, host: str, service: str) -> list[int]:
        """Return the processes of a service, as the machine numbers them."""
        settings = json.loads((self.plan.folder / host / "services.json").read_text())
        command = " ".join(settings[service])
        return [pid for pid, line in processes_of(self.plan.folder) if line.strip() == command]

    def stop_service(self, host: str, service: str) -> None:
        """Stop a service as ``systemctl stop`` does: the containers of the host live on."""
        self._stopped_file(host, service).touch()
        if not wait_until(lambda: not self.service_pids(host, service), timeout_s=20):
            raise RuntimeError(f"{host}: {service} does not stop")

    def start_service(self, host: str, service: str) -> None:
        """Let its supervisor start a service again."""
        self._stopped_file(host, service).unlink(missing_ok=True)
        if not wait_until(lambda: bool(self.service_pids(host, service)), timeout_s=20):
            raise RuntimeError(f"{host}: {service} does not start")

    def cut(self, node: str) -> None:
        """Cut the wire of a node: nothing passes, and nobody is told."""
        self.ask(CONTROL_PLANE, "ip", "link", "set", node, "down")

    def mend(self, node: str) -> None:
        """Plug the wire in again."""
        self.ask(CONTROL_PLANE, "ip", "link", "set", node, "up")

    def switch_off(self, node: str) -> None:
        """Take the power from a node, with all that runs on it."""
        self._stopped_file(CONTROL_PLANE, node).touch()
        try:
            os.kill(self.pid(node), signal.SIGKILL)
        except ProcessLookupError:
            return
        if not wait_until(lambda: not self.is_running(node), timeout_s=20):
            raise RuntimeError(f"{node} does not go off")

    def switch_on(self, node: str) -> None:
        """Give it power again: it starts anew, with the same disk."""
        self._stopped_file(CONTROL_PLANE, node).unlink(missing_ok=True)
        if not wait_until(lambda: self.is_running(node), timeout_s=20):
            raise RuntimeError(f"{node} does not come up")

    def _stopped_file(self, host: str, service: str) -> Path:
        return self.plan.folder / host / f"{service}.stopped"


def run_quietly(command: Sequence[str]) -> bool:
    """Run a command and say whether it succeeded."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0

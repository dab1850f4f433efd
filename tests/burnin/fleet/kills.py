"""A fleet whose controller is killed at random moments: what is left on the hosts, and whether it goes on."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from probes.child import wait_until
from reports.run import load_run
from tests.ssh_hosts import SshHost, SshHosts

PLAN = "device: cpu\ncpu_devices: 1\nduration_s: 6\nonly: [matmul]\nmatmul: {formats: [fp32]}\n"
GONE_WITHIN_S = 15.0
RANK = "burnin.node.trial_rank"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One kill of the controller and what came of it."""

    after_s: float  # since the controller was started
    stage: str  # the last thing that the record says
    gone_s: float  # until no process was left on any host; longer than GONE_WITHIN_S: there still were some
    left: tuple[str, ...]
    is_readable: bool  # the record could be opened, and says that it was interrupted


def write_fleet(folder: Path, hosts: SshHosts) -> None:
    """Write a fleet file of these hosts, and a short plan."""
    lines = ["name: killed", "defaults: {permission: listed, user: root, python: " + sys.executable + "}"]
    lines += ["groups:"]
    lines += [f"  - {{hosts: {host.name}, address: {host.address}}}" for host in hosts.hosts.values()]
    (folder / "fleet.yaml").write_text("\n".join(lines) + "\n")
    (folder / "plan.yaml").write_text(PLAN)


def start(folder: Path, hosts: SshHosts, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a controller; its output goes to ``folder/log``."""
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "overproof", "burnin", "run", *arguments],
            cwd=folder,
            env=os.environ | hosts.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def kill_once(folder: Path, hosts: SshHosts, arguments: Sequence[str], chance: random.Random) -> Kill:
    """Start a controller, kill it at a random moment after it began, and watch the hosts."""
    controller = start(folder, hosts, *arguments)
    began = time.monotonic()
    wait_until(lambda: any(h.programs() for h in hosts.hosts.values()), timeout_s=60, interval_s=0.02)
    time.sleep(chance.uniform(0.0, 8.0))
    return _kill(folder, hosts, controller, began)


def kill_among_ranks(folder: Path, hosts: SshHosts, arguments: Sequence[str]) -> Kill:
    """Start a controller, cut one host off when a rank of a trial runs on each, kill it, and watch the hosts.

    The one that was cut off hears of no end; its own sshd holds on to the connection and does not count.
    """
    controller = start(folder, hosts, *arguments)
    began = time.monotonic()
    wait_until(
        lambda: all(_has_rank(h) for h in hosts.hosts.values()) or controller.poll() is not None, timeout_s=90
    )
    assert controller.poll() is None, (folder / "log").read_text()
    cut_off = next(iter(hosts.hosts.values()))
    cut_off.cut()
    try:
        return _kill(folder, hosts, controller, began, of=SshHost.programs)
    finally:
        cut_off.mend()


def _has_rank(host: SshHost) -> bool:
    return any(RANK in command for command in host.programs())


def _kill(
    folder: Path,
    hosts: SshHosts,
    controller: subprocess.Popen[bytes],
    began: float,
    *,
    of: Callable[[SshHost], list[str]] = SshHost.processes,
) -> Kill:
    after_s = time.monotonic() - began
    controller.kill()
    controller.wait(timeout=10)
    killed = time.monotonic()
    wait_until(lambda: not any(of(host) for host in hosts.hosts.values()), timeout_s=GONE_WITHIN_S + 5)
    run = load_run(folder / "runs" / "latest")
    said = [e.kind for path in run.path.glob("hosts/*") for e in load_run(path).events]
    return Kill(
        after_s=after_s,
        stage=said[-1] if said else (run.events[-1].kind if run.events else "nothing"),
        gone_s=time.monotonic() - killed,
        left=tuple(command for host in hosts.hosts.values() for command in of(host)),
        is_readable=run.state == "interrupted",
    )


def complete(folder: Path, hosts: SshHosts) -> dict[str, object]:
    """Go on with the run until it is done; return what was printed."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "overproof", "burnin", "run", "--resume", "runs/latest", "--json"],
        cwd=folder,
        env=os.environ | hosts.environment(),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout))

"""Starts the burn-in of the hosts that a game day has hit: a process of its own, on just these hosts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.day import Day
from experiments.hosts.host import Host
from experiments.hosts.reaccept_judging import hosts_hit
from experiments.hosts.reaccept_spec import Reaccept
from experiments.injecting.ledger import read_ledger
from probes.child import end_child, python_module, start_child, wait_until
from probes.json_types import JsonObject
from reports.reacceptance import FOLDER
from reports.record import write_atomically

FLEET_FILE = f"{FOLDER}/fleet.yaml"
LOG = f"{FOLDER}.log"
END_WITHIN_S = 30.0  # of a burn-in that was told to end: its hosts' agents leave, and it is judged


def fleet_of(hosts: Sequence[Host], wanted: Reaccept, *, name: str) -> JsonObject:
    """Return a fleet file of these hosts, reached as the game day reaches them.

    They count as listed: the experiment asks for their burn-in while it holds them for itself.
    """
    expected = {} if wanted.gpus is None else {"gpus": wanted.gpus}
    defaults = {"launcher": "ssh", "permission": "listed"} | expected
    return {"name": name, "defaults": defaults, "groups": [_group(host) for host in hosts]}


def _group(host: Host) -> JsonObject:
    target = host.to_target()
    said = {
        "hosts": host.name,
        "address": target.address,
        "user": target.user,
        "port": target.port,
        "identity_file": target.identity_file,
        "proxy_jump": target.proxy_jump,
        "python": host.python,
        "wrapper": list(host.wrapper) or None,
    }
    return {key: value for key, value in said.items() if value is not None}


def start_burn_in(
    hosts: Sequence[Host], wanted: Reaccept, run: Path, *, seed: int, env: Mapping[str, str]
) -> subprocess.Popen[str]:
    """Start it, with its record in the folder of the game day's run; it leaves when we do."""
    fleet = run / FLEET_FILE
    fleet.parent.mkdir(exist_ok=True)
    # JSON is YAML, and needs no care for what a name may look like.
    write_atomically(fleet, json.dumps(fleet_of(hosts, wanted, name=run.name), indent=1) + "\n")
    options = ["--profile", wanted.profile, "--seed", str(seed), "--out", str(fleet.parent)]
    options += [] if wanted.duration_s is None else ["--duration-s", f"{wanted.duration_s:g}"]
    options += [] if wanted.plan is None else ["--plan", str(wanted.plan)]
    command = python_module(
        "overproof", "burnin", "run", str(fleet), *options, "--no-network", "--json", "--lifeline"
    )
    with (run / LOG).open("w") as log:
        return start_child(command, stdout=log, stderr=subprocess.STDOUT, env=env)


def reaccept(day: Day, wanted: Reaccept) -> None:
    """Burn in the hosts that were hit while no other game day can have them; judging reads the record."""
    hit = hosts_hit(read_ledger(day.folder))
    able = {name for name, entries in hit.items() if not any(entry.is_pending for entry in entries)}
    hosts = [host for host in day.experiment.target.hosts if host.name in able]
    names = ", ".join(host.name for host in hosts)
    if not hosts:
        return
    day.progress.step("re-acceptance", "running", f"burn-in {wanted.profile} of {names}")
    child = start_burn_in(hosts, wanted, day.folder, seed=day.seed, env=day.marked())
    day.event("reaccept.started", pid=child.pid, hosts=[host.name for host in hosts])
    try:
        is_over = wait_until(lambda: child.poll() is not None, timeout_s=wanted.within_s, interval_s=0.5)
    finally:
        end_child(child, grace_s=END_WITHIN_S)
    day.event("reaccept.ended", exit_status=child.poll(), is_in_time=is_over)
    day.progress.step("re-acceptance", "done" if child.poll() == 0 else "fail", names)

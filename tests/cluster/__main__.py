"""``python -m tests.cluster able | programs | up | down | status | run COMMAND``: the cluster of tests."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from probes.errors import Interrupted
from probes.interrupt import interrupt_on_signals
from tests.cluster.cluster import ClusterError, check_machine, leftovers, remove_cluster, say, start_cluster
from tests.cluster.host import NoControlGroupsError
from tests.cluster.plan import KUBECONFIG_VARIABLE, cluster_folder
from tests.cluster.programs import ProgramsMissingError, find_device_plugin, find_kwok, find_programs


def _up(folder: Path) -> int:
    if named := os.environ.get("KUBECONFIG"):
        say(f"KUBECONFIG names a cluster, which the tests use instead: {named}")
        return 0
    started, was_there = time.monotonic(), bool(leftovers(folder))
    try:
        plan = start_cluster(folder)
    except Interrupted:
        if not was_there:
            remove_cluster(folder)
        raise
    say(f"{plan.node_count} nodes ready after {time.monotonic() - started:.0f} s")
    sys.stdout.write(f"export KUBECONFIG={plan.kubeconfig}\n")
    return 0


def _down(folder: Path) -> int:
    remove_cluster(folder)
    return 0


def _status(folder: Path) -> int:
    found = leftovers(folder)
    for line in found or ["nothing runs"]:
        sys.stdout.write(f"{line}\n")
    return 0 if found else 1


def _able(_: Path) -> int:
    """Say whether a cluster can be had here, and exit by it: CI then runs its tests, or says why not."""
    check_machine()
    sys.stdout.write("a cluster can be started here\n")
    return 0


def _programs(_: Path) -> int:
    """Build what is not there yet, and say where each program is."""
    started = time.monotonic()
    found = find_programs() | {"kwok": find_kwok(), "device-plugin": find_device_plugin()}
    for name, path in found.items():
        sys.stdout.write(f"{name} {path}\n")
    say(f"{len(found)} programs there after {time.monotonic() - started:.0f} s")
    return 0


def _run(folder: Path, command: list[str]) -> int:
    """Run a command with the cluster, and remove it afterwards unless it was there before."""
    if named := os.environ.get("KUBECONFIG"):
        return _run_with(named, command)
    was_there = bool(leftovers(folder))
    try:
        return _run_with(str(start_cluster(folder).kubeconfig), command)
    finally:
        if not was_there:
            remove_cluster(folder)


def _run_with(kubeconfig: str, command: list[str]) -> int:
    names = {"KUBECONFIG": kubeconfig, KUBECONFIG_VARIABLE: kubeconfig}
    return subprocess.run(command, env=os.environ | names, check=False).returncode


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--folder", type=Path, default=cluster_folder(), help="Where it keeps its files.")
    parser.add_argument("verb", choices=["able", "programs", "up", "down", "status", "run"])
    parser.add_argument("command", nargs=argparse.REMAINDER, help="What run runs while the cluster is up.")
    options = parser.parse_args()
    verbs = {"up": _up, "down": _down, "status": _status, "programs": _programs, "able": _able}
    interrupt_on_signals()
    try:
        if options.verb == "run":
            return _run(options.folder, options.command)
        return verbs[options.verb](options.folder)
    except (ClusterError, NoControlGroupsError, ProgramsMissingError) as error:
        say(f"cluster: {error}")
        return 1
    except Interrupted:
        return 130


if __name__ == "__main__":
    sys.exit(_main())

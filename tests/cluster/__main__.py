"""``python -m tests.cluster able | programs | up | down | status | run COMMAND``: the cluster of tests.

``--clusters N run COMMAND`` runs it with several of them; ``pytest -n auto`` then has a worker for each.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from probes.child import wait_until
from probes.errors import Interrupted
from probes.interrupt import interrupt_on_signals
from tests.cluster.cluster import ClusterError, check_machine, leftovers, remove_cluster, say, start_cluster
from tests.cluster.host import NoControlGroupsError
from tests.cluster.plan import (
    CLUSTERS_MAX,
    KUBECONFIG_VARIABLE,
    KUBECONFIGS_VARIABLE,
    cluster_folder,
    cluster_folders,
)
from tests.cluster.programs import ProgramsMissingError, find_device_plugin, find_kwok, find_programs
from tests.cluster.running import read_plan

_LEAVE_S = 30.0  # that tests have to put back what they are at


def _up(folder: Path, node_count: int) -> int:
    if named := os.environ.get("KUBECONFIG"):
        say(f"KUBECONFIG names a cluster, which the tests use instead: {named}")
        return 0
    started, was_there = time.monotonic(), bool(leftovers(folder))
    try:
        plan = start_cluster(folder, node_count=node_count)
    except Interrupted:
        if not was_there:
            remove_cluster(folder)
        raise
    say(f"{plan.node_count} nodes ready after {time.monotonic() - started:.0f} s")
    sys.stdout.write(f"export KUBECONFIG={plan.kubeconfig}\n")
    return 0


def _down(folder: Path) -> int:
    _remove(each for each in cluster_folders(folder) if leftovers(each))
    return 0


def _remove(folders: Iterable[Path]) -> None:
    """Remove clusters side by side; one that cannot be removed keeps no other."""
    with ThreadPoolExecutor(CLUSTERS_MAX) as pool:
        for removal in [pool.submit(remove_cluster, folder) for folder in folders]:
            removal.result()


def _status(folder: Path) -> int:
    found = [line for each in cluster_folders(folder) for line in leftovers(each)]
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


def _run(folders: Sequence[Path], command: list[str]) -> int:
    """Run a command with clusters, and remove afterwards those that were not there before."""
    if named := os.environ.get("KUBECONFIG"):
        return _run_with([named], command)
    ours = [folder for folder in folders if not leftovers(folder)]
    try:
        return _run_with(_started(folders), command)
    finally:
        _remove(ours)


def _started(folders: Sequence[Path]) -> list[str]:
    """Start clusters side by side, each by a process that can be interrupted; return their kubeconfigs."""
    up = [[sys.executable, "-m", "tests.cluster", "--folder", str(folder), "up"] for folder in folders]
    starters = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in up]

    def are_settled() -> bool:
        statuses = [starter.poll() for starter in starters]
        return any(statuses) or None not in statuses

    try:
        wait_until(are_settled, timeout_s=math.inf)  # each has a deadline of its own
    finally:
        for starter in starters:
            starter.terminate()
        statuses = [starter.wait() for starter in starters]
    if any(statuses):
        raise ClusterError("not every cluster came up")
    plans = [read_plan(folder) for folder in folders]
    return [str(plan.kubeconfig) for plan in plans if plan is not None]


def _run_with(kubeconfigs: list[str], command: list[str]) -> int:
    names = {
        "KUBECONFIG": kubeconfigs[0],
        KUBECONFIG_VARIABLE: kubeconfigs[0],
        KUBECONFIGS_VARIABLE: os.pathsep.join(kubeconfigs),
        "PYTEST_XDIST_AUTO_NUM_WORKERS": str(len(kubeconfigs)),
    }
    with subprocess.Popen(command, env=os.environ | names) as child:
        try:
            return child.wait()
        except Interrupted as error:
            if str(error) != signal.SIGINT.name:  # which a terminal has sent it as well
                child.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=_LEAVE_S)
            child.kill()
            raise


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--folder", type=Path, default=cluster_folder(), help="Where it keeps its files.")
    parser.add_argument("--nodes", type=int, default=3, help="How many workers up starts.")
    parser.add_argument("--clusters", type=int, default=1, help="With how many run runs its command.")
    parser.add_argument("verb", choices=["able", "programs", "up", "down", "status", "run"])
    parser.add_argument("command", nargs=argparse.REMAINDER, help="What run runs while the cluster is up.")
    options = parser.parse_args()
    verbs = {"down": _down, "status": _status, "programs": _programs, "able": _able}
    interrupt_on_signals()
    try:
        if options.verb == "run":
            return _run(cluster_folders(options.folder, options.clusters), options.command)
        if options.verb == "up":
            return _up(options.folder, options.nodes)
        return verbs[options.verb](options.folder)
    except (ClusterError, NoControlGroupsError, ProgramsMissingError) as error:
        say(f"cluster: {error}")
        return 1
    except Interrupted:
        return 130


if __name__ == "__main__":
    sys.exit(_main())

"""A cluster is removed whole, whatever became of its starter, and the machine stays as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kubernetes import config

from probes.child import wait_until
from tests.cluster.cluster import leftovers, remove_cluster, start_cluster
from tests.cluster.plan import Plan
from tests.cluster.running import processes_of
from tests.cluster.workload import deploy, ready_pods

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
_ENVIRONMENT = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
_TUNABLES = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "net/ipv4/ip_forward")


def machine() -> dict[str, object]:
    """Return what of the machine's own a cluster must not change."""
    rules = subprocess.run(["iptables-save"], env=_ENVIRONMENT, capture_output=True, text=True, check=True)
    routes = subprocess.run(["ip", "route"], env=_ENVIRONMENT, capture_output=True, text=True, check=True)
    # Other tests may run beside this one, with wires and mounts of their own.
    return {
        "rules": [line for line in rules.stdout.splitlines() if not line.startswith(("#", ":"))],
        "routes": [line for line in routes.stdout.splitlines() if " opk" in line],
        "links": sorted(path.name for path in Path("/sys/class/net").glob("opk*")),
        "mounts": [
            line for line in Path("/proc/self/mounts").read_text().splitlines() if "overproof" in line
        ],
        "groups": sorted(str(path) for path in Path("/sys/fs/cgroup").glob("*/overproof-cluster-*")),
        **{name: Path("/proc/sys", name).read_text() for name in _TUNABLES},
    }


@pytest.mark.parametrize("service", ["kube-apiserver", "images import"])
def test_a_starter_that_is_killed_leaves_nothing_that_down_does_not_remove(
    tmp_path: Path, service: str
) -> None:
    folder, before = tmp_path / "cluster", machine()
    command = [sys.executable, "-m", "tests.cluster", "--folder", str(folder), "--nodes", "1", "up"]
    environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    starter = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)

    try:
        assert wait_until(lambda: any(service in line for _, line in processes_of(folder)), timeout_s=90)
        starter.send_signal(signal.SIGKILL)
        starter.wait(timeout=10)
        assert leftovers(folder)
    finally:
        starter.kill()
        starter.wait(timeout=10)
        remove_cluster(folder)

    assert leftovers(folder) == []
    assert machine() == before


def test_a_cluster_is_removed_with_its_pods(tmp_path: Path) -> None:
    folder, before = tmp_path / "cluster", machine()

    try:
        plan = start_cluster(folder, node_count=1)  # beside others: each node holds inotify instances
        with config.new_client_from_config(str(plan.kubeconfig)) as api:
            deploy(api, "default", replicas=3)
            are_ready = wait_until(lambda: len(ready_pods(api, "default")) == 3, timeout_s=60)
        in_groups = processes_in_groups(plan)
    finally:
        remove_cluster(folder)

    assert are_ready
    assert len([line for line in in_groups if "loadtests.endpoint" in line]) == 3
    assert leftovers(folder) == []
    assert machine() == before


def processes_in_groups(plan: Plan) -> list[str]:
    """Return the commands of what runs in the control groups of a cluster, containers too."""
    listed = Path("/sys/fs/cgroup/memory").glob(f"{plan.control_groups}/**/cgroup.procs")
    pids = {pid for path in listed for pid in path.read_text().split()}
    commands = [Path("/proc", pid, "cmdline") for pid in pids]
    return [path.read_bytes().replace(b"\0", b" ").decode() for path in commands if path.exists()]


def test_there_is_nothing_to_remove_twice(tmp_path: Path) -> None:
    remove_cluster(tmp_path / "cluster")
    remove_cluster(tmp_path / "cluster")

    assert leftovers(tmp_path / "cluster") == []

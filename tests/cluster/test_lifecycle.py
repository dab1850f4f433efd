"""A cluster is removed whole, whatever became of its starter, and the machine stays as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from probes.child import wait_until
from tests.cluster.cluster import leftovers, remove_cluster
from tests.cluster.running import processes_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
_TUNABLES = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "net/ipv4/ip_forward")


def machine() -> dict[str, object]:
    """Return what of the machine's own a cluster must not change."""
    commands = {"rules": ["nft", "list", "ruleset"], "routes": ["ip", "route"], "links": ["ip", "-o", "link"]}
    shown: dict[str, object] = {
        name: subprocess.run(command, capture_output=True, text=True, check=False).stdout
        for name, command in commands.items()
    }
    shown["mounts"] = Path("/proc/self/mounts").read_text()
    shown["namespaces"] = sorted(path.name for path in Path("/run/netns").glob("*"))
    groups = Path("/sys/fs/cgroup").glob("*/overproof-*")
    shown["groups"] = sorted(str(path) for path in groups)
    return shown | {name: Path("/proc/sys", name).read_text() for name in _TUNABLES}


@pytest.mark.parametrize("service", ["kube-apiserver", "kube-proxy", "runc-v2"])
def test_a_starter_that_is_killed_leaves_nothing_that_down_does_not_remove(
    tmp_path: Path, service: str
) -> None:
    folder, before = tmp_path / "cluster", machine()
    command = [sys.executable, "-m", "tests.cluster", "--folder", str(folder), "up"]
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


def test_there_is_nothing_to_remove_twice(tmp_path: Path) -> None:
    remove_cluster(tmp_path / "cluster")
    remove_cluster(tmp_path / "cluster")

    assert leftovers(tmp_path / "cluster") == []

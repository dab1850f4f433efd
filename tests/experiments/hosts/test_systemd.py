"""The timer as a unit, on a host with a stand-in for systemctl that starts what it says, and notes all."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.faults.fault import FaultRefused, load_fault
from experiments.host_agent.systemd import unit_text
from experiments.hosts.capture import capture_hosts
from experiments.injecting.injection import inject_fault, undo_pending
from probes.child import wait_until
from tests.experiments.hosts.real_hosts import real_hosts, start_host, target_of
from tests.ssh_hosts import SshHost

pytestmark = pytest.mark.needs("root", "sshd", "ip", "systemctl")
# It tells by its files that systemd runs the host, keeps units to itself, and starts what they say.
SETUP = """\
mkdir -p /run/systemd/system
mount -t tmpfs tmpfs /etc/systemd/system
mount --bind {folder}.systemctl /usr/bin/systemctl
"""
STAND_IN = """\
#!/bin/sh
echo "$*" >> /run/told
[ -e /run/broken ] && { echo "it does not start" >&2; exit 1; }
[ "$1" = enable ] || exit 0
command=$(sed -n 's/^ExecStart=//p' "/etc/systemd/system/$3")
setsid sh -c "exec $command" </dev/null >/dev/null 2>&1 &
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    folder = tmp_path_factory.mktemp("systemd")
    with real_hosts(folder / "hosts") as hosts:
        stand_in = folder / "hosts/unit.systemctl"
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        stand_in.write_text(STAND_IN)
        stand_in.chmod(0o755)
        yield start_host(hosts, "unit", setup=SETUP)


def units(host: SshHost) -> str:
    return host.run("ls", "/etc/systemd/system")


def test_the_timer_is_a_unit_that_is_there_after_a_reboot_and_gone_once_all_is_put_back(
    host: SshHost, tmp_path: Path
) -> None:
    target = target_of(host)
    (state,) = capture_hosts("link.down", {"interface": "data0"}, target.hosts, target, undo_after_s=60)
    inject_fault(load_fault("link.down"), state, tmp_path)
    during = units(host)
    told = host.run("cat", "/run/told").splitlines()
    (undone,) = undo_pending(tmp_path, by="test")

    assert during == f"overproof-undo-{state['id']}.service"
    assert told == ["daemon-reload", f"enable --now {during}"]
    assert undone.is_restored
    assert wait_until(lambda: units(host) == "", timeout_s=10)
    assert f"disable {during}" in host.run("cat", "/run/told").splitlines()


def test_nothing_is_broken_where_systemd_does_not_take_the_unit(host: SshHost, tmp_path: Path) -> None:
    target = target_of(host)
    (state,) = capture_hosts("link.down", {"interface": "data0"}, target.hosts, target, undo_after_s=60)
    host.run("touch", "/run/broken")
    try:
        with pytest.raises(FaultRefused, match="daemon-reload: it does not start; nothing is broken"):
            inject_fault(load_fault("link.down"), state, tmp_path)
    finally:
        host.run("rm", "/run/broken")

    assert units(host) == ""
    assert "UP" in host.run("ip", "-o", "link", "show", "dev", "data0")


@pytest.mark.needs("systemd-analyze")
def test_systemd_itself_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    path = tmp_path / "overproof-undo-x.service"
    path.write_text(unit_text("x", ["/bin/sh", "/var/lib/50% full/agent.pyz", "x"]))

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "overproof" not in done.stderr

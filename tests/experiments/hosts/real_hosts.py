"""Real hosts for faults: sshd, disk, network, boot and processes of their own. Ours is not touched."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.hosts.choice import Target
from experiments.hosts.host import Host
from experiments.hosts.session import close_sessions
from tests.ssh_hosts import SshHost, SshHosts, ssh_hosts

# Its own boot, which ``reboot`` changes; and a link beside the one that carries us, with routes and IPv6.
SETUP = """\
mount --bind {folder}/boot_id /proc/sys/kernel/random/boot_id
ip link add data0 type veth peer name data1
ip addr add 10.77.0.1/24 dev data0
ip -6 addr add fd77::1/64 dev data0 nodad
ip link set data0 up
ip link set data1 up
ip route add 10.78.0.0/16 via 10.77.0.2 dev data0
ip -6 route add fd78::/48 via fd77::2 dev data0
"""


@contextlib.contextmanager
def real_hosts(folder: Path) -> Iterator[SshHosts]:
    """Hosts, and us as the user who reaches them."""
    with ssh_hosts(folder) as hosts, pytest.MonkeyPatch.context() as patch:
        for name, value in hosts.environment().items():
            patch.setenv(name, value)
        try:
            yield hosts
        finally:
            close_sessions()


def start_host(hosts: SshHosts, name: str, *, setup: str = "", is_allowed: bool = True) -> SshHost:
    """Start a host whose owner allows game days, or has not said so."""
    folder = hosts.folder / name
    boot = hosts.folder / f"{name}.boot_id"
    hosts.folder.mkdir(parents=True, exist_ok=True)
    boot.write_text(f"{uuid.uuid4()}\n")
    own = SETUP.replace("{folder}/boot_id", str(boot))
    host = hosts.start(name, setup=own + setup)
    (folder / "overproof").mkdir()
    if is_allowed:
        allow(host)
    return host


def allow(host: SshHost, *faults: str) -> None:
    """Have the owner of a host say that it may be broken."""
    path = base_of(host) / "gameday-allowed"
    path.write_text("".join(f"{fault}\n" for fault in faults))
    path.chmod(0o644)


def base_of(host: SshHost) -> Path:
    """Return our folder on a host; here and there it has one path."""
    return host.folder / "overproof"


def reboot(hosts: SshHosts, host: SshHost) -> None:
    """Give a host another boot: its processes end, and its timers with them."""
    host.end_programs()
    (hosts.folder / f"{host.name}.boot_id").write_text(f"{uuid.uuid4()}\n")


def entry_of(host: SshHost) -> Host:
    """Return a host as an experiment names it."""
    return Host(name=host.name, address=host.address, user="root", folder=str(base_of(host)))


def target_of(*hosts: SshHost, run: str = "run", seed: int = 1) -> Target:
    """Return a target of these hosts."""
    return Target(hosts=tuple(entry_of(host) for host in hosts), seed=seed, run=run)


def start_program(host: SshHost, script: str) -> None:
    """Start a program in a host, which goes on by itself."""
    host.run("setsid", "sh", "-c", f"({script}) </dev/null >/dev/null 2>&1 &")


def environment(hosts: SshHosts) -> dict[str, str]:
    """Return the environment of a controller."""
    return dict(os.environ) | hosts.environment()

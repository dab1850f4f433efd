"""A way into the nodes of the cluster over SSH: a real sshd in the namespaces of each, for its owner's key.

With it a node has the ``systemctl`` that a fault of hosts asks for. Its owner allows game days there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from probes.child import end_child, wait_until
from tests.cluster.plan import MARK, Node
from tests.cluster.running import Hosts

_SSHD = """\
Port 22
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
MaxStartups 100:30:200
LogLevel ERROR
"""
_SCRIPT = """\
mkdir -p /run/sshd /var/lib/overproof
touch /var/lib/overproof/gameday-allowed
chmod 644 /var/lib/overproof/gameday-allowed
mountpoint -q /usr/local/sbin || mount --bind {folder}/tools /usr/local/sbin
exec /usr/sbin/sshd -D -e -f {folder}/sshd_config
"""


@contextlib.contextmanager
def ways_in(hosts: Hosts, folder: Path) -> Iterator[None]:
    """Let us in to every node, as the user whose home is ``folder``."""
    key = folder / ".ssh" / "id_ed25519"
    key.parent.mkdir(parents=True, mode=0o700)
    _keygen(key)
    (key.parent / "config").write_text(
        "".join(f"Host {n.name}\n  HostName {n.address}\n  User root\n" for n in hosts.plan.nodes)
    )
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("SSH_AUTH_SOCK", "")
        for node in hosts.plan.nodes:
            stack.callback(end_child, _start(hosts, node, key), grace_s=2.0)
        yield


def _start(hosts: Hosts, node: Node, key: Path) -> subprocess.Popen[bytes]:
    folder = node.folder / "ssh"
    (folder / "tools").mkdir(parents=True, exist_ok=True)
    if not (folder / "host_key").exists():
        _keygen(folder / "host_key")
    shutil.copy(f"{key}.pub", folder / "authorized_keys")
    (folder / "sshd_config").write_text(_SSHD.format(folder=folder, address=node.address))
    shutil.copy(Path(__file__).with_name("systemctl.py"), node.folder / "systemctl.py")
    tool = folder / "tools" / "systemctl"
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -I {node.folder}/systemctl.py "$@"\n')
    tool.chmod(0o755)
    with (key.parent / "known_hosts").open("a") as known:
        words = (folder / "host_key.pub").read_text().split()[:2]
        known.write(f"{node.address} {' '.join(words)}\n")
    inside = ["nsenter", "--target", str(hosts.pid(node.name)), "--mount", "--uts", "--ipc", "--net", "--pid"]
    with (folder / "sshd.log").open("ab") as log:
        process = subprocess.Popen(
            [*inside, "sh", "-ec", _SCRIPT.format(folder=folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"], MARK: str(hosts.plan.folder)},  # removed with the cluster too
            start_new_session=True,
        )
    assert wait_until(lambda: _answers(node.address), timeout_s=10), (folder / "sshd.log").read_text()
    return process


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def _answers(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=1) as link:
            return link.recv(4) == b"SSH-"
    except OSError:
        return False

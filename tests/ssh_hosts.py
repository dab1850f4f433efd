"""Test hosts: each a real sshd in network, mount, process and name spaces of its own. Needs root."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from probes.child import wait_until

_SSHD = """\
Port 22
ListenAddress 0.0.0.0
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
MaxStartups 100:30:200
PrintMotd no
{extra}
"""
# 10.N.x.x of links that tests put into hosts, or join them by: a host would take our address for its own.
_TAKEN = (77, 78, 79)
# In the host's own mount namespace: another list of users, and a place for sshd's own folder.
_START = """\
set -e
mount --bind {folder}/passwd /etc/passwd
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
hostname {name}
ip link set lo up
{setup}
exec {sshd} -D -e -f {folder}/sshd_config
"""


@dataclass(slots=True, kw_only=True)
class SshHost:
    """One host and how to reach it."""

    name: str
    folder: Path
    address: str
    link: str  # the controller's end of the wire
    process: subprocess.Popen[bytes]
    namespace: str

    def host_key(self) -> str:
        """Return type and key, as known_hosts wants them."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    def certify(self, authority: Path) -> None:
        """Have its sshd show a certificate that this key signs for its address, from the next login on."""
        words = [
            "-s",
            str(authority),
            "-I",
            self.name,
            "-h",
            "-n",
            self.address,
            str(self.folder / "host_key.pub"),
        ]
        subprocess.run(["ssh-keygen", "-q", *words], check=True)
        config = self.folder / "sshd_config"
        config.write_text(f"{config.read_text()}HostCertificate {self.folder}/host_key-cert.pub\n")
        listener, before = self._listener(), self._starts()
        assert listener is not None
        os.kill(listener, signal.SIGHUP)
        # Until it has the signal it goes on answering as before, and between the two nothing listens.
        assert wait_until(lambda: self._starts() > before, timeout_s=10)

    def _starts(self) -> int:
        """Return how often its sshd has begun to listen."""
        return (self.folder / "sshd.log").read_text().count("Server listening on 0.0.0.0")

    def processes(self) -> list[str]:
        """Return what runs in it beside sshd itself: processes that live in its process namespace."""
        return [command for _, command in self._inside()]

    def _inside(self, *, with_listener: bool = False) -> list[tuple[int, str]]:
        listener = self._listener()
        if listener is None:
            return []
        space = Path(f"/proc/{listener}/ns/pid").readlink()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (folder / "ns" / "pid").readlink() == space and (
                    with_listener or int(folder.name) != listener
                ):
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    found.append((int(folder.name), command))
        return [(pid, command) for pid, command in found if command]

    def programs(self) -> list[str]:
        """Return the commands of what runs in it, without the processes of sshd."""
        return [command for command in self.processes() if not command.startswith("sshd")]

    def end_programs(self) -> None:
        """Kill what ``programs`` lists, with a signal that nobody can catch."""
        for pid, command in self._inside():
            if not command.startswith("sshd"):
                _send(pid, signal.SIGKILL)

    def _listener(self) -> int | None:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            return int(children.read_text().split()[0])
        except (OSError, IndexError):
            return None

    def run(self, *words: str) -> str:
        """Run a command in it, as on its console; return what it says."""
        listener = self._listener()
        assert listener is not None, "the host is off"
        inside = ["nsenter", "--target", str(listener), "--mount", "--uts", "--net", "--pid", "--"]
        done = subprocess.run([*inside, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def cut(self) -> None:
        """Cut the wire: from now on nothing passes, and nobody is told."""
        _ip("-n", self.namespace, "link", "set", "eth0", "down")

    def mend(self) -> None:
        """Plug the wire in again."""
        _ip("-n", self.namespace, "link", "set", "eth0", "up")

    def end_connections(self) -> None:
        """Kill what sshd has started for each connection, and not the listener."""
        for pid, command in self._inside():
            if command.startswith("sshd"):
                _send(pid, signal.SIGKILL)

    def signal_sshd(self, number: signal.Signals) -> None:
        """Send a signal to every process of sshd in it."""
        for pid, command in self._inside(with_listener=True):
            if command.startswith("sshd"):
                _send(pid, number)

    def stop(self) -> None:
        """Switch it off."""
        self.process.kill()
        self.process.wait(timeout=10)
        _ip("netns", "del", self.namespace)
        subprocess.run(["ip", "link", "del", self.link], capture_output=True, check=False)


def _free_network() -> int:
    """Return a number N of which this machine has no address 10.N.x.x: other tests have hosts as well."""
    shown = subprocess.run(["ip", "-4", "-o", "addr"], capture_output=True, text=True, check=True).stdout
    return secrets.choice([n for n in range(20, 220) if n not in _TAKEN and f" 10.{n}." not in shown])


@dataclass(slots=True, kw_only=True)
class SshHosts:
    """Hosts, the key that opens them, and a home with the known_hosts of a user."""

    folder: Path
    hosts: dict[str, SshHost] = field(default_factory=dict)
    _network: int = field(default_factory=_free_network)
    _bridge: str = field(
        default_factory=lambda: f"op{secrets.token_hex(3)}"
    )  # joins them with us and each other

    @property
    def home(self) -> Path:
        """The home of the user who reaches them."""
        return self.folder / "home"

    @property
    def key(self) -> Path:
        """The key that opens them."""
        return self.home / ".ssh" / "id_ed25519"

    def start(
        self,
        name: str,
        *,
        shell: str = 'exec /bin/sh "$@"',
        is_known: bool = True,
        extra: str = "",
        setup: str = "",
    ) -> SshHost:
        """Start a host, whose login shell is a script, and write its key down if it is to be known."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        self._make_key()
        shutil.copy(f"{self.key}.pub", folder / "authorized_keys")
        _keygen(folder / "host_key")
        (folder / "shell").write_text(f"#!/bin/sh\n{shell}\n")
        (folder / "shell").chmod(0o755)
        users = f"root:x:0:0:root:{folder}:{folder}/shell\nsshd:x:104:65534::/run/sshd:/usr/sbin/nologin\n"
        (folder / "passwd").write_text(users)
        (folder / "sshd_config").write_text(_SSHD.format(folder=folder, extra=extra))
        number, tag = len(self.hosts) + 1, secrets.token_hex(3)
        space, link, address = f"op{tag}", f"op{tag}", f"10.{self._network}.0.{number + 1}"
        self._make_bridge()
        _ip("netns", "add", space)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", link, "master", self._bridge, "up")
        _ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        sshd = shutil.which("sshd", path="/usr/sbin:/sbin:/usr/bin") or "/usr/sbin/sshd"
        script = _START.format(folder=folder, name=name, sshd=sshd, setup=setup.format(folder=folder))
        unshare = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with (folder / "sshd.log").open("wb") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", space, *unshare, "sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], **_marks()},
            )
        host = SshHost(name=name, folder=folder, address=address, link=link, process=process, namespace=space)
        self.hosts[name] = host
        assert wait_until(lambda: _answers(address), timeout_s=10), (folder / "sshd.log").read_text()
        if is_known:
            with (self.home / ".ssh" / "known_hosts").open("a") as known:
                known.write(f"{address} {host.host_key()}\n")
        return host

    def _make_bridge(self) -> None:
        if not self.hosts:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("addr", "add", f"10.{self._network}.0.1/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")

    def stop(self) -> None:
        """Switch all of them off."""
        for host in self.hosts.values():
            host.stop()
        if self.hosts:
            _ip("link", "del", self._bridge)

    def _make_key(self) -> None:
        if not self.key.exists():
            self.key.parent.mkdir(parents=True, mode=0o700)
            _keygen(self.key)
            (self.key.parent / "known_hosts").touch()

    def environment(self) -> dict[str, str]:
        """Return what a controller needs in its environment to be that user."""
        return {"HOME": str(self.home), "SSH_AUTH_SOCK": ""}


@contextlib.contextmanager
def ssh_hosts(folder: Path) -> Iterator[SshHosts]:
    """Hosts for the time of the body."""
    hosts = SshHosts(folder=folder)
    try:
        yield hosts
    finally:
        hosts.stop()


def _marks() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("OVERPROOF_TEST_")}


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may leave with the one that was hit before it
        os.kill(pid, number)


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def _answers(address: str) -> bool:
    import socket

    try:
        with socket.create_connection((address, 22), timeout=1) as link:
            return link.recv(4) == b"SSH-"
    except OSError:
        return False

"""Connections to a real sshd: who it is, the way to it, and what a shell could misread."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from burnin.fleet.host import Access, Host
from burnin.fleet.launchers.channel import ARCHIVE, Program
from burnin.fleet.launchers.ssh import SshLauncher
from probes.errors import TargetError
from probes.ssh import NotLetIn
from tests.ssh_hosts import SshHosts, ssh_hosts

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("sshd"), pytest.mark.needs("ip")]
CODE = "import json,os,sys; print(json.dumps([sys.argv[2:], os.uname().nodename, os.environ.get('SECRET')]))"


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHosts]:
    with ssh_hosts(tmp_path_factory.mktemp("ssh")) as hosts:
        hosts.start("first", extra="AllowTcpForwarding yes")
        hosts.start("second")
        hosts.start("noisy", shell='echo "welcome to\n{}"; exec /bin/sh "$@"')
        yield hosts


@pytest.fixture
def user(hosts: SshHosts, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The home of the user, put back as it was."""
    for name, value in hosts.environment().items():
        monkeypatch.setenv(name, value)
    known, config = hosts.home / ".ssh" / "known_hosts", hosts.home / ".ssh" / "config"
    text = known.read_text()
    yield hosts.home / ".ssh"
    known.write_text(text)
    config.unlink(missing_ok=True)


@contextlib.contextmanager
def _launcher() -> Iterator[SshLauncher]:
    launcher = SshLauncher()
    try:
        yield launcher
    finally:
        launcher.close()


def _say(host: Host, *words: str, within_s: float = 15) -> list[object]:
    program = Program(
        arguments=("-c", CODE, ARCHIVE, *words), archive=b"x", environment=(("SECRET", "s3cret"),)
    )
    with _launcher() as launcher:
        channel = launcher.start(host, program, within_s=within_s)
        heard = b""
        while data := channel.read():
            heard += data
        assert channel.end() == 0
    return list(json.loads(heard))


def _host(hosts: SshHosts, name: str, **access: object) -> Host:
    return Host(name=name, access=Access(address=hosts.hosts[name].address, python=sys.executable, **access))  # type: ignore[arg-type]


def test_words_reach_the_program_as_they_are_past_a_shell_that_prints(hosts: SshHosts, user: Path) -> None:
    odd = ["$(touch /tmp/pwned)", "it's", "a\nb", "`id`", "; exit 3", "\\", "!x"]

    assert user
    assert _say(_host(hosts, "noisy"), *odd) == [odd, "noisy", "s3cret"]


def test_an_interpreter_and_a_wrapper_with_odd_names_are_no_hole(
    hosts: SshHosts, user: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "py $(touch pwned) 'q'"
    odd.symlink_to("/usr/bin/python3")
    wrapper = ("env", "A=b c;$(touch pwned)")
    host = _host(hosts, "second")
    host = Host(name="second", access=Access(address=host.access.address, python=str(odd), wrapper=wrapper))

    assert user
    assert _say(host, "x") == [["x"], "second", "s3cret"]
    assert not list(tmp_path.glob("**/pwned"))


def test_nothing_of_the_program_can_be_read_in_the_process_list(hosts: SshHosts, user: Path) -> None:
    script = "import sys; print('runs', flush=True); sys.stdin.read()"
    program = Program(arguments=("-c", script), archive=b"x", environment=(("SECRET", "s3cret"),))
    assert user
    with _launcher() as launcher:
        channel = launcher.start(_host(hosts, "second"), program, within_s=15)
        said = channel.read()  # before, the one process may be between two programs and have no command
        listed = hosts.hosts["second"].programs()

    assert said == b"runs\n"
    assert len(listed) == 1
    assert "s3cret" not in listed[0]


def test_a_changed_key_is_refused_with_both_fingerprints(hosts: SshHosts, user: Path) -> None:
    other = hosts.hosts["first"].host_key()
    (user / "known_hosts").write_text(f"{hosts.hosts['second'].address} {other}\n")

    with pytest.raises(
        NotLetIn, match=r"its key has changed: expected ssh-ed25519 SHA256:.*, got ssh-ed25519 SHA256:"
    ):
        _say(_host(hosts, "second"))


def test_a_revoked_key_is_refused_although_it_is_known(hosts: SshHosts, user: Path) -> None:
    with (user / "known_hosts").open("a") as known:
        known.write(f"@revoked * {hosts.hosts['second'].host_key()}\n")

    with pytest.raises(NotLetIn, match="is revoked"):
        _say(_host(hosts, "second"))


def test_no_word_of_the_configuration_switches_the_check_off(hosts: SshHosts, user: Path) -> None:
    (user / "config").write_text("Host *\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n")

    with pytest.raises(NotLetIn, match="its key is not known"):
        _say(_host(hosts, "second"))


def test_a_login_that_is_refused_says_what_was_tried(hosts: SshHosts, user: Path, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)

    assert user
    with pytest.raises(NotLetIn, match=r"login as 'root' refused; tried .*other"):
        _say(_host(hosts, "second", user="root", identity_file=str(tmp_path / "other")))


def test_a_host_behind_another_is_reached_by_proxyjump_and_both_are_checked(
    hosts: SshHosts, user: Path
) -> None:
    first, second = hosts.hosts["first"], hosts.hosts["second"]
    with (user / "known_hosts").open("a") as known:
        known.write(f"[localhost]:22 {first.host_key()}\nbehind {first.host_key()}\n")
    (user / "config").write_text(
        f"Host behind\n HostName 127.0.0.1\n HostKeyAlias behind\n ProxyJump root@{first.address}\n"
    )

    # Its own loopback is where the first host looks for "behind": nobody else's sshd answers there.
    said = _say(Host(name="behind", access=Access(python=sys.executable, user="root")))
    assert said == [[], "first", "s3cret"]
    (user / "known_hosts").write_text(f"behind {first.host_key()}\n{second.address} {second.host_key()}\n")
    with pytest.raises(NotLetIn, match=f"{first.address}: its key is not known"):
        _say(Host(name="behind", access=Access(python=sys.executable, user="root")))


def test_a_proxy_command_is_run_and_ended_with_the_connection(hosts: SshHosts, user: Path) -> None:
    address = hosts.hosts["second"].address
    relay = (
        f"import os, socket, threading\ns = socket.create_connection(({address!r}, 22))\n"
        "def out():\n    while d := os.read(0, 65536): s.sendall(d)\n"
        "threading.Thread(target=out, daemon=True).start()\n"
        "while d := s.recv(65536): os.write(1, d)\n"
    )
    script = user / "relay.py"
    script.write_text(relay)
    (user / "config").write_text(
        f"Host second\n ProxyCommand {sys.executable} {script}\n HostKeyAlias {address}\n"
    )

    assert _say(Host(name="second", access=Access(python=sys.executable, user="root")))[1] == "second"


def test_a_key_of_another_type_than_the_first_one_offered_is_agreed_on(
    hosts: SshHosts, user: Path, tmp_path: Path
) -> None:
    assert user
    key = tmp_path / "rsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(key)], check=True)
    host = hosts.start("third", extra=f"HostKey {key}", is_known=False)
    with (user / "known_hosts").open("a") as known:
        known.write(f"{host.address} {' '.join(key.with_suffix('.pub').read_text().split()[:2])}\n")

    assert _say(_host(hosts, "third"))[1] == "third"


def test_a_server_that_never_greets_is_given_up_in_time(user: Path) -> None:
    import socket

    assert user
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        host = Host(name="mute", access=Access(address="127.0.0.1", port=server.getsockname()[1]))
        with pytest.raises(TargetError, match=r"mute \(127.0.0.1 port \d+\): not reached within 1 s"):
            _say(host, within_s=1.0)

    assert time.monotonic() - began < 4


def test_a_host_is_let_in_by_the_certificate_of_a_known_authority_and_by_nothing_less(
    hosts: SshHosts, user: Path, tmp_path: Path
) -> None:
    authority, other = (_make_key(tmp_path / name) for name in ("ca", "other"))
    host = hosts.start("certified", is_known=False)
    known = user / "known_hosts"
    before = known.read_text()
    known.write_text(f"{before}@cert-authority 10.* {authority}\n")

    with pytest.raises(NotLetIn, match="it showed no certificate"):
        _say(_host(hosts, "certified"))
    host.certify(tmp_path / "ca")
    assert _say(_host(hosts, "certified"))[1] == "certified"
    known.write_text(f"{before}@cert-authority 10.* {other}\n")
    with pytest.raises(NotLetIn, match="its certificate is by no authority that known_hosts has for it"):
        _say(_host(hosts, "certified"))
    known.write_text(f"{before}@cert-authority 10.* {authority}\n@revoked * {host.host_key()}\n")
    with pytest.raises(NotLetIn, match="is revoked"):
        _say(_host(hosts, "certified"))


def _make_key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])

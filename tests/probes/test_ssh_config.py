"""The user's SSH configuration: what it says of a host, and what the fleet file puts above it."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.errors import ConfigError
from probes.ssh_config import Route, SshTarget, find_route, jump_target, load_ssh_config


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".ssh" / "more").mkdir(parents=True)
    return tmp_path


def _route(home: Path, text: str, target: SshTarget, system: str = "") -> Route:
    (home / ".ssh" / "config").write_text(text)
    (home / "system").write_text(system)
    return find_route(target, load_ssh_config(home, home / "system"))


def test_what_the_configuration_says_of_a_host_is_used(home: Path) -> None:
    text = """
Host gpu*
  HostName %h.cluster
  User root
  Port 2022
  IdentityFile /keys/gpu
  IdentitiesOnly yes
  ProxyJump me@bastion:2200,inner
  HostKeyAlias racks
  UserKnownHostsFile /etc/known
"""
    route = _route(home, text, SshTarget(name="gpu7"))

    assert (route.address, route.user, route.port, route.key_name) == ("gpu7.cluster", "root", 2022, "racks")
    assert route.identity_files == ("/keys/gpu",)
    assert not route.is_agent_asked
    assert route.jumps == ("me@bastion:2200", "inner")
    assert route.known_hosts_files[0] == Path("/etc/known")


def test_the_fleet_file_goes_above_the_configuration(home: Path) -> None:
    (home / "key").touch()
    target = SshTarget(
        name="gpu7",
        address="10.0.0.7",
        user="admin",
        port=22,
        identity_file=str(home / "key"),
        proxy_jump="none",
    )
    route = _route(home, "Host *\n User root\n Port 2022\n ProxyJump bastion\n", target)

    assert (route.name, route.address, route.user, route.port) == ("gpu7", "10.0.0.7", "admin", 22)
    assert route.identity_files == (str(home / "key"),)
    assert (route.jumps, route.proxy_command) == ((), None)


def test_included_files_are_read_and_the_first_word_wins(home: Path) -> None:
    (home / ".ssh" / "more" / "a.conf").write_text("Host gpu1\n Port 2201\n")
    route = _route(
        home, "Include more/*.conf\nHost *\n Port 2299\n", SshTarget(name="gpu1"), "Host *\n User sys\n"
    )
    other = _route(
        home, "Include more/*.conf\nHost *\n Port 2299\n", SshTarget(name="gpu2"), "Host *\n User sys\n"
    )

    assert (route.port, route.user) == (2201, "sys")
    assert other.port == 2299


def test_files_that_include_each_other_are_an_error_and_no_endless_loop(home: Path) -> None:
    with pytest.raises(ConfigError, match="included more than 16 deep"):
        _route(home, "Include config\n", SshTarget(name="gpu1"))


def test_a_proxy_command_is_taken_as_it_is(home: Path) -> None:
    route = _route(home, "Host *\n ProxyCommand nc -X connect %h %p\n", SshTarget(name="gpu1"))

    assert route.proxy_command == "nc -X connect gpu1 22"


@pytest.mark.parametrize("port", ["x", "0", "70000"])
def test_a_port_that_is_none_is_named(port: str, home: Path) -> None:
    with pytest.raises(ConfigError, match=f"gpu1: the SSH configuration gives port '{port}'"):
        _route(home, f"Host *\n Port {port}\n", SshTarget(name="gpu1"))


def test_a_key_that_is_not_there_is_named(home: Path) -> None:
    with pytest.raises(ConfigError, match="identity_file '/no/key' is not there"):
        _route(home, "", SshTarget(name="gpu1", identity_file="/no/key"))


def test_a_hop_is_read_with_user_port_and_ipv6() -> None:
    assert jump_target("me@[fe80::1]:22") == SshTarget(name="fe80::1", user="me", port=22)
    assert jump_target("bastion") == SshTarget(name="bastion")
    with pytest.raises(ConfigError, match="is no"):
        jump_target("a b:c:d")

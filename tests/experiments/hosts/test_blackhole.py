"""A black hole on a real wire: what is named does not come through, and undoing leaves no trace."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from experiments.host_agent.fault import Refused
from experiments.host_agent.faults.blackhole import BLACKHOLE, Blackhole
from tests.experiments.hosts.wires import Wire, can_connect, inside, listener, wire

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("ip"), pytest.mark.needs("nft")]
OPEN, CLOSED = 9001, 9002


@pytest.fixture(autouse=True)
def way_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """We came over SSH, by another wire."""
    monkeypatch.setenv("SSH_CONNECTION", "127.0.0.1 40123 127.0.0.1 22")


@pytest.fixture(scope="module")
def shared_wire() -> Iterator[Wire]:
    with wire() as made, listener(made.peer, OPEN), listener(made.peer, CLOSED), listener(made.host, CLOSED):
        yield made


@pytest.fixture
def line(shared_wire: Wire) -> Iterator[Wire]:
    before = rules(shared_wire)
    yield shared_wire
    assert rules(shared_wire) == before


def rules(line: Wire) -> str:
    with inside(line.host):
        return subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout


def capture(line: Wire, **arguments: Any) -> dict[str, Any]:
    with inside(line.host):
        state = BLACKHOLE.capture(arguments)
    return dict(json.loads(json.dumps(state)))


def inject(line: Wire, state: dict[str, Any]) -> tuple[bool, str]:
    with inside(line.host):
        BLACKHOLE.inject(state)
        return BLACKHOLE.verify(state)


def undo(line: Wire, state: dict[str, Any]) -> tuple[bool, str, bool]:
    with inside(line.host):
        return BLACKHOLE.undo(state)


def test_a_named_port_of_a_named_address_is_dropped_and_the_others_are_not(line: Wire) -> None:
    state = capture(line, addresses=[line.peer_address], ports=[CLOSED])

    assert inject(line, state)[0]
    assert not can_connect(line.host, line.peer_address, CLOSED)
    assert can_connect(line.host, line.peer_address, OPEN)
    assert not can_connect(line.peer, line.host_address, CLOSED)  # the port of the host's own server
    assert undo(line, state) == (True, f"removed table {state['table']}", True)
    assert can_connect(line.host, line.peer_address, CLOSED)
    assert can_connect(line.peer, line.host_address, CLOSED)


def test_a_connection_that_is_open_gets_no_further_and_goes_on_afterwards(line: Wire) -> None:
    with listener(line.peer, 9003) as server, inside(line.host), socket.socket() as caller:
        caller.connect((line.peer_address, 9003))
        talking, _ = server.accept()
        talking.settimeout(0.3)
        state = capture(line, interface=line.interface)
        assert inject(line, state)[0]
        caller.send(b"lost")

        with pytest.raises(TimeoutError):
            talking.recv(4)
        assert undo(line, state)[0]
        talking.settimeout(5)
        assert talking.recv(4) == b"lost"  # sent again by the kernel
        talking.close()


def test_one_direction_lets_the_other_one_in(line: Wire) -> None:
    with inside(line.peer):
        sender = socket.socket(type=socket.SOCK_DGRAM)
    with inside(line.host):
        receiver = socket.socket(type=socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.bind(("0.0.0.0", 9004))
        receiver.settimeout(2)
        state = capture(line, addresses=["10.99.0.0/24"], direction="out")
        inject(line, state)
        sender.sendto(b"in", (line.host_address, 9004))

        assert receiver.recv(2) == b"in"
        with pytest.raises(OSError, match="not permitted"):
            receiver.sendto(b"out", (line.peer_address, 9004))
        assert undo(line, state)[0]


def test_undo_twice_never_injected_and_after_a_reboot_is_harmless_and_says_so(line: Wire) -> None:
    state = capture(line, interface=line.interface)

    assert undo(line, state) == (True, f"nothing to do: there is no table {state['table']}", False)
    inject(line, state)
    assert undo(line, state)[2]
    assert undo(line, state) == (True, f"nothing to do: there is no table {state['table']}", False)


def test_rules_of_others_stay_and_a_second_injection_is_refused(line: Wire) -> None:
    nft = ["ip", "netns", "exec", line.host, "nft"]
    subprocess.run([*nft, "add", "table", "inet", "site"], check=True)
    theirs = rules(line)
    state = capture(line, ports=[CLOSED], protocol="tcp")
    inject(line, state)

    with pytest.raises(Refused, match="File exists"):
        inject(line, state)
    assert undo(line, state)[0]
    assert rules(line) == theirs
    subprocess.run([*nft, "delete", "table", "inet", "site"], check=True)


def test_rules_that_somebody_took_away_are_not_called_a_fault(line: Wire) -> None:
    state = capture(line, ports=[CLOSED])
    inject(line, state)
    subprocess.run(["ip", "netns", "exec", line.host, "nft", "flush", "ruleset"], check=True)

    with inside(line.host):
        assert BLACKHOLE.verify(state) == (False, f"there is no table {state['table']}")
        assert BLACKHOLE.undo(state)[::2] == (True, False)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "nothing is named"),
        ({"addresses": ["0.0.0.0/0"]}, "all addresses"),
        ({"addresses": ["10.0.0.1; flush ruleset"]}, "addresses"),
        ({"interface": "eth9"}, "there is no eth9"),
        ({"interface": 'eth0" drop'}, "no name"),
        ({"ports": [0]}, "ports"),
        ({"ports": [1], "direction": "up"}, "direction"),
    ],
)
def test_an_empty_or_dangerous_selection_is_refused(line: Wire, arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why):
        capture(line, **arguments)


@pytest.mark.parametrize(
    ("arguments", "is_cut"),
    [
        ({"addresses": ["10.99.0.0/24"]}, True),
        ({"addresses": ["10.99.0.0/24"], "ports": [9001]}, False),
        ({"addresses": ["10.98.0.0/24"]}, False),
        ({"ports": [22]}, True),
        ({"ports": [22], "protocol": "udp"}, False),
        ({"interface": "eth0"}, True),
        ({"interface": "lo"}, False),
    ],
)
def test_our_own_way_in_is_cut_only_when_asked_for_by_name(
    line: Wire, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], is_cut: bool
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", f"{line.peer_address} 40123 {line.host_address} 22")

    if is_cut:
        with pytest.raises(Refused, match="way in"):
            capture(line, **arguments)
    else:
        capture(line, **arguments)
    assert capture(line, **arguments, may_cut_ssh=True)["may_cut_ssh"] is True


def test_where_nobody_can_tell_our_way_in_nothing_is_dropped(
    line: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_CONNECTION")

    with pytest.raises(Refused, match="nobody can tell"):
        capture(line, ports=[CLOSED])


def test_the_way_in_is_looked_at_again_at_the_moment_of_injection(
    line: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = capture(line, addresses=["10.99.0.0/24"])
    monkeypatch.setenv("SSH_CONNECTION", f"{line.peer_address} 40123 {line.host_address} 22")

    with pytest.raises(Refused, match="way in"):
        inject(line, state)


def test_without_nft_a_sentence_says_so_and_undoing_never_claims_success(line: Wire) -> None:
    bare = Blackhole(nft="/nowhere/nft")
    state = capture(line, ports=[CLOSED])

    assert bare.missing({}) == ["nft is not installed (package nftables)"]
    with pytest.raises(Refused):
        bare.inject(state)
    assert not bare.undo(state)[0]

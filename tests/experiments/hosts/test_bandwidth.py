"""A limit on a real wire: as much comes through as was allowed, and afterwards as before."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from experiments.host_agent.fault import Refused
from experiments.host_agent.faults.bandwidth import BANDWIDTH, Bandwidth
from tests.experiments.hosts.wires import Wire, inside, ip, listener, wire

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("ip"), pytest.mark.needs("tc")]
RATE_MBIT = 4.0


@pytest.fixture(autouse=True)
def way_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """We came over SSH, by another wire."""
    monkeypatch.setenv("SSH_CONNECTION", "127.0.0.1 40123 127.0.0.1 22")


@pytest.fixture
def line() -> Iterator[Wire]:
    with wire() as made:
        yield made


def disciplines(line: Wire) -> str:
    return tc(line, "-j", "qdisc", "show")


def tc(line: Wire, *words: str) -> str:
    command = ["ip", "netns", "exec", line.host, "tc", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def seconds_for(line: Wire, count: int) -> float:
    """Send that many bytes from the host to the peer, and return how long the peer took to have them."""
    with listener(line.peer, 9001) as server, inside(line.host), socket.socket() as caller:
        caller.connect((line.peer_address, 9001))
        talking, _ = server.accept()
        started = time.monotonic()
        sender = threading.Thread(target=caller.sendall, args=(bytes(count),))
        sender.start()
        left = count
        while left:
            left -= len(talking.recv(65536))
        took = time.monotonic() - started
        sender.join()
        talking.close()
        return took


def test_as_much_comes_through_as_was_allowed_and_afterwards_all_is_as_before(line: Wire) -> None:
    before, count = disciplines(line), 500_000
    with inside(line.host):
        state = BANDWIDTH.capture({"interface": "eth0", "rate_mbit": RATE_MBIT})
        BANDWIDTH.inject(state)
        is_verified, seen = BANDWIDTH.verify(state)
    limited_s = seconds_for(line, count)
    with inside(line.host):
        undone = BANDWIDTH.undo(state)
    free_s = seconds_for(line, count)

    assert (is_verified, undone[0], undone[2]) == (True, True, True)
    assert "4 Mbit/s at most" in seen
    # The first 16 KiB are the bucket's; headers come on top. A busy machine makes it slower, never faster.
    assert limited_s > 0.95 * (count - 16384) * 8 / (RATE_MBIT * 1e6)
    assert free_s < limited_s / 2
    assert disciplines(line) == before


def test_undo_twice_and_never_injected_is_harmless_and_says_so(line: Wire) -> None:
    before = disciplines(line)
    with inside(line.host):
        state = BANDWIDTH.capture({"interface": "eth0", "rate_mbit": 1})

        assert BANDWIDTH.undo(state)[::2] == (True, False)
        BANDWIDTH.inject(state)
        assert BANDWIDTH.undo(state)[::2] == (True, True)
        assert BANDWIDTH.undo(state)[::2] == (True, False)
    assert disciplines(line) == before


def test_what_somebody_has_set_up_is_refused_or_left_alone(line: Wire) -> None:
    with inside(line.host):
        state = BANDWIDTH.capture({"interface": "eth0", "rate_mbit": 1})
        tc(line, *["qdisc", "add", "dev", "eth0", "root", "handle", "7:", "pfifo", "limit", "50"])
        theirs = disciplines(line)

        with pytest.raises(Refused, match="could not be put back"):
            BANDWIDTH.capture({"interface": "eth0", "rate_mbit": 1})
        with pytest.raises(Refused, match="did not take"):
            BANDWIDTH.inject(state)
        assert BANDWIDTH.verify(state) == (False, "eth0: its root is pfifo 7:, not ours")
        assert BANDWIDTH.undo(state)[::2] == (True, False)
    assert disciplines(line) == theirs


def test_what_hangs_beside_the_root_stays(line: Wire) -> None:
    tc(line, *["qdisc", "add", "dev", "eth0", "clsact"])
    before = disciplines(line)
    with inside(line.host):
        state = BANDWIDTH.capture({"interface": "eth0", "rate_mbit": 1})
        BANDWIDTH.inject(state)

        assert BANDWIDTH.undo(state)[0]
    assert disciplines(line) == before


def test_an_interface_that_went_away_has_no_limit_left(line: Wire) -> None:
    with inside(line.host):
        state = BANDWIDTH.capture({"interface": "eth0", "rate_mbit": 1})
        BANDWIDTH.inject(state)
        ip("-n", line.host, "link", "del", "eth0")

        assert BANDWIDTH.undo(state)[::2] == (True, False)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"rate_mbit": 1}, "no interface"),
        ({"interface": "eth0"}, "rate_mbit"),
        ({"interface": "eth9", "rate_mbit": 1}, "cannot read eth9"),
        ({"interface": "eth0", "rate_mbit": 0.1}, "our own connection"),
    ],
)
def test_a_selection_that_is_empty_or_starves_our_way_in_is_refused(
    line: Wire, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], why: str
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", f"{line.peer_address} 40123 {line.host_address} 22")

    with inside(line.host), pytest.raises(Refused, match=why):
        BANDWIDTH.capture(arguments)


def test_without_tc_a_sentence_says_so_and_undoing_never_claims_success(line: Wire) -> None:
    bare = Bandwidth(tc="/nowhere/tc")
    with inside(line.host):
        state = BANDWIDTH.capture({"interface": "eth0", "rate_mbit": 1})

        assert bare.missing({}) == ["tc is not installed (package iproute2)"]
        with pytest.raises(Refused):
            bare.inject(state)
        assert not bare.undo(state)[0]

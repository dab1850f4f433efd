"""A wire between two network namespaces, and how a test steps into one; this machine's own is untouched."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

_NEW_NETWORK = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Wire:
    """The host that is to be broken, and the peer that it talks to."""

    host: str  # network namespaces by name
    peer: str
    interface = "eth0"  # in both
    host_address = "10.99.0.2"
    peer_address = "10.99.0.3"


@contextlib.contextmanager
def wire() -> Iterator[Wire]:
    """A wire for the time of the body."""
    tag = secrets.token_hex(3)
    made = Wire(host=f"oph{tag}", peer=f"opp{tag}")
    try:
        for space in (made.host, made.peer):
            ip("netns", "add", space)
        ip(*f"-n {made.host} link add eth0 type veth peer name eth0 netns {made.peer}".split())
        for space, address in ((made.host, made.host_address), (made.peer, made.peer_address)):
            ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")
        yield made
    finally:
        for space in (made.host, made.peer):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)


@contextlib.contextmanager
def inside(space: str) -> Iterator[None]:
    """Run the body, with the programs it starts, in a network namespace; a socket stays where it was made."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/var/run/netns/{space}", os.O_RDONLY)
    try:
        _enter(there)
        yield
    finally:
        _enter(own)
        os.close(own)
        os.close(there)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def listener(space: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens in that namespace."""
    with inside(space):
        listening = socket.create_server(("0.0.0.0", port))
    with listening:
        yield listening


def can_connect(space: str, address: str, port: int, *, timeout_s: float = 0.3) -> bool:
    """Say whether a connection from that namespace comes about."""
    with inside(space), socket.socket() as caller:
        caller.settimeout(timeout_s)
        try:
            caller.connect((address, port))
        except OSError:
            return False
        return True


def ip(*words: str) -> str:
    """Run ip, and see that it succeeds."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout

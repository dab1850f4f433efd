"""The moment at which a program begins on a host, whatever the login shell there did before."""

from __future__ import annotations

import time
from typing import Protocol

from burnin.fleet.launchers.bootstrap import HELLO, opening
from burnin.fleet.launchers.channel import Channel, Program
from probes.errors import TargetError

NOISE_BYTES_MAX = 1 << 16  # what a login shell may print before
_LAST_CHARACTERS_MAX = 300


class NotBegun(TargetError):
    """A host let us in, and then the program did not begin."""


class Opened(Channel, Protocol):
    """A channel to a command that has been started, and to which bytes can be given back."""

    def unread(self, data: bytes) -> None:
        """Put back what was read too far."""


def begin(channel: Opened, program: Program, *, host: str, within_s: float) -> Channel:
    """Send a program to the command of ``bootstrap`` at the other end, and wait until it has begun.

    Raises:
        NotBegun: it ended before, or took too long; the channel is ended then.
    """
    began = time.monotonic()
    deadline = began + within_s
    try:
        channel.write(opening(program))
    except TargetError as error:
        raise NotBegun(f"{host}: the program did not begin: {_last_words(channel, b'')}") from error
    heard = b""
    while HELLO not in heard:
        if not channel.wait(max(deadline - time.monotonic(), 0)):
            channel.end()
            raise NotBegun(
                f"{host}: logged in, but no program began within {within_s:.0f} s; look at what the login"
                " shell does first there (~/.bashrc, /etc/profile.d), and at the wrapper"
            )
        data = channel.read()
        if not data:
            raise NotBegun(f"{host}: the program did not begin: {_last_words(channel, heard)}")
        heard = (heard + data)[-NOISE_BYTES_MAX - len(data) :]
    channel.begin_s = time.monotonic() - began
    channel.unread(heard.partition(HELLO)[2])
    return channel


def _last_words(channel: Channel, heard: bytes) -> str:
    status = channel.end()
    lines = (channel.errors() or heard).decode(errors="replace").strip().splitlines()
    return f"{lines[-1][:_LAST_CHARACTERS_MAX] if lines else 'it said nothing'} (exit status {status})"

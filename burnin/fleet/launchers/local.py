"""Programs on this machine itself, started the same way as on any other host."""

from __future__ import annotations

import sys

from burnin.fleet.host import Access, Host
from burnin.fleet.launchers.bootstrap import command_words
from burnin.fleet.launchers.channel import Channel, Program
from burnin.fleet.launchers.hello import begin
from burnin.fleet.launchers.pipes import PipeChannel
from probes.errors import TargetError

_DEFAULT_PYTHON = Access().python


class LocalLauncher:
    """Starts programs as children of this process; without another word they run on our own Python."""

    def __init__(self) -> None:
        self._channels: list[PipeChannel] = []

    def start(self, host: Host, program: Program, *, within_s: float) -> Channel:
        """Start a program on this machine.

        Raises:
            TargetError: it did not begin within ``within_s``.
        """
        access = host.access
        python = sys.executable if access.python == _DEFAULT_PYTHON and not access.wrapper else access.python
        try:
            channel = PipeChannel(command_words(python, access.wrapper), host=host.name)
        except OSError as error:
            raise TargetError(f"{host.name}: {error.filename or python}: {error.strerror}") from error
        self._channels.append(channel)
        return begin(channel, program, host=host.name, within_s=within_s)

    def close(self) -> list[int]:
        """End whatever is left; return the processes that could not be ended: stuck in the kernel."""
        channels, self._channels = self._channels, []
        return [channel.pid for channel in channels if channel.end() is None]

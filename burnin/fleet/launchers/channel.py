"""The one small protocol behind which local, SSH and Slurm hosts look alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from burnin.fleet.host import Host

ARCHIVE = "{archive}"  # stands in ``Program.arguments`` for the path of the archive on the host


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is to run on a host: arguments for its interpreter, and the archive of modules that travels.

    ``(ARCHIVE, "burnin.node.agent")`` runs a module of the archive; torchrun takes ARCHIVE as its script. The
    program stands in ``/`` and reads its own input from standard input, which is its lifeline as well.
    """

    arguments: tuple[str, ...]
    archive: bytes
    environment: tuple[tuple[str, str], ...] = ()  # travels on standard input, on top of the host's own


class Channel(Protocol):
    """The two streams of one program on one host; the end of ours is the end of the program."""

    begin_s: float  # from the login to the first word of the program: what login shell and wrapper took

    def write(self, data: bytes) -> None:
        """Send to its standard input.

        Raises:
            TargetError: the connection or the program is gone.
        """

    def wait(self, within_s: float) -> bool:
        """Wait for standard output to say something or to end; False: it did neither in time."""

    def read(self) -> bytes:
        """Return what came from its standard output, waiting for some; empty at its end."""

    def errors(self) -> bytes:
        """Return the last that came from its standard error: a tail of at most 64 KiB."""

    def end(self) -> int | None:
        """Close both streams and end the program; its exit status, None where it cannot be known."""


class Launcher(Protocol):
    """Starts programs on hosts."""

    def start(self, host: Host, program: Program, *, within_s: float) -> Channel:
        """Start a program on a host.

        Raises:
            TargetError: the host is not reached within ``within_s``, refuses us, or is not who it should be.
        """

    def close(self) -> object:
        """End whatever is left: connections, allocations, processes."""

"""What a fault on a host is, on the host itself, and what the faults share: commands, processes, refusals."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Any, Protocol

COMMAND_DEADLINE_S = 10.0
_TOOLS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {"PATH": _TOOLS, "LC_ALL": "C"}  # what tools print is read, so it is English


class Refused(Exception):
    """The target is not, or no longer, one that may be hit; says why to a person. Nothing was injected."""


class HostFault(Protocol):
    """A fault of a host. State and arguments are plain JSON."""

    name: str  # as in FAULTS: "link.down"

    def missing(self, arguments: dict[str, Any]) -> list[str]:
        """Say what must be there and is not, in sentences for a person; empty: it can be done."""

    def capture(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the prior state and all that undoing needs, with ``subject``: what is hit, in a few words.

        ``identity``, where there is one, is what has to stay as a plan showed it, such as a process's pid and
        start time; it is the same each time while nothing has changed. A state with ``may_cut_ssh`` true is
        injected and verified without us, and seen by us once the timer has undone it. Touches nothing.

        Raises:
            Refused: the selection is empty, or dangerous.
        """

    def inject(self, state: dict[str, Any]) -> None:
        """Break what was captured.

        Raises:
            Refused: the bounds no longer hold.
        """

    def verify(self, state: dict[str, Any]) -> tuple[bool, str]:
        """Return whether the fault is there, as seen on the host itself, and what was seen."""

    def undo(self, state: dict[str, Any]) -> tuple[bool, str, bool]:
        """Put back what was captured: whether it is restored, as seen; what was done; whether we had to act.

        Idempotent, and right also where the fault was armed and never injected, and after a reboot.
        """


class UnseenFault(HostFault, Protocol):
    """A fault of which nothing on the host says whether it is still there."""

    def is_seen_restored(self, state: dict[str, Any]) -> bool:
        """Return whether something shows, after undoing, that it is gone."""


class HealedFault(HostFault, Protocol):
    """A fault that the platform is to heal by itself; the others only undoing ends."""

    def healed(self, state: dict[str, Any]) -> tuple[bool, str]:
        """Return whether it is healed, as seen on the host, and what was seen. Touches nothing."""


def run_command(
    words: Sequence[str], *, deadline_s: float = COMMAND_DEADLINE_S, given: str = ""
) -> tuple[int, str]:
    """Run a program without a shell; return its exit status and what it said, both streams together.

    127 where there is no such program, 124 where it took longer than its deadline.
    """
    try:
        done = subprocess.run(
            list(words),
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=deadline_s,
            env=_ENVIRONMENT,
            check=False,
        )
    except FileNotFoundError:
        return 127, f"{words[0]}: not there"
    except PermissionError as error:
        return 126, f"{words[0]}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return 124, f"{words[0]}: took longer than {deadline_s:g} s"
    return done.returncode, done.stdout.strip()

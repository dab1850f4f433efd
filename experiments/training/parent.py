"""Processes that end with the one that started them, also by kill -9 and also while they are stopped.

A lifeline on standard input does not end a process that is stopped, which does not run to see it. The kernel
does.
"""

from __future__ import annotations

import ctypes
import os
import signal

PARENT_VARIABLE = "OVERPROOF_TRAINING_PARENT"
_PR_SET_PDEATHSIG = 1


def parent_environment() -> dict[str, str]:
    """Return what a child of this process needs in its environment to end with it."""
    return {PARENT_VARIABLE: str(os.getpid())}


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(os.environ[PARENT_VARIABLE]):
        os._exit(1)  # it has gone already

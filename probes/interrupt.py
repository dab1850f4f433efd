"""Ctrl-C, SIGTERM and SIGHUP mean one thing: stop, put back what was changed, keep the record readable."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from probes.errors import Interrupted

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt_on_signals() -> None:
    """Raise ``Interrupted`` in the main thread at the first stop signal, and say so at any further one.

    A second Ctrl-C must not cut short the undo that the first one began; every step of the way out has a
    deadline of its own, so ignoring it cannot hang us.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, _raise_once)


def _raise_once(number: int, frame: FrameType | None) -> None:
    del frame
    for other in STOP_SIGNALS:
        signal.signal(other, _already_stopping)
    raise Interrupted(signal.Signals(number).name)


def _already_stopping(number: int, frame: FrameType | None) -> None:
    del frame
    sys.stderr.write(f"{signal.Signals(number).name}: already stopping, putting things back\n")

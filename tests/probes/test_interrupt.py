"""Stop signals, in a process of their own."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

STUBBORN = """
import sys, time
from probes.errors import Interrupted
from probes.interrupt import interrupt_on_signals
interrupt_on_signals()
try:
    print("ready", flush=True)
    try:
        time.sleep(60)
    except Exception:
        print("a library took it for a failed action", flush=True)
except Interrupted as stop:
    print("stopped by", stop.signal_name, flush=True)
    time.sleep(float(sys.argv[1]))
    print("put back", flush=True)
"""


def start(undo_s: float) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", STUBBORN, str(undo_s)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_stop_signal_stops_in_order(number: signal.Signals) -> None:
    child = start(undo_s=0)

    child.send_signal(number)
    out, err = child.communicate(timeout=20)

    assert (out, err, child.returncode) == (f"stopped by {number.name}\nput back\n", "", 0)


def test_further_signals_do_not_cut_the_undo_short() -> None:
    child = start(undo_s=0.5)
    child.send_signal(signal.SIGINT)
    assert child.stdout is not None
    assert child.stdout.readline() == "stopped by SIGINT\n"

    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=20)

    assert (out, child.returncode) == ("put back\n", 0)
    assert "SIGTERM: already stopping, putting things back\n" in err

"""Named points at which a test can have a signal sent; without OVERPROOF_CRASH_POINT they do nothing.

``OVERPROOF_CRASH_POINT=inject.after:SIGKILL:controller`` sends SIGKILL to the controller of the game day when
any process of it first reaches ``inject.after``. Whom: ``self``, ``controller``, ``chaos`` or ``load``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "OVERPROOF_CRASH_POINT"
RUN_VARIABLE = "OVERPROOF_RUN"  # folder of the game day's run
FIRED_FILE = ".crash-point"
DURING_S = 0.005  # from the beginning of something to the middle of it
POINTS = tuple(
    f"{step}.{when}"
    for step in (
        "ledger.armed",
        "inject",
        "ledger.injected",
        "verify",
        "ledger.verified",
        "undo",
        "ledger.undone",
    )
    for when in ("before", "during", "after")
)


def prepare(run: Path) -> None:
    """Name the run in our own process too, which its children have from us."""
    if VARIABLE in os.environ:
        os.environ[RUN_VARIABLE] = str(run)


def crash_at(point: str) -> None:
    """Send the signal if this is the point, once in a run."""
    wanted, run_folder = os.environ.get(VARIABLE), os.environ.get(RUN_VARIABLE)
    if wanted is None or run_folder is None:
        return
    name, number, whom = (*wanted.split(":"), "self")[:3]
    run = Path(run_folder)
    if name != point or not _is_first(run):
        return
    pid = os.getpid() if whom == "self" else _pid_of(whom, run)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.Signals[number])


@contextlib.contextmanager
def crash_around(step: str) -> Iterator[None]:
    """Offer the points before, during and after a step."""
    crash_at(f"{step}.before")
    if os.environ.get(VARIABLE, "").startswith(f"{step}.during:"):
        timer = threading.Timer(DURING_S, crash_at, [f"{step}.during"])
        timer.daemon = True
        timer.start()
    yield
    crash_at(f"{step}.after")


def is_torn(step: str) -> bool:
    """Say whether a write is to be torn in two, for something to happen in between."""
    return os.environ.get(VARIABLE, "").startswith(f"{step}.during:")


def _is_first(run: Path) -> bool:
    try:
        os.close(os.open(run / FIRED_FILE, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError:
        return False
    return True


def _pid_of(whom: str, run: Path) -> int | None:
    if whom == "controller":
        return int(json.loads((run / "run.json").read_text())["pid"])
    kind = f'"kind":"{whom}.started"'
    for line in (run / "events.ndjson").read_text().splitlines():
        if kind in line:
            pid = json.loads(line)["data"].get("pid")
            if pid is not None:
                return int(pid)
    return None

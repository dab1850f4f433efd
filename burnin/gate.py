"""The gate before a job: a burn-in of a minute in a prolog, an epilog or an init container that harms nobody.

A prolog that fails drains the node and puts the job back. So by default this reports and lets pass, whatever
happens; told to enforce, it fails for a FAIL alone, never for what is undecided, late or broken.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from probes.child import end_child, python_module, start_child

MODULE = "overproof"
SAID_MAX = 64 * 1024 * 1024  # characters of the answer: findings of every GPU
GRACE_S = 3.0
_EXIT_FAIL = 1
# The burn-in ends with us, also after kill -9 of the prolog; the setting outlives the exec.
_DIES_WITH_US = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0);"
    "os.execv(sys.argv[1], sys.argv[1:])"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """What the gate came to."""

    outcome: str  # "pass", "fail", "inconclusive", "late" or "broken"
    said: str


def pass_gate(
    out: Path,
    *,
    within_s: float,
    device: str,
    program: tuple[str, ...] | None = None,
    duration_s: float | None = None,
    seeded: tuple[str, ...] = (),
) -> Passage:
    """Run the burn-in in a process of its own and wait no longer than that. Raises nothing."""
    arguments = ("burnin", "run", "--profile", "gate", "--device", device, "--out", str(out), "--json")
    length = () if duration_s is None else ("--duration-s", str(duration_s))
    faults = [word for text in seeded for word in ("--seed-fault", text)]
    try:
        command = [*(program or python_module(MODULE)), *arguments, *length, *faults]
        child = start_child([sys.executable, "-P", "-c", _DIES_WITH_US, *command])
    except OSError as error:
        return Passage(outcome="broken", said=f"overproof could not be started: {error.strerror}")
    try:
        return _read(child, within_s)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Passage(outcome="broken", said=f"no answer that can be read: {type(error).__name__}: {error}")
    finally:
        end_child(child, grace_s=GRACE_S)
        if child.stdout is not None:
            child.stdout.close()


def _read(child: subprocess.Popen[str], within_s: float) -> Passage:
    began = time.monotonic()
    try:
        said, _ = child.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        return Passage(outcome="late", said=f"no verdict within {within_s:.0f} s")
    if not said.strip():
        return Passage(outcome="broken", said=f"overproof ended with {child.returncode} and said nothing")
    document = json.loads(said[:SAID_MAX])
    bad = [f for f in document["findings"] if f["outcome"] == document["outcome"] and not f["waiver"]]
    told = "; ".join(f"{f['rule']} {f['subject']}: {f['observed']}"[:160] for f in bad[:3])
    seconds = f"{time.monotonic() - began:.0f} s"
    why = f": {told}" if document["outcome"] != "pass" else ""
    return Passage(outcome=str(document["outcome"]), said=f"{seconds}, {document['run']}{why}")


def exit_code(passage: Passage, *, is_enforced: bool) -> int:
    """Return 1 for a FAIL that is to be enforced, else 0."""
    return _EXIT_FAIL if is_enforced and passage.outcome == "fail" else 0


def tell(passage: Passage) -> None:
    """Say on standard error what the gate came to; if nobody can hear it, that harms nobody either."""
    try:
        sys.stderr.write(f"overproof gate: {passage.outcome}: {passage.said}\n")
        sys.stderr.flush()
    except OSError:
        return

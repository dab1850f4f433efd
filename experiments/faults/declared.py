"""The undo of faults by actions that are not ours: the experiment's own activity, and its own probe after it.

Unlike for our faults, the ledger's entry itself carries what undoing calls. So the ledger is readable and
writable by its owner alone, and whoever undoes runs what the experiment of that run has declared.
"""

from __future__ import annotations

from experiments.chaos.activity import carry_out, look_until
from experiments.declared.fault import NAME
from experiments.faults.fault import PLATFORM, UNDO, Fault, FaultRefused, Undoing, Verification
from probes.errors import TargetError
from probes.json_types import JsonObject

TIMEOUT_S = 60.0  # of an activity that states none


def timeout_of(activity: JsonObject) -> float:
    """Return how long one go of an activity may take."""
    stated = activity.get("timeout") or (activity.get("provider") or {}).get("timeout")
    return float(stated) if isinstance(stated, (int, float)) else TIMEOUT_S


def verify(captured: JsonObject) -> Verification:
    """Look whether the fault has taken hold, by the probe that was declared for it."""
    if captured["verify"] is None:
        return Verification(is_verified=False, observed="nobody can say whether it took hold: no verify")
    is_there, observed = _look(captured, is_wanted=True, within_s=captured["within_s"])
    return Verification(is_verified=is_there, observed=observed)


def look_whether_gone(captured: JsonObject, *, within_s: float) -> tuple[bool, str]:
    """Look whether the fault is gone: its probe answers, and is out of tolerance."""
    return _look(captured, is_wanted=False, within_s=within_s)


def undo(captured: JsonObject) -> Undoing:
    """Carry the declared activity out, and look whether the fault is gone.

    What the platform was to end is looked at first: nothing is done where it has.
    """
    activity, can_look = captured["undo"], captured["verify"] is not None
    if captured["ends_by"] == PLATFORM and can_look:
        within_s = 0.0 if activity else captured["within_s"]
        is_gone, observed = look_whether_gone(captured, within_s=within_s)
        if is_gone or activity is None:
            did = f"nothing to do: {observed}" if is_gone else f"no undo is declared, and {observed}"
            return Undoing(is_restored=is_gone, did=did, has_acted=False)
    assert activity is not None, "a fault without undo and verify is not armed"
    name = activity["name"]
    try:
        said = carry_out(activity, captured, timeout_s=timeout_of(activity))
    except TargetError as error:
        if not can_look:
            raise
        said = str(error)  # it may have been undone before, which its probe will tell
    if not can_look:
        did = f"carried out {name!r}; nobody can see whether it is gone: no verify"
        return Undoing(is_restored=True, did=did, has_acted=True, is_seen=False)
    is_gone, observed = look_whether_gone(captured, within_s=captured["within_s"])
    return Undoing(is_restored=is_gone, did=f"{name!r} said {said}; {observed}", has_acted=True)


def _look(captured: JsonObject, *, is_wanted: bool, within_s: float) -> tuple[bool, str]:
    probe = captured["verify"]
    return look_until(probe, captured, is_wanted=is_wanted, within_s=within_s, timeout_s=timeout_of(probe))


def _inject(captured: JsonObject) -> None:
    raise FaultRefused(f"{captured['action']!r} is carried out by Chaos Toolkit")


DECLARED = Fault(
    name=NAME,
    fidelity="declared",
    ends_by=UNDO,  # each entry says for itself
    subject=lambda captured: str(captured["subject"]),
    recheck=lambda _: None,
    inject=_inject,
    verify=verify,
    undo=undo,
)

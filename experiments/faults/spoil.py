"""A bad rollout of one replica: restarted with arguments that make it crash, or answer wrongly."""

from __future__ import annotations

import signal
from pathlib import Path

from experiments.faults.fault import UNDO, Fault, FaultRefused, Undoing, Verification
from experiments.faults.victims import (
    A_LAB,
    names_of,
    processes_of,
    recheck_victims,
    see_serving,
    subject_of,
    undo_in_lab,
)
from experiments.lab.control import Lab, ask_lab, read_lab
from probes.child import wait_until
from probes.json_types import JsonObject

CRASHING = ("--no-such-option",)
ANSWERING_WRONGLY = ("--fault", "wrong:1")
VERIFY_TIMEOUT_S = 20.0


def with_arguments(captured: JsonObject, arguments: tuple[str, ...]) -> JsonObject:
    """Add the arguments that the victims are to be restarted with."""
    return captured | {"arguments": list(arguments)}


def spoil_victims(captured: JsonObject) -> None:
    """Have the victims' next start take the arguments, and restart them."""
    _set_arguments(captured, captured["arguments"])
    for victim in processes_of(captured):
        if not victim.send(signal.SIGKILL):
            raise FaultRefused(f"{subject_of(captured)}: pid {victim.pid} was gone before it was hit")


def _set_arguments(captured: JsonObject, arguments: list[str]) -> None:
    for name in names_of(captured):
        ask_lab(Path(captured["lab"]), {"do": "spoil", "replica": name, "arguments": arguments})


def verify_crashing(captured: JsonObject) -> Verification:
    """See each victim started again at least twice, and serving in between never."""
    before = _restarts(captured)
    is_seen = wait_until(
        lambda: all(now >= then + 2 for now, then in zip(_restarts(captured), before, strict=True)),
        timeout_s=VERIFY_TIMEOUT_S,
    )
    serving = [name for name in names_of(captured) if name in {r.name for r in _lab(captured).serving}]
    return Verification(
        is_verified=is_seen and not serving,
        observed=f"{subject_of(captured)}: restarts went from {before} to {_restarts(captured)}, "
        f"serving now: {', '.join(serving) or 'none of them'}",
    )


def verify_wrong(captured: JsonObject) -> Verification:
    """See each victim serve again, with the arguments that spoil it."""

    def runs_spoiled(name: str) -> bool:
        replica = _lab(captured).replica(name)
        return replica is not None and replica.is_serving and list(replica.runs_with) == captured["arguments"]

    is_seen = wait_until(lambda: all(map(runs_spoiled, names_of(captured))), timeout_s=VERIFY_TIMEOUT_S)
    state = "serves" if is_seen else "was not seen to serve"
    return Verification(
        is_verified=is_seen,
        observed=f"{subject_of(captured)}: {state} with {' '.join(captured['arguments'])}",
    )


def _restarts(captured: JsonObject) -> list[int]:
    lab = _lab(captured)
    return [replica.restarts for name in names_of(captured) if (replica := lab.replica(name)) is not None]


def _any_runs_spoiled(captured: JsonObject) -> bool:
    lab = _lab(captured)
    return any((r := lab.replica(name)) and r.runs_with and r.process for name in names_of(captured))


def _lab(captured: JsonObject) -> Lab:
    return read_lab(Path(captured["lab"]))


def undo_spoil(captured: JsonObject) -> Undoing:
    """Take the arguments back, and restart whichever victim still runs with them."""

    def restore() -> Undoing:
        lab = _lab(captured)
        spoiled = [
            r for name in names_of(captured) if (r := lab.replica(name)) and (r.spoiled_by or r.runs_with)
        ]
        _set_arguments(captured, [])
        for replica in spoiled:
            if replica.process is not None and replica.runs_with:
                replica.process.send(signal.SIGKILL)
        wait_until(lambda: not _any_runs_spoiled(captured), timeout_s=VERIFY_TIMEOUT_S)
        names = ", ".join(replica.name for replica in spoiled)
        return see_serving(captured, did=f"gave {names} its own arguments again" if spoiled else "")

    return undo_in_lab(captured, restore)


CRASH_LOOP = Fault(
    name="replica.crash-loop",
    fidelity="P",
    ends_by=UNDO,
    subject=subject_of,
    recheck=recheck_victims,
    inject=spoil_victims,
    verify=verify_crashing,
    undo=undo_spoil,
    needs=(A_LAB,),
    covers=("software-crash", "bad-rollout"),
)
WRONG = Fault(
    name="replica.wrong",
    fidelity="P",
    ends_by=UNDO,
    subject=subject_of,
    recheck=recheck_victims,
    inject=spoil_victims,
    verify=verify_wrong,
    undo=undo_spoil,
    needs=(A_LAB,),
    covers=("wrong-answers",),
)

"""A replica that gets too little of its processor: stopped most of the time, or crowded onto one core.

What presses is a process beside it that leaves when its time is over, when whoever started it is gone, or
when undoing ends it; its token in the ledger finds it.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from pathlib import Path

from experiments.faults.fault import UNDO, Fault, FaultRefused, Undoing, Verification
from experiments.faults.press import MODULE
from experiments.faults.victims import (
    A_LAB,
    processes_of,
    recheck_victims,
    see_serving,
    subject_of,
    undo_in_lab,
)
from experiments.lab.control import Process
from probes.child import is_alive, process_start_time, process_state, python_module, start_child, wait_until
from probes.json_types import JsonObject

LOOK_S, LOOKS = 1.0, 200
_END_TIMEOUT_S = 5.0


def with_squeeze(captured: JsonObject, *, stopped_share: float, for_s: float) -> JsonObject:
    """Add what slowing these victims down takes."""
    return captured | {"stopped_share": stopped_share, "for_s": for_s, "token": secrets.token_hex(8)}


def with_burners(captured: JsonObject, *, burners: int, for_s: float) -> JsonObject:
    """Add what crowding these victims takes, and which cores each could use before."""
    cores = {str(p.pid): sorted(os.sched_getaffinity(p.pid)) for p in processes_of(captured)}
    core = min(min(own) for own in cores.values())
    return (
        captured
        | {"cores": cores, "core": core, "burners": burners, "for_s": for_s}
        | {"token": secrets.token_hex(8)}
    )


def slow_down(captured: JsonObject) -> None:
    """Start one process for each victim that stops it for a share of the time."""
    for victim in processes_of(captured):
        _start(captured, "squeeze", f"--pid={victim.pid}", f"--start-time={victim.start_time}",
               f"--stopped-share={captured['stopped_share']}")  # fmt: skip


def crowd(captured: JsonObject) -> None:
    """Confine each victim to one core, and keep that core busy."""
    for victim in processes_of(captured):
        if not victim.is_alive:
            raise FaultRefused(f"{subject_of(captured)}: pid {victim.pid} was gone before it was hit")
        os.sched_setaffinity(victim.pid, {captured["core"]})
    for _ in range(captured["burners"]):
        _start(captured, "burn", f"--core={captured['core']}")


_pressing: list[subprocess.Popen[str]] = []  # their lifelines are ours: they leave with this process


def _start(captured: JsonObject, kind: str, *arguments: str) -> None:
    command = python_module(
        MODULE, kind, f"--token={captured['token']}", f"--for-s={captured['for_s']}", *arguments
    )
    _pressing.append(start_child(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))


def pressing_with(token: str) -> list[Process]:
    """Return the processes that press with this token."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile, or is not ours to look at
        if MODULE.encode() in words and f"--token={token}".encode() in words:
            pid = int(folder.name)
            found.append(Process(pid=pid, start_time=process_start_time(pid)))
    return [process for process in found if process.is_alive]


def verify_slow(captured: JsonObject) -> Verification:
    """Look many times whether the victims are stopped about as often as was meant."""
    share = look_for_stops(captured)
    return Verification(
        is_verified=share >= captured["stopped_share"] / 2,
        observed=f"{subject_of(captured)}: stopped in {share:.0%} of {LOOKS} looks",
    )


def look_for_stops(captured: JsonObject) -> float:
    """Return in which share of many looks the victims were stopped."""
    wait_until(lambda: bool(pressing_with(captured["token"])), timeout_s=_END_TIMEOUT_S)
    victims, stopped = processes_of(captured), 0
    time.sleep(LOOK_S)  # the pressing processes start
    for _ in range(LOOKS):
        stopped += sum(process_state(victim.pid) == "T" for victim in victims)
        time.sleep(LOOK_S / LOOKS)
    return stopped / (LOOKS * len(victims))


def verify_crowd(captured: JsonObject) -> Verification:
    """See that the victims have one core, and that the burners are busy on it."""
    wait_until(lambda: len(pressing_with(captured["token"])) >= captured["burners"], timeout_s=_END_TIMEOUT_S)
    burners = pressing_with(captured["token"])
    are_confined = all(
        is_alive(v.pid, v.start_time) and os.sched_getaffinity(v.pid) == {captured["core"]}
        for v in processes_of(captured)
    )
    return Verification(
        is_verified=are_confined and len(burners) == captured["burners"],
        observed=f"{subject_of(captured)}: {'confined' if are_confined else 'not confined'} to core "
        f"{captured['core']} with {len(burners)} busy processes",
    )


def undo_pressure(captured: JsonObject) -> Undoing:
    """End what presses, let the victims go on, and give them their cores again."""
    pressing = end_pressing(captured)

    def restore() -> Undoing:
        return see_serving(captured, did=f"ended {pressing} pressing processes" if pressing else "")

    return undo_in_lab(captured, restore)


def end_pressing(captured: JsonObject) -> int:
    """End what presses, free the victims of it, and return how many processes pressed."""
    pressing = pressing_with(captured["token"])
    for process in pressing:
        process.send(signal.SIGTERM)
    if not wait_until(lambda: not pressing_with(captured["token"]), timeout_s=_END_TIMEOUT_S):
        for process in pressing_with(captured["token"]):
            process.send(signal.SIGKILL)
    for victim in processes_of(captured):
        victim.send(signal.SIGCONT)  # whoever was killed in the middle could not
        if victim.is_alive and str(victim.pid) in captured.get("cores", {}):
            os.sched_setaffinity(victim.pid, captured["cores"][str(victim.pid)])
    for child in [child for child in _pressing if child.poll() is not None]:
        _pressing.remove(child)
        if child.stdin is not None:
            child.stdin.close()
    return len(pressing)


SLOW = Fault(
    name="replica.slow",
    fidelity="P",
    ends_by=UNDO,
    subject=subject_of,
    recheck=recheck_victims,
    inject=slow_down,
    verify=verify_slow,
    undo=undo_pressure,
    needs=(A_LAB,),
    covers=("straggler",),
)
CPU = Fault(
    name="replica.cpu",
    fidelity="P",
    ends_by=UNDO,
    subject=subject_of,
    recheck=recheck_victims,
    inject=crowd,
    verify=verify_crowd,
    undo=undo_pressure,
    needs=(A_LAB,),
    covers=("straggler", "host-exhausted"),
)

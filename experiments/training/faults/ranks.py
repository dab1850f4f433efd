"""Ranks that die, hang, or are slow."""

from __future__ import annotations

import signal
from dataclasses import replace

from experiments.faults.fault import PLATFORM, UNDO, Fault, Undoing, Verification
from experiments.faults.hang import VERIFY_TIMEOUT_S
from experiments.faults.pressure import LOOKS, end_pressing, look_for_stops, slow_down
from experiments.faults.replica import DEATH_TIMEOUT_S
from experiments.faults.victims import processes_of
from experiments.training.faults.targets import (
    recheck_targets,
    send_to,
    subject_of,
    undo_in_job,
    victims_alive,
)
from probes.child import process_state, wait_until
from probes.json_types import JsonObject

STOPPED = ("T", "t")


def verify_death(captured: JsonObject) -> Verification:
    """See that the very processes that were chosen are gone."""
    wait_until(lambda: not victims_alive(captured), timeout_s=DEATH_TIMEOUT_S, interval_s=0.01)
    alive = [victim.pid for victim in victims_alive(captured)]
    pids = ", ".join(str(victim["pid"]) for victim in captured["victims"])
    state = f"{alive} still runs {DEATH_TIMEOUT_S:g} s later" if alive else "is gone"
    return Verification(is_verified=not alive, observed=f"{subject_of(captured)}: pid {pids} {state}")


def verify_stop(captured: JsonObject) -> Verification:
    """See in the kernel's own words that the processes are stopped."""
    pids = [victim.pid for victim in processes_of(captured)]
    is_seen = wait_until(
        lambda: all(process_state(pid) in STOPPED for pid in pids),
        timeout_s=VERIFY_TIMEOUT_S,
        interval_s=0.01,
    )
    states = ", ".join(f"pid {pid} is in state {process_state(pid) or 'gone'}" for pid in pids)
    return Verification(is_verified=is_seen, observed=f"{subject_of(captured)}: {states}")


def let_go_on(captured: JsonObject) -> str:
    """Let those that are still stopped go on; say which those were."""
    alive = victims_alive(captured)
    stopped = [victim for victim in alive if process_state(victim.pid) in STOPPED]
    for victim in alive:
        # Also to one that does not look stopped: a SIGSTOP may be on its way, and this ends it.
        victim.send(signal.SIGCONT)
    return f"let pid {', '.join(str(victim.pid) for victim in stopped)} go on" if stopped else ""


def verify_slow(captured: JsonObject) -> Verification:
    """Look many times whether the ranks are stopped about as often as was meant."""
    share = look_for_stops(captured)
    return Verification(
        is_verified=share >= captured["stopped_share"] / 2,
        observed=f"{subject_of(captured)}: stopped in {share:.0%} of {LOOKS} looks",
    )


def undo_slow(captured: JsonObject) -> Undoing:
    """End what presses on the ranks, also where the job itself is gone."""
    pressing = end_pressing(captured)
    return undo_in_job(captured, lambda: f"ended {pressing} pressing processes" if pressing else "")


KILL = Fault(
    name="rank.kill",
    fidelity="P",
    ends_by=PLATFORM,
    subject=subject_of,
    recheck=recheck_targets,
    inject=lambda captured: send_to(captured["victims"], signal.SIGKILL),
    verify=verify_death,
    undo=lambda captured: undo_in_job(captured, lambda: ""),
    needs=("a training job of `overproof lab train up`",),
    covers=("software-crash",),
    heals="torchrun: it restarts every rank, from the newest whole checkpoint",
)
HANG = replace(
    KILL,
    name="rank.hang",
    inject=lambda captured: send_to(captured["victims"], signal.SIGSTOP),
    verify=verify_stop,
    undo=lambda captured: undo_in_job(captured, lambda: let_go_on(captured)),
    covers=("hang", "collective-timeout"),
    heals="the time-out of the job's collectives ends the ranks that wait; torchrun restarts all",
)
SLOW = replace(
    KILL,
    name="rank.slow",
    ends_by=UNDO,
    inject=slow_down,
    verify=verify_slow,
    undo=undo_slow,
    covers=("straggler",),
    heals="",
)

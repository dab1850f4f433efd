"""Actions, rollbacks and probes for Chaos Toolkit, on the lab.

Under ``overproof gameday run`` the environment names run, lab and seed. Under plain ``chaos run`` an action
arms a ledger of its own under ``runs/`` first, so that ``overproof gameday undo`` works there too.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from experiments.chaos.run_context import OUT, known_record_folder, record_folder, seed_or_drawn
from experiments.chaos.run_context import RUN_VARIABLE as RUN_VARIABLE
from experiments.chaos.run_context import SEED_VARIABLE as SEED_VARIABLE
from experiments.faults.fault import PLATFORM, load_fault
from experiments.faults.replica import KILL
from experiments.faults.victims import capture_victims, processes_of
from experiments.injecting.injection import inject_fault, undo_pending
from experiments.injecting.ledger import read_ledger
from experiments.lab.control import FOLDER_NAME, Lab, Process, read_lab
from probes.errors import TargetError
from probes.json_types import JsonObject
from probes.outcome import Outcome

LAB_VARIABLE = "OVERPROOF_LAB"  # folder of the lab
ENDPOINT_VARIABLE = "OVERPROOF_ENDPOINT"  # read by the experiment's configuration
FAULT_S_MAX = 600.0  # after which what presses on a process leaves by itself


def kill_replica(lab: str = "", replica: str = "", count: int = 1, seed: int | None = None) -> JsonObject:
    """Kill replicas of the lab, chosen by seed or named, and see that they are gone.

    Returns the victims, named in the ledger before they were hit.
    """
    return inject_fault(KILL, _victims(lab, replica, count, seed), record_folder())


def kill_all_replicas_but_one(lab: str = "", seed: int | None = None) -> JsonObject:
    """Kill every serving replica of the lab but one, which the seed spares."""
    count = len(read_lab(_lab_folder(lab)).serving) - 1
    return inject_fault(KILL, _victims(lab, "", count, seed), record_folder())


def hang_replica(lab: str = "", replica: str = "", seed: int | None = None) -> JsonObject:
    """Stop a replica's process without ending it: connections stay open and nothing answers."""
    from experiments.faults.hang import HANG

    return inject_fault(HANG, _victims(lab, replica, 1, seed), record_folder())


def slow_replica(
    lab: str = "",
    replica: str = "",
    seed: int | None = None,
    stopped_share: float = 0.8,
    for_s: float = FAULT_S_MAX,
) -> JsonObject:
    """Let a replica run for only a part of the time, until undone or ``for_s`` seconds at most."""
    from experiments.faults.pressure import SLOW, with_squeeze

    captured = _victims(lab, replica, 1, seed)
    return inject_fault(
        SLOW, with_squeeze(captured, stopped_share=stopped_share, for_s=for_s), record_folder()
    )


def press_on_cpu(
    lab: str = "", replica: str = "", seed: int | None = None, burners: int = 4, for_s: float = FAULT_S_MAX
) -> JsonObject:
    """Confine a replica to one core and keep that core busy, until undone or ``for_s`` seconds at most."""
    from experiments.faults.pressure import CPU, with_burners

    captured = _victims(lab, replica, 1, seed)
    return inject_fault(CPU, with_burners(captured, burners=burners, for_s=for_s), record_folder())


def press_on_memory(
    lab: str = "", replica: str = "", seed: int | None = None, headroom_bytes: int = 1 << 20
) -> JsonObject:
    """Let a replica have hardly more memory than it has now."""
    from experiments.faults.memory import MEMORY, with_limit

    captured = _victims(lab, replica, 1, seed)
    return inject_fault(MEMORY, with_limit(captured, headroom_bytes=headroom_bytes), record_folder())


def crash_replica_forever(lab: str = "", replica: str = "", seed: int | None = None) -> JsonObject:
    """Restart a replica with an argument that it does not know: it crashes at each start."""
    from experiments.faults.spoil import CRASH_LOOP, CRASHING, with_arguments

    captured = _victims(lab, replica, 1, seed)
    return inject_fault(CRASH_LOOP, with_arguments(captured, CRASHING), record_folder())


def spoil_answers(lab: str = "", replica: str = "", seed: int | None = None) -> JsonObject:
    """Restart a replica as one that answers fast, and wrongly."""
    from experiments.faults.spoil import ANSWERING_WRONGLY, WRONG, with_arguments

    captured = _victims(lab, replica, 1, seed)
    return inject_fault(WRONG, with_arguments(captured, ANSWERING_WRONGLY), record_folder())


def interrupt_spot_replica(
    lab: str = "",
    replica: str = "",
    seed: int | None = None,
    notice_s: float = 120.0,
    away_s: float = 10.0,
) -> JsonObject:
    """Warn a replica, take its machine away after ``notice_s``, and keep it away for ``away_s``."""
    from experiments.faults.spot import SPOT, with_notice

    captured = _victims(lab, replica, 1, seed)
    return inject_fault(SPOT, with_notice(captured, notice_s=notice_s, away_s=away_s), record_folder())


def restart_all_in_turn(lab: str = "") -> JsonObject:
    """Restart every replica, one after the other, as a rollout does."""
    from experiments.faults.rolling import ROLLING_RESTART, capture_all

    return inject_fault(ROLLING_RESTART, capture_all(_lab_folder(lab)), record_folder())


def delay_requests(
    lab: str = "", latency_s: float = 0.5, share: float = 1.0, seed: int | None = None, for_s: float = 120.0
) -> JsonObject:
    """Have the gateway wait before it sends requests on."""
    return _trouble(lab, seed, kind="latency", latency_s=latency_s, share=share, for_s=for_s)


def reset_streams(
    lab: str = "", share: float = 1.0, after_events: int = 3, seed: int | None = None, for_s: float = 120.0
) -> JsonObject:
    """Have the gateway reset connections in the middle of the answer."""
    return _trouble(lab, seed, kind="reset", after_events=after_events, share=share, for_s=for_s)


def swallow_requests(
    lab: str = "", share: float = 1.0, seed: int | None = None, for_s: float = 120.0
) -> JsonObject:
    """Have the gateway take requests and never answer."""
    return _trouble(lab, seed, kind="black-hole", share=share, for_s=for_s)


def answer_with_errors(
    lab: str = "", status: int = 503, share: float = 1.0, seed: int | None = None, for_s: float = 120.0
) -> JsonObject:
    """Have the gateway answer with an HTTP error of its own."""
    return _trouble(lab, seed, kind="error", status=status, share=share, for_s=for_s)


def _trouble(lab: str, seed: int | None, **trouble: object) -> JsonObject:
    from experiments.faults.gateway import TROUBLE, capture_gateway

    captured = capture_gateway(_lab_folder(lab), trouble | {"seed": seed_or_drawn(seed)})
    return inject_fault(TROUBLE, captured, record_folder())


def _victims(lab: str, replica: str, count: int, seed: int | None) -> JsonObject:
    return capture_victims(_lab_folder(lab), replica=replica, count=count, seed=seed_or_drawn(seed))


def undo_faults() -> JsonObject:
    """Undo whatever this experiment has left pending, and see that it is restored.

    Raises:
        TargetError: something could not be restored.
    """
    undone = undo_pending(record_folder(), by="rollback")
    failed = [u for u in undone if not u.is_restored]
    if failed:
        raise TargetError("; ".join(f"{u.entry.subject}: not restored: {u.did}" for u in failed))
    return {"undone": [{"subject": u.entry.subject, "did": u.did} for u in undone]}


restore_replicas = undo_faults  # the name that experiments of the lab use


def replicas_serve(lab: str = "", replicas_min: int = 0) -> JsonObject:
    """Say whether the lab's replicas serve: all of them, or at least so many."""
    return _judge_replicas(read_lab(_lab_folder(lab)), replicas_min)


def replicas_recovered(lab: str = "", within_s: float = 30.0, replicas_min: int = 0) -> JsonObject:
    """Wait, at most so long, until the lab's replicas serve again without our help.

    One that this experiment has hit, and that the platform has to heal, serves again only as another
    process: a replica that hangs counts as serving until somebody notices.
    """
    began, hit = time.monotonic(), _hit_processes()
    while True:
        now = read_lab(_lab_folder(lab))
        answer = _judge_replicas(now, replicas_min)
        left = [replica.name for replica in now.replicas if replica.process in hit]
        waited_s = time.monotonic() - began
        if left:
            answer |= {"outcome": Outcome.FAIL.value, "not_replaced": left}
        if answer["outcome"] == Outcome.PASS.value or waited_s >= within_s:
            return answer | {"waited_s": round(waited_s, 3)}
        time.sleep(0.1)


def _hit_processes() -> list[Process]:
    """Return the processes that faults of this experiment have hit and that are the platform's to replace."""
    folder = known_record_folder()
    entries = [] if folder is None else [e for e in read_ledger(folder) if e.is_pending]
    healed = [e for e in entries if load_fault(e.fault).ends_by == PLATFORM]
    return [process for entry in healed for process in processes_of(entry.captured)]


def _judge_replicas(lab: Lab, replicas_min: int) -> JsonObject:
    wanted = replicas_min or len(lab.replicas)
    serving = [replica.name for replica in lab.serving]
    outcome = Outcome.PASS if len(serving) >= wanted else Outcome.FAIL
    return {"outcome": outcome.value, "serving": serving, "wanted": wanted}


def _lab_folder(given: str) -> Path:
    """Find the lab: the argument, else the game day's, else the one that ``lab up`` left under runs/."""
    return Path(given or os.environ.get(LAB_VARIABLE) or OUT / FOLDER_NAME).resolve()

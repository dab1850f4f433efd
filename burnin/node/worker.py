"""One worker: one process per device, which runs each stage when the agent says so.

It reads its assignment and then one command per line from standard input, which is its lifeline as well. It
can hang or die at any point without harm to anything but its own device's verdict.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence

from burnin.node.pace import Pace
from burnin.node.speaker import Speaker
from probes.json_types import JsonObject

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Follow the agent's commands until it closes the lifeline."""
    _die_with_parent()
    assignment, commands = _listen()
    _claim_cores(assignment["cores"])
    speaker = Speaker("worker")
    pace = Pace(speaker, str(assignment["device"]))
    pace.start()
    try:
        _serve(assignment, commands, speaker, pace)
    except Exception as error:  # whatever a stage raises is told to the agent, which judges this device by it
        trace = traceback.format_exc()
        speaker.say(
            "worker.failed",
            device=assignment["device"],
            error=f"{type(error).__name__}: {error}",
            trace=trace,
        )
        _leave(1)


def _die_with_parent() -> None:
    """Have the kernel end us with the agent, even while we are stopped or stuck in a library."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _listen() -> tuple[JsonObject, queue.SimpleQueue[JsonObject]]:
    """Read the assignment, and from then on commands in a thread; the end of the lifeline ends us."""
    assignment = json.loads(sys.stdin.readline() or "null")
    if assignment is None:
        _leave(0)
    commands: queue.SimpleQueue[JsonObject] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            commands.put(json.loads(line))
        _leave(0)

    threading.Thread(target=read, name="lifeline", daemon=True).start()
    return assignment, commands


def _leave(code: int) -> None:
    """End without the clean-up of libraries, which can hang on a broken device."""
    os._exit(code)


def _claim_cores(cores: Sequence[int]) -> None:
    """Stay on the cores of our device; before torch is imported, because it counts them then."""
    if cores:
        os.sched_setaffinity(0, cores)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(len(cores))


def _serve(
    assignment: JsonObject, commands: queue.SimpleQueue[JsonObject], speaker: Speaker, pace: Pace
) -> None:
    started = time.monotonic()
    # Imported here: the cores must be claimed before, and the pulse goes on meanwhile.
    from burnin.node.bench import Bench
    from burnin.node.device import read_device
    from burnin.node.order import SeededFault
    from burnin.node.seeding import kinds_for
    from burnin.node.stages import Task, run_stage

    device, kind = str(assignment["device"]), str(assignment["kind"])
    faults = [SeededFault(**fault) for fault in assignment["seeded_faults"]]
    facts = read_device(kind, threads=len(assignment["cores"]))
    ready = {"pid": os.getpid(), "start_s": time.monotonic() - started, **facts.described}
    speaker.say("worker.ready", device=device, **ready)
    while True:
        command = commands.get()
        task = Task.from_command(command)
        speaker.cycle, cycle = task.cycle, task.cycle or 1
        bench = Bench(
            device=device,
            kind=kind,
            torch_device=facts.torch_device,
            speaker=speaker,
            pace=pace,
            seed=int(assignment["seed"]) + cycle - 1,  # each cycle has data of its own
            seeded=kinds_for(faults, stage=task.stage, device=device, cycle=cycle),
            only_controls=bool(task.options.get("only_controls")),
        )
        try:
            run_stage(bench, task)
        except Exception as error:
            if not pace.is_waiting:
                raise
            # While we wait for others an error tells of them or the way to them, not of this device.
            speaker.say(
                "collective.failed",
                stage=task.stage,
                phase=task.phase,
                device=device,
                devices=list(task.group.devices) if task.group else [],
                error=f"{type(error).__name__}: {error}",
            )
            pace.leave()
        speaker.say("round.done", stage=task.stage, phase=task.phase, device=device)


if __name__ == "__main__":
    main()

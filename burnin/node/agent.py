"""The agent: runs on the node, reads its order from standard input, says what was measured, line by line.

It touches no device itself. Workers and sampler do, and whichever of them hangs or dies is ended, named, and
left behind, while the others go on. When the launcher is gone, everything here ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from burnin.node.company import foreign_pids
from burnin.node.crew import SAMPLER, Crew, Member
from burnin.node.device_choice import Choice, choose_devices
from burnin.node.lifeline import ORDER_WITHIN_S, hold_lifeline
from burnin.node.order import LOADED_STAGES, Order, StageOrder, order_from_line
from burnin.node.rounds import ALONE, TOGETHER, Round, plan_rounds
from burnin.node.speaker import Speaker
from burnin.node.stall import find_stalled, is_stall_found
from burnin.node.tool_run import Program
from burnin.node.vendor_tools import STAGE as VENDOR
from burnin.node.vendor_tools import gpus_to_load, is_end, run_tools
from probes.child import read_first_line, signal_group, wait_until
from probes.event import Event
from probes.host import read_room
from probes.json_types import JsonObject

INVENTORY_WITHIN_S = 25.0  # the sampler's own deadline for NVML to answer lies below
READY_WITHIN_S = 180.0  # importing torch from a cold disk or a slow network share
SNAPSHOT_WITHIN_S = 10.0
RAW_WITHIN_S = 60.0  # 8 MiB over a slow line
# Beyond its length a stage may take the same again and this much, on a machine that others use too.
STAGE_GRACE_S = 30.0
ROUND_GRACE_S = 4.0  # a group of GPUs takes seconds to meet
HOST_LOADED = "host.load.done"
HOST_LOAD_WITHIN_S = 300.0  # each of its parts has a deadline of its own; disks may be many
TOOL_GRACE_S = 10.0  # a runner keeps its program's deadline itself


def main() -> None:
    """Do what the order says, and leave with everything that was started."""
    line = read_first_line(within_s=ORDER_WITHIN_S)
    if not line:
        return
    speaker = Speaker("agent")
    order = order_from_line(line)
    crew = Crew(speaker)
    leaving = _leave_with_launcher(crew, order, speaker)
    name = os.uname().nodename
    speaker.say("agent.started", pid=os.getpid(), python=sys.version.split()[0], name=name)
    Agent(order, speaker, crew).run()
    crew.end_all()
    leaving.acquire()  # whoever leaves because nobody is there any more has not finished
    speaker.say("agent.finished")
    os._exit(0)


def _leave_with_launcher(crew: Crew, order: Order, speaker: Speaker) -> threading.Lock:
    """End all children and leave, on SIGTERM and when the lifeline is lost, whichever comes first.

    Return the lock that is held from then on.
    """
    leaving = threading.Lock()

    def leave() -> None:
        if not leaving.acquire(blocking=False):
            return
        tools = [m.process for m in crew.members if not m.is_worker and m.name != SAMPLER and not m.is_gone]
        for process in tools:  # dcgmi has its daemon end the diagnostic, if it is asked to end
            signal_group(process.pid, signal.SIGTERM)
        wait_until(lambda: all(p.poll() is not None for p in tools), timeout_s=2.5, interval_s=0.02)
        for member in crew.members:
            signal_group(member.process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline and any(m.process.poll() is None for m in crew.members):
            time.sleep(0.01)
        os._exit(1)

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        leave()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher decides
    hold_lifeline(speaker, leave, silence_s=order.controller_silence_s)
    return leaving


class Agent:
    """One order being followed."""

    def __init__(self, order: Order, speaker: Speaker, crew: Crew) -> None:
        self._order = order
        self._speaker = speaker
        self._crew = crew
        self._sampler: Member | None = None  # None: not started yet
        self._workers: list[Member] = []
        self._is_cpu = True  # until a GPU is chosen
        self._intruded: set[str] = set()  # GPUs on which somebody else began to compute

    def run(self) -> None:
        """Run every stage of the order."""
        self._stage_started("preflight", 0.0)
        choice = self._preflight()
        self._stage_finished("preflight")
        for cycle in range(1, self._order.cycles + 1):
            self._speaker.cycle = cycle if self._order.cycles > 1 else None
            for stage in self._order.stages:
                if stage.name in LOADED_STAGES:
                    self._run_stage(stage, choice)
        self._speaker.cycle = None
        vendor = self._order.stage(VENDOR)
        if vendor is not None:
            self._run_vendor(vendor)
        if self._order.stage("aftermath"):
            self._stage_started("aftermath", 0.0)
            self._aftermath()
            self._stage_finished("aftermath")

    def _stage_started(self, name: str, length_s: float) -> None:
        self._speaker.say("stage.started", stage=name, length_s=length_s)

    def _stage_finished(self, name: str) -> None:
        self._speaker.say("stage.finished", stage=name)

    def _preflight(self) -> Choice:
        """See what there is, choose the devices, and start a worker for each."""
        bounds = {"raw_bytes_max": self._order.raw_bytes_max}
        self._sampler = self._crew.start("sampler", "burnin.node.sampler", bounds, is_worker=False)
        self._wait(
            lambda: self._heard("nvml.inventory") is not None or self._sampler_is_gone(), INVENTORY_WITHIN_S
        )
        choice = choose_devices(
            self._order.device,
            self._heard("nvml.inventory"),
            cpu_devices=self._order.cpu_devices,
            environment=os.environ,
        )
        self._is_cpu = choice.kind == "cpu"
        self._speaker.say(
            "inventory",
            device_kind=choice.kind,
            devices=[{"name": seat.name, "model": seat.model} for seat in choice.seats],
            problem=choice.problem,
            hidden=list(choice.hidden),
            visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        )
        self._speaker.say("room", **read_room())
        for seat in choice.seats:
            assignment = {
                "device": seat.name,
                "kind": choice.kind,
                "cores": seat.cores,
                "seed": self._order.seed,
                "seeded_faults": [asdict(fault) for fault in self._order.seeded_faults],
            }
            self._workers.append(
                self._crew.start(
                    seat.name, "burnin.node.worker", assignment, is_worker=True, env=seat.environment
                )
            )
        host_load = self._begin_host_load()
        self._wait(lambda: all(w.is_ready or w.is_gone for w in self._workers), READY_WITHIN_S)
        for worker in self._workers:
            if not worker.is_ready and not worker.is_gone:
                self._give_up(worker, "worker.late", stage="preflight", within_s=READY_WITHIN_S)
        if host_load is not None:
            self._wait(lambda: self._heard(HOST_LOADED) is not None or host_load.is_gone, HOST_LOAD_WITHIN_S)
            self._crew.end(host_load)
        return choice

    def _begin_host_load(self) -> Member | None:
        """Start the load of the host itself, beside the workers' start; None: the order has none."""
        options = self._order.preflight_options
        if not options:
            return None
        length_s = 0.0 if options.get("only_controls") else options["host_load_s"]
        asked = {"length_s": length_s, "disk": None if options.get("only_controls") else options.get("disk")}
        return self._crew.start("host", "burnin.node.host_load", asked, is_worker=False)

    def _heard(self, kind: str) -> JsonObject | None:
        return next((event.data for event in self._crew.heard if event.kind == kind), None)

    def _sampler_is_gone(self) -> bool:
        return self._sampler is None or self._sampler.is_gone

    def _wait(self, condition: Callable[[], bool], within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() >= deadline:
                return False
            self._crew.hear()
        return True

    def _give_up(self, worker: Member, kind: str, **why: object) -> None:
        """Name a worker that did not keep its time, and end it."""
        self._speaker.say(kind, device=worker.name, **why)
        self._crew.end(worker)

    def _run_stage(self, stage: StageOrder, choice: Choice) -> None:
        """Run one stage on every device that is left."""
        self._stage_started(stage.name, stage.length_s)
        self._speaker.say(
            "control",
            stage=stage.name,
            device="agent",
            detector="stalled worker",
            is_found=is_stall_found(self._order.stall_s),
            fidelity="parser only",
        )
        able = {worker.name: worker for worker in self._workers if not worker.is_gone}
        phases = stage.options.get("phases", (ALONE, TOGETHER))
        rounds = plan_rounds(stage.name, list(able), length_s=stage.length_s, phases=phases)
        if not rounds:
            reason = f"{len(able)} of {len(choice.seats)} devices left, and it takes two"
            self._speaker.say("stage.impossible", stage=stage.name, reason=reason)
        self._run_rounds(stage, rounds, able)
        self._stage_finished(stage.name)

    def _run_rounds(self, stage: StageOrder, rounds: Sequence[Round], able: dict[str, Member]) -> None:
        """Run one round after the other on those that are still there, until the stage's time is up."""
        within_s = 2 * stage.length_s + STAGE_GRACE_S + ROUND_GRACE_S * len(rounds)
        deadline, failed = time.monotonic() + within_s, set(able) if not rounds else set()
        for each in rounds:
            groups = [group for group in each.groups if not any(able[name].is_gone for name in group)]
            reason = "one of them was gone"
            if time.monotonic() >= deadline:
                groups, reason = [], f"the stage's {within_s:.0f} s were up"
            for group in (group for group in each.groups if group not in groups):
                said: JsonObject = {"stage": stage.name, "phase": each.phase, "devices": list(group)}
                self._speaker.say("group.skipped", **said, reason=reason)
                failed |= set(group)
            stores = [self._command(stage, each, [able[name] for name in group]) for group in groups]
            self._follow(stage, each, [able[name] for group in groups for name in group])
            for store in stores:
                os.close(store)
        for name, worker in able.items():
            if not worker.is_gone and (stage.name == "links" or name not in failed):
                self._speaker.say("worker.done", stage=stage.name, device=name)

    def _command(self, stage: StageOrder, each: Round, workers: Sequence[Member]) -> int:
        """Tell a group to begin. Ranks meet in a file that has no name and vanishes with us."""
        store = os.memfd_create("overproof-ranks")
        for rank, worker in enumerate(workers):
            command: JsonObject = {
                "stage": stage.name,
                "phase": each.phase,
                "length_s": each.length_s,
                "options": stage.options,
                "cycle": self._speaker.cycle,
            }
            if each.is_joined:
                # By the name that this /proc has for us: it may be that of another process namespace.
                path, names = f"/proc/{Path('/proc/self').readlink()}/fd/{store}", [w.name for w in workers]
                command["group"] = {"rank": rank, "world": len(workers), "store": path, "devices": names}
            sign = worker.sign
            sign.is_busy, sign.is_waiting = True, False
            sign.stepped_at = sign.heard_at = time.monotonic()
            self._crew.tell(worker, command)
        return store

    def _follow(self, stage: StageOrder, each: Round, workers: Sequence[Member]) -> None:
        """Hear the workers until each is done, has failed, has stalled, or is out of time."""
        deadline_s = 2 * each.length_s + STAGE_GRACE_S
        deadline = time.monotonic() + deadline_s
        groups = [[able for able in workers if able.name in group] for group in each.groups]
        while any(worker.sign.is_busy for worker in workers):
            self._crew.hear()
            self._make_way(stage)
            for group in groups:
                self._give_up_stalled(stage, group)
            if time.monotonic() >= deadline:
                for worker in [w for w in workers if w.sign.is_busy]:
                    self._give_up(worker, "worker.late", stage=stage.name, within_s=deadline_s)

    def _make_way(self, stage: StageOrder) -> None:
        """End our load for good as soon as somebody else computes on a GPU: first, do no harm."""
        told = [event.data for event in self._crew.heard if event.kind == "gpu.processes"]
        own = {worker.process.pid for worker in self._workers}
        for data in told:
            gpu = str(data["gpu"])
            foreign = foreign_pids(data["pids"], own=own, own_count=0 if self._is_cpu else 1)
            if foreign and gpu not in self._intruded:
                self._intruded.add(gpu)
                self._speaker.say("gpu.intruder", gpu=gpu, pids=foreign, stage=stage.name)
                for worker in [w for w in self._workers if not w.is_gone]:
                    self._crew.end(worker)

    def _give_up_stalled(self, stage: StageOrder, group: Sequence[Member]) -> None:
        """Look at each group by itself: what waits in one waits for nobody in another."""
        stall_s = self._order.stall_s
        stalled = find_stalled([w.sign for w in group], stall_s=stall_s, now_s=time.monotonic())
        # Who waits while others go on, or has entered fewer collectives than they, keeps them waiting.
        is_everybody = len(stalled) > 1 and len(stalled) == sum(w.sign.is_busy for w in group)
        for worker in [w for w in group if w.name in stalled]:
            waits = worker.sign.is_waiting and is_everybody
            said: JsonObject = {"stage": stage.name, "stall_s": stall_s, "is_waiting": waits}
            said["devices"] = [member.name for member in group]
            self._give_up(worker, "worker.stalled", **said)

    def _run_vendor(self, stage: StageOrder) -> None:
        """Have the vendor's tools load the GPUs, which our workers leave to them first."""
        self._stage_started(stage.name, stage.length_s)
        gpus, reason = gpus_to_load(self._heard("nvml.inventory"), os.environ, intruded=self._intruded)
        if stage.options.get("only_controls"):
            gpus, reason = [], "only detectors are proven"
        if reason:
            self._speaker.say("stage.impossible", stage=stage.name, reason=reason)
        if gpus:
            for worker in [worker for worker in self._workers if not worker.is_gone]:
                self._crew.end(worker)
            said = [gpu.uuid for gpu in gpus]
            self._speaker.say("vendor.gpus", gpus=said, algorithm=os.environ.get("NCCL_ALGO"))
            say = self._speaker.say
            run_tools(gpus, stage.options, environment=os.environ, run=self._run_program, say=say)
        self._stage_finished(stage.name)

    def _run_program(self, program: Program) -> Sequence[Event]:
        """Run one program in a process group of its own, and return what its runner said."""
        heard = len(self._crew.heard)
        runner = self._crew.start(program.tool, "burnin.node.tool_run", program.to_json(), is_worker=False)

        def said() -> list[Event]:
            return [e for e in self._crew.heard[heard:] if e.data.get("tool") == program.tool]

        self._wait(lambda: runner.is_gone or any(map(is_end, said())), program.within_s + TOOL_GRACE_S)
        if not any(map(is_end, said())):
            self._speaker.say("tool.lost", tool=program.tool, within_s=program.within_s)
        self._crew.end(runner)
        return said()

    def _aftermath(self) -> None:
        """Have the sampler read every counter once more, now that the load is over."""
        if self._sampler is None or self._sampler.is_gone:
            return
        wanted = 1 + len((self._heard("nvml.inventory") or {}).get("gpus") or [])
        self._crew.tell(self._sampler, {"snapshot": "after"})
        self._wait(lambda: self._snapshots_after() >= wanted or self._sampler_is_gone(), SNAPSHOT_WITHIN_S)
        self._crew.tell(self._sampler, {"raw": True})
        self._wait(lambda: self._heard("raw.kept") is not None or self._sampler_is_gone(), RAW_WITHIN_S)

    def _snapshots_after(self) -> int:
        return sum(1 for event in self._crew.heard if event.data.get("when") == "after")


if __name__ == "__main__":
    main()

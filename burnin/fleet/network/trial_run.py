"""Runs the trials of a round on real hosts: starts them, brings their ranks together, follows and ends them.

A trial's time limit starts when all its ranks have met, not while hosts import torch or wait for each other.
Whatever comes of a trial, nothing of it is left running afterwards on a host that can still be reached.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from burnin.fleet.host import Host
from burnin.fleet.launchers.channel import ARCHIVE, Channel, Launcher, Program
from burnin.fleet.network.trial import Trial, TrialResult
from burnin.fleet.network.trial_state import TrialState
from burnin.node.crew import HEARTBEAT
from burnin.node.lifeline import CLOCK
from burnin.node.pace import PULSE
from burnin.node.trial import MEET, RAS
from burnin.node.trial_order import TrialOrder, trial_order_to_json
from probes.errors import TargetError
from probes.event import Event, event_from_line, to_json_line
from probes.json_types import JsonObject

TELL_EVERY_S = 2.0
RAS_WITHIN_S = 8.0
FAILURE_GRACE_S = 3.0  # after the first error, for the word of others whose loss may have caused it
LINE_BYTES_MAX = 1 << 20
BYTES_MAX = 256 << 20  # of one host in one trial or training
SIGNS_OF_LIFE = (CLOCK, HEARTBEAT, PULSE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSettings:
    """How every trial of a run is done."""

    device: str = "auto"
    sizes_bytes: tuple[int, ...] = ()  # empty: those of the device
    length_s: float = 0.5  # for each size of each collective
    limit_s: float = 300.0  # from the moment at which all ranks have met
    start_within_s: float = 180.0  # for the slowest host to have torch imported
    meet_within_s: float = 60.0  # for all hosts, which are ready then, to find each other
    stall_s: float = 30.0
    silence_s: float = 20.0  # after which a host is lost
    controller_silence_s: float = 10.0  # after which a host leaves, since nobody is there any more
    cpu_ranks: int = 1
    seed: int = 1
    faults: Mapping[str, Sequence[str]] = field(default_factory=dict)  # host -> what is seeded into it
    training: JsonObject | None = None  # None: collectives


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRunner:
    """Runs rounds of trials: a ``RoundRunner``."""

    hosts: Mapping[str, Host]
    launcher_of: Callable[[Host], Launcher]
    archive: bytes
    settings: TrialSettings = field(default_factory=TrialSettings)
    on_event: Callable[[Trial, str, Event], None] | None = None  # None: nobody listens

    def __call__(self, trials: Sequence[Trial]) -> list[TrialResult]:
        """Run all trials side by side; one result for each, in their order."""
        if not trials:
            return []
        with ThreadPoolExecutor(max_workers=len(trials), thread_name_prefix="trial") as pool:
            return list(pool.map(self.run_one, trials))

    def run_one(self, trial: Trial) -> TrialResult:
        """Run one trial; an error of one host is that trial's result, never ours."""
        began = time.monotonic()
        run = _TrialRun(self, trial)
        try:
            state = run.follow()
        finally:
            run.end()
        return replace(state.result(), seconds=time.monotonic() - began)


class _TrialRun:
    """One trial while it runs."""

    def __init__(self, runner: TrialRunner, trial: Trial) -> None:
        self._runner, self._settings, self._trial = runner, runner.settings, trial
        self._heard: queue.SimpleQueue[tuple[str, bytes | None]] = queue.SimpleQueue()
        self._started: list[Channel] = []  # all that have to be ended
        self._channels: dict[str, Channel] = {}  # those that can be spoken to
        self._rests: dict[str, bytes] = {}
        self._bytes: dict[str, int] = {}
        self._told_at = 0.0
        settings = runner.settings
        self._state = TrialState(
            trial, stall_s=settings.stall_s, silence_s=settings.silence_s, training=settings.training
        )

    def follow(self) -> TrialState:
        """Take the trial through its phases, as far as it comes."""
        state = self._state
        if not self._trial.hosts or len(set(self._trial.hosts)) < len(self._trial.hosts):
            state.give_up("not run", f"a trial takes different hosts, got {self._trial.hosts}")
        elif self._start_all():
            self._until(lambda: state.is_ready, self._settings.start_within_s, "were ready")
            state.refuse_lone_rank()
            if not state.is_over:
                self._tell_all({MEET: state.port})
            # torchrun's own limit for meeting comes first, and says more; the ranks import torch once more.
            meet_within_s = self._settings.meet_within_s + self._settings.start_within_s
            self._until(lambda: state.has_met, meet_within_s, "met")
            state.start_watching_stalls()
            self._until(lambda: False, self._settings.limit_s, "were done")
            if state.is_broken:
                self._hear_for(FAILURE_GRACE_S)
            if state.state == "hung":
                self._ask_ras()
        return state

    def _start_all(self) -> bool:
        """Start the leader on every host, side by side; whoever cannot be reached is lost.

        Those that are there already must hear from us meanwhile: a login can take a minute.
        """
        with ThreadPoolExecutor(max_workers=len(self._trial.hosts)) as pool:
            starts = [pool.submit(self._start, name) for name in self._trial.hosts]
            while not all(start.done() for start in starts):
                self._hear()
        for start in starts:
            start.result()  # an error of ours is not the host's
        return not self._state.is_over

    def _start(self, name: str) -> None:
        host, within_s = self._runner.hosts[name], self._settings.start_within_s
        program = Program(arguments=(ARCHIVE, "burnin.node.trial"), archive=self._runner.archive)
        try:
            channel = self._runner.launcher_of(host).start(host, program, within_s=within_s)
            self._started.append(channel)
            channel.write(to_json_line(trial_order_to_json(self._order(name))).encode())
        except TargetError as error:
            self._state.lose(name, str(error))
            return
        self._channels[name] = channel  # from now on it is told that we are there
        threading.Thread(target=self._read, args=(name, channel), name=f"from {name}", daemon=True).start()

    def _order(self, name: str) -> TrialOrder:
        settings, hosts = self._settings, self._trial.hosts
        return TrialOrder(
            trial=self._trial.id,
            device=settings.device,
            nodes=len(hosts),
            index=hosts.index(name),
            address=meeting_address(self._runner.hosts[hosts[0]]),
            collectives=self._trial.collectives,
            sizes_bytes=settings.sizes_bytes,
            length_s=settings.length_s,
            path=self._trial.path,
            cpu_ranks=settings.cpu_ranks,
            seed=settings.seed,
            meet_within_s=settings.meet_within_s,
            limit_s=settings.limit_s,
            silence_s=settings.controller_silence_s,
            faults=tuple(settings.faults.get(name, ())),
            training=settings.training,
        )

    def _read(self, name: str, channel: Channel) -> None:
        try:
            while data := channel.read():
                self._heard.put((name, data))
        except (OSError, ValueError, TargetError):
            pass  # it was ended meanwhile, or is gone: both are its end
        self._heard.put((name, None))

    def _until(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        """Hear the hosts until the condition holds, the trial is over, or the time is up."""
        state, deadline = self._state, time.monotonic() + within_s
        while not state.is_over and not condition():
            if time.monotonic() >= deadline:
                state.run_out_of_time(f"not all {what} within {within_s:.0f} s")
                return
            self._hear()

    def _hear_for(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._state.is_explained:
            self._hear()

    def _hear(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._told_at + TELL_EVERY_S:
            self._told_at = now_s
            self._tell_all({CLOCK: time.time_ns()})
        try:
            name, data = self._heard.get(timeout=0.1)
        except queue.Empty:
            self._state.note_time(time.monotonic())
            return
        if data is None:
            said = self._channels[name].errors()[-300:].decode(errors="replace").strip()
            self._state.note_end(name, said)
            return
        self._bytes[name] = self._bytes.get(name, 0) + len(data)
        if self._bytes[name] > BYTES_MAX:
            self._state.lose(name, f"it sends without end: {self._bytes[name] >> 20} MiB")
            return
        *lines, self._rests[name] = (self._rests.get(name, b"") + data).split(b"\n")
        self._rests[name] = self._rests[name][-LINE_BYTES_MAX:]
        for line in lines:
            self._take(name, line)
        self._state.note_time(time.monotonic())

    def _take(self, name: str, line: bytes) -> None:
        try:
            event = event_from_line(line.decode())
        except (ValueError, RecursionError):
            return  # no event; that it said something at all is noted below
        finally:
            self._state.note_life(name, time.monotonic())
        event = replace(event, host=name)
        try:
            self._state.note(event, time.monotonic())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._state.add_detail(f"{name} says {event.kind} as none of ours would: {str(error)[:60]}")
            return
        if self._runner.on_event is not None and event.kind not in SIGNS_OF_LIFE:
            self._runner.on_event(self._trial, name, event)

    def _tell_all(self, said: JsonObject) -> None:
        line = to_json_line(said).encode()
        for name, channel in list(self._channels.items()):
            if name in self._state.gone:
                continue
            try:
                channel.write(line)
            except TargetError as error:
                self._state.note_end(name, str(error))

    def _ask_ras(self) -> None:
        """Let NCCL itself say who is missing, before everything is ended."""
        if self._state.device != "cuda":
            self._state.add_detail("gloo has nothing like NCCL's RAS to ask")
            return
        self._tell_all({RAS: 1})
        deadline = time.monotonic() + RAS_WITHIN_S
        while time.monotonic() < deadline and not self._state.has_ras_answer:
            self._hear()

    def end(self) -> None:
        """End whatever runs on any host, side by side: each may take some seconds."""
        if self._started:
            with ThreadPoolExecutor(max_workers=len(self._started)) as pool:
                list(pool.map(lambda channel: channel.end(), self._started))


def meeting_address(host: Host) -> str:
    """Return where the others reach this host when it is the first of a trial."""
    return host.access.address or ("127.0.0.1" if host.access.launcher == "local" else host.name)

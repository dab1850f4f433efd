"""A game day: lab, load, Chaos Toolkit and the record, held together by this controller.

Whatever ends it (its own end, Ctrl-C, a crash of a child, a full disk), what was broken is put back first,
then load and lab are ended, then the record is judged. After kill -9 the children leave by their lifelines
and ``overproof gameday undo`` puts back what is left.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.actions import ENDPOINT_VARIABLE, LAB_VARIABLE, RUN_VARIABLE, SEED_VARIABLE
from experiments.alerts.watch import AlertWatch
from experiments.chaos.process import HEARD_TIMEOUT_S, ChaosProcess
from experiments.declared.fault import HOSTS, KUBERNETES, TRAINING
from experiments.experiment import Experiment
from experiments.guards.watch import GuardWatch, Trip
from experiments.hosts.judging import AFTER, BEFORE, HOSTS_SEEN
from experiments.hosts.reaccept_judging import hosts_hit
from experiments.hosts.reaccept_spec import Reaccept
from experiments.injecting import crash_points, permission
from experiments.injecting.bounds import PLAN_FILE
from experiments.injecting.injection import undo_pending
from experiments.injecting.ledger import read_ledger
from experiments.judging import judge_run, read_faults
from experiments.kube.api_way import WayToApi, needs_way
from experiments.kube.client_api import ClientApi
from experiments.kube.deadman.hold import DeadManHold
from experiments.kube.deadman.objects import DeadManSettings
from experiments.kube.lock import ClusterLock
from experiments.kube.sampler import KubeSampler, workloads_under
from experiments.kube.seen import KUBE_SEEN, see_cluster
from experiments.lab.control import FOLDER_NAME, Lab, is_lab_alive, read_lab
from experiments.lab.sampler import LabSampler
from experiments.lab.supervisor import LabPlan, all_serve, lab_command, last_words, log_file
from experiments.live_record import LiveRecord
from experiments.live_view import HEADERS, DayView
from experiments.load_child import START_TIMEOUT_S, end_of_load, finish_load, start_load
from experiments.plan import (
    Plan,
    confirm_plan,
    faults_and_nodes,
    faults_by_host,
    resolve_plan,
    try_to_resolve,
)
from experiments.recovery import GOOD_IN_A_ROW, WINDOW_NS, Times, cut_windows
from experiments.stop import STOP_EVENT, watch_for_stop
from experiments.training.actions import JOB_VARIABLE
from experiments.training.job_folder import FOLDER_NAME as JOB_FOLDER_NAME
from experiments.training.job_folder import is_job_alive, read_job
from experiments.training.lab_job import JobChoice, start_lab_job, take_lab_job
from experiments.training.watch import TrainingWatch, watch_job, watch_lab_job
from probes.child import end_child, python_module, start_child, wait_until
from probes.errors import ConfigError, TargetError
from probes.event import Event
from probes.interrupt import STOP_SIGNALS
from probes.json_types import JsonObject
from reports.exporter import MetricsPage, served_live
from reports.live import Progress
from reports.record import RunWriter, create_run, write_atomically
from reports.run import load_run
from reports.session import recording

TARGETS_FOLDER = "targets"  # under --out: a folder for each target that is not the lab
LAB_READY_TIMEOUT_S = 30.0
STEADY_EXTRA_S = 30.0  # how much longer than steady_s we wait for steadiness
FOLLOW_EXTRA_S = 5.0  # how much longer than recovery_s we watch for recovery
ROW_DELAY_NS = 2_000_000_000  # a request's row is there this long after it was due, in good times
GUARD_READY_TIMEOUT_S = 15.0  # until every guard sees, once traffic is steady
GUARD_HEARD_S = 1.5  # a guard stops a running action within 2 s, by SIGKILL where it hears nothing
_POLL_S = 0.5
_GUARD_POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class LabChoice:
    """How to start a lab where none runs."""

    is_restarting: bool = True
    seed: int = 1
    has_checkpoints: bool = True  # of a training job


def run_gameday(
    experiment: Experiment,
    *,
    out: Path,
    seed: int,
    lab: LabChoice,
    plan_hash: str = "",
    quiet: bool = False,
    metrics: MetricsPage | None = None,
) -> Path:
    """Run an experiment on the lab and return the folder of its judged record.

    With ``plan_hash`` only that very plan is carried out.

    Raises:
        ConfigError: the run folder cannot be written, or the lab is taken or not as asked for.
        TargetError: lab or load did not come up.
    """
    writer = create_run(out, kind="gameday", spec=spec_of(experiment, lab), seed=seed)
    crash_points.prepare(writer.path.resolve())
    with recording(writer, judge_run), Progress("game day", quiet=quiet) as progress:
        day = _GameDay(experiment, writer, out, progress, plan_hash)
        with day.shown_live(metrics or MetricsPage()):
            day.run(lab)
    return writer.path


def spec_of(experiment: Experiment, lab: LabChoice) -> JsonObject:
    """Return what the record of a game day says of its experiment."""
    return {
        "title": experiment.title,
        "experiment": str(experiment.path),
        "document": experiment.document,
        "workload": str(experiment.workload or ""),
        "slos": {phase: [asdict(slo) for slo in slos] for phase, slos in experiment.slos.items()},
        "steady_s": experiment.steady_s,
        "recovery_s": experiment.recovery_s,
        "after_s": experiment.after_s,
        "requests_min": experiment.requests_min,
        "guards": [asdict(guard) for guard in experiment.guards],
        "alerts": None if experiment.alerts is None else asdict(experiment.alerts),
        "budget_window_days": experiment.budget_window_days,
        "lab_restarts": lab.is_restarting,
        "target": experiment.target.name,
        "target_kind": experiment.target.kind,
        "hosts": [host.to_json() for host in experiment.target.hosts],
        "kubernetes": experiment.target.kubernetes and experiment.target.kubernetes.to_json(),
        "reaccept": None
        if experiment.reaccept is None
        else asdict(experiment.reaccept) | {"plan": str(experiment.reaccept.plan or "")},
        "training": None if experiment.training is None else asdict(experiment.training),
    }


class _GameDay:
    """The state of one game day while it runs."""

    def __init__(
        self, experiment: Experiment, writer: RunWriter, out: Path, progress: Progress, plan_hash: str
    ) -> None:
        self.experiment = experiment
        self.writer = writer
        self.folder = writer.path.resolve()
        self.out = out
        self.progress = progress
        self.stack = contextlib.ExitStack()
        self.phase = ""
        self.seen: set[str] = set()  # moments of the fault that are on the timeline
        self.plan_hash = plan_hash
        self.record = LiveRecord(self.folder)
        self.guards = GuardWatch(experiment.guards, experiment.slos["during"], self.record, self.folder)
        self.view = DayView(experiment, self.folder, self.guards.seen, steps=self._steps)
        self.trip: Trip | None = None  # what stopped it
        self.alerts = None if experiment.alerts is None else AlertWatch(experiment.alerts, writer)
        self.chaos: ChaosProcess | None = None
        self.load: subprocess.Popen[str] | None = None
        self.own_lab: subprocess.Popen[str] | None = None  # None: one that ran already is used
        self.lab: Lab | None = None  # None: the target is another one
        self.sampler: LabSampler | KubeSampler | None = None
        self.lock: ClusterLock | None = None  # None: the target is no cluster
        self.way: WayToApi | None = None  # None: nothing is to be in our own way to the API of a cluster
        self.training: TrainingWatch | None = None  # None: traffic shows how the service is
        self.target_folder = self.folder  # where its permission and its lock are
        self.url = experiment.target.endpoint

    @contextlib.contextmanager
    def shown_live(self, metrics: MetricsPage) -> Iterator[None]:
        """Show how the day stands, on the terminal and to Prometheus, for as long as the block."""
        self.progress.show_table(HEADERS, self.view.rows, left_columns=len(HEADERS))
        with served_live(metrics, self.writer, self.progress, self.view.figures):
            yield

    def _steps(self) -> int | None:
        return None if self.training is None else self.training.progress().new_steps

    def run(self, choice: LabChoice) -> None:
        """Go through the phases; whatever happens, put everything back."""
        try:
            self._go(choice)
        finally:  # a signal may come between here and ``signals_held``, but only one ever raises
            with signals_held():
                self.end()

    def _go(self, choice: LabChoice) -> None:
        try:
            self.stack.callback(watch_for_stop(self.folder, lambda by: self._event(STOP_EVENT, by=by)))
            self._reach_target(choice)
            self._make_plan()
            if self.training is not None:
                self.stack.callback(self.training.stop)
                self.training.start()
            if self.lab is not None:
                self.sampler = LabSampler(self.lab.folder, self.writer)
                self.stack.callback(self.sampler.stop)
                self.sampler.start()
            if self.alerts is not None:
                self.stack.callback(self.alerts.stop)
                self.alerts.start()
            self._start_guard_probes()
            if self.experiment.workload is not None:
                self._start_load()
            if self._becomes_steady() and self._guards_see() and self._break() and self.trip is None:
                self._watch_afterwards()
            if self.load is not None:
                self._finish_load()
            elif self.training is not None:
                self._phase("", time.time_ns())
                self.training.note_checkpoints()
            self._put_back()
            if self.experiment.reaccept is not None:
                self._reaccept(self.experiment.reaccept)
        finally:
            with signals_held():
                self.end()

    def _event(self, kind: str, **data: object) -> None:
        self.writer.event("controller", kind, **data)

    def _event_at(self, t_ns: int, kind: str, **data: object) -> None:
        """Put something on the timeline that was found out a little later."""
        event = Event(t_ns=t_ns, host=self.writer.header.host, source="controller", kind=kind, data=data)
        self.writer.append_event(event)

    def _phase(self, phase: str, t_ns: int) -> None:
        """End the phase that was and begin another; an empty name begins none."""
        if self.phase:
            self._event_at(t_ns, "phase.ended", phase=self.phase)
        if phase:
            self._event_at(t_ns, "phase.started", phase=phase)
        self.phase = phase
        self.view.begin(phase)

    # The target.

    def _reach_target(self, choice: LabChoice) -> None:
        """Find the lab, or the folder that stands for another target, and keep other game days off it."""
        target = self.experiment.target
        if target.is_lab:
            self.lab = self._lab(choice)
            self.target_folder, self.url = self.lab.folder, self.lab.url
            return
        if target.kind == TRAINING:
            self.training = self._lab_job(choice)
            self.target_folder = self.training.folder
            return
        if target.job is not None and self.experiment.training is not None:
            self.training = watch_job(target.name, target.job, self.experiment.training, self.writer)
        if target.name:
            self.target_folder = target_folder(target.name, self.out)
        if target.kind == HOSTS:  # the hosts themselves say whether they may be hit
            from experiments.hosts.session import close_sessions  # with paramiko: others need not wait for it

            self.target_folder.mkdir(parents=True, exist_ok=True)
            self.stack.callback(close_sessions)
            self._take(self.target_folder)
        elif target.kind == KUBERNETES:  # labels on its namespaces and nodes say whether they may be hit
            self.target_folder.mkdir(parents=True, exist_ok=True)
            self._take(self.target_folder)
        elif target.name and permission.look_at_permission(self.target_folder).is_met:
            self._take(self.target_folder)
        self._event("target.named", name=target.name, url=self.url)

    def _conditions(self, resolved: Plan | None) -> tuple[permission.Condition, ...]:
        window = permission.look_at_window(self.experiment.window, datetime.datetime.now(datetime.UTC))
        if resolved is not None and (cluster := self.experiment.target.kubernetes) is not None:
            from experiments.kube.conditions import look_at_cluster

            left = permission.look_at_declared_leftovers(self.experiment.target.name, self.out)
            return (window, left, *look_at_cluster(cluster, *faults_and_nodes(resolved)))
        on_hosts = resolved
        if on_hosts is not None:
            from experiments.hosts.conditions import look_at_hosts

            faults, hosts = faults_by_host(on_hosts), self.experiment.target.hosts
            return (window, *look_at_hosts(hosts, faults, run=self.folder.name))
        if self.lab is not None:
            leftovers = permission.look_at_leftovers(self.lab.supervisor, self.out)
        elif self.experiment.target.kind == TRAINING:
            supervisor = read_job(self.target_folder).supervisor
            leftovers = permission.look_at_leftovers(supervisor, self.out)
        elif self.experiment.target.name:
            leftovers = permission.look_at_declared_leftovers(self.experiment.target.name, self.out)
        else:  # an experiment for plain Chaos Toolkit, which names no target
            return (window,)
        work = () if self.lab is None else permission.look_at_work(self.lab, self.experiment.lab_step_work_ms)
        return (permission.look_at_permission(self.target_folder), window, leftovers, *work)

    def _lab(self, choice: LabChoice) -> Lab:
        self.progress.step("lab", "running", "gateway and replicas")
        folder = (self.out / FOLDER_NAME).resolve()
        is_ours = not is_lab_alive(folder)
        if is_ours and self.plan_hash:
            raise ConfigError(
                f"--plan: is about a lab that runs, and none does in {folder}; `overproof lab up`"
            )
        if is_ours:
            folder = self.folder / FOLDER_NAME
            self._start_lab(choice, folder)
        self._take(folder)
        lab = self._wait_for_lab(folder)
        if lab.is_restarting != choice.is_restarting:
            raise ConfigError(f"lab {folder}: is not as asked for; `overproof lab down` stops it")
        self._event("lab.ready", url=lab.url, folder=str(folder), is_ours=is_ours, replicas=len(lab.replicas))
        self.progress.step("lab", "done", f"{len(lab.replicas)} replicas behind {lab.url}")
        return lab

    def _start_lab(self, choice: LabChoice, folder: Path) -> None:
        folder.mkdir()
        permission.allow(folder)
        plan = LabPlan(
            folder=folder,
            seed=choice.seed,
            is_restarting=choice.is_restarting,
            step_work_ms=self.experiment.lab_step_work_ms,
        )
        with log_file(folder).open("w") as log:
            child = start_child(lab_command(plan, lifeline=True), stdout=log, stderr=log, env=self._marked())
        self.stack.callback(self._stop_child, "lab", child)
        self.own_lab = child

    def _lab_job(self, choice: LabChoice) -> TrainingWatch:
        """Take the training job that runs under ``--out``, else start one for this day."""
        assert self.experiment.training is not None
        self.progress.step("training job", "running", "launchers, storage and ranks; torch takes a while")
        wanted = JobChoice(
            is_restarting=choice.is_restarting, has_checkpoints=choice.has_checkpoints, seed=choice.seed
        )
        folder = (self.out / JOB_FOLDER_NAME).resolve()
        is_ours = not is_job_alive(folder)
        if is_ours and self.plan_hash:
            raise ConfigError(
                f"--plan: is about a job that runs, and none does in {folder}; `overproof lab train up`"
            )
        if is_ours:
            folder = self.folder / JOB_FOLDER_NAME
            folder.mkdir()
            permission.allow(folder)
            child = start_lab_job(wanted, folder, env=self._marked())
            self.stack.callback(self._stop_child, "training job", child)
            self._take(folder)
            job = take_lab_job(folder, wanted, child=child)
        else:
            self._take(folder)
            job = take_lab_job(folder, wanted, child=None)
        self.progress.step("training job", "done", f"{len(job.ranks)} ranks on {len(job.nodes)} nodes")
        return watch_lab_job(job, self.experiment.training, self.writer)

    def _take(self, folder: Path) -> None:
        """Keep a second game day off this lab; the lock goes with our process."""
        descriptor = os.open(folder / permission.LOCK_FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.stack.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"target {folder}: another game day runs on it; wait for its end") from error

    def _wait_for_lab(self, folder: Path) -> Lab:
        def is_decided() -> bool:
            return all_serve(folder) or (self.own_lab is not None and self.own_lab.poll() is not None)

        wait_until(is_decided, timeout_s=LAB_READY_TIMEOUT_S, interval_s=0.1)
        if not all_serve(folder):
            raise TargetError(f"lab {folder}: not every replica serves; {last_words(folder)}")
        return read_lab(folder)

    def _make_plan(self) -> None:
        """Resolve what would be hit, refuse what may not be, and write down what actions have to keep to."""
        resolved = None
        if self.experiment.target.kind in (HOSTS, KUBERNETES):  # which parts are hit, only the plan says
            resolved = resolve_plan(self.experiment, self.target_folder, seed=self.writer.header.seed)
        conditions = self._conditions(resolved)
        for condition in conditions:
            if not condition.is_met:
                raise ConfigError(f"{self.experiment.path}: {condition.name}: {condition.observed}")
        self._event("plan.permitted", conditions=[asdict(condition) for condition in conditions])
        plan = resolved or try_to_resolve(self.experiment, self.target_folder, seed=self.writer.header.seed)
        if isinstance(plan, str):
            if self.plan_hash:
                raise TargetError(f"{self.experiment.path}: --plan: {plan}")
            self._event("plan.unresolved", reason=plan)
            bounds: JsonObject = {"max_share": self.experiment.max_share, "targets": []}
        else:
            if self.plan_hash:
                confirm_plan(plan, self.plan_hash)
            bounds = plan.to_json()
            self._event("plan.resolved", hash=plan.hash, is_confirmed=bool(self.plan_hash))
        document = bounds | {"is_confirmed": bool(self.plan_hash)}
        write_atomically(self.folder / PLAN_FILE, json.dumps(document, indent=1, default=str) + "\n")
        if resolved is not None and self.experiment.target.kind == HOSTS:
            self._hold_hosts(resolved)
        elif resolved is not None:
            self._watch_cluster(resolved)

    def _hold_hosts(self, plan: Plan) -> None:
        """Keep other game days off the hosts that are to be hit, and see that all others are well."""
        from experiments.hosts.hold import HostHold

        hit = [host for host in self.experiment.target.hosts if host.name in faults_by_host(plan)]
        hold = HostHold(hit, self.folder.name)
        hold.take()
        self.stack.callback(hold.release)
        self._see_hosts(BEFORE)

    def _watch_cluster(self, plan: Plan) -> None:
        """Watch the workloads and nodes that are to be hit, and see how all others are."""
        cluster = self.experiment.target.kubernetes
        assert cluster is not None
        if needs_way(faults_and_nodes(plan)[0]):
            self.way = WayToApi(cluster, self.folder, self.writer, self._marked())
            self.stack.callback(self.way.end)
            self.way.start()
        client, workloads = workloads_under(cluster)
        self.lock = ClusterLock(ClientApi(client=client), cluster.namespaces, self.folder.name)
        self.stack.callback(self.lock.release)  # before it is taken: that may be cut short in the middle
        self.lock.take()
        self._event("cluster.locked", namespaces=[*cluster.namespaces])
        nodes = faults_and_nodes(plan)[1]
        if cluster.dead_man is not None:
            settings = DeadManSettings(**asdict(cluster.dead_man))
            hold = DeadManHold(ClientApi(client=client), self.folder, settings, away_from=nodes)
            # Before it is taken: it may be cut short in the middle.
            self.stack.callback(lambda: self._event("dead-man.ended", left=hold.release()))
            place = hold.take()
            self._event("dead-man.watches", namespace=place.namespace, name=place.name)
        self.sampler = KubeSampler(client, workloads, nodes, self.writer)
        self.stack.callback(self.sampler.stop)
        self.sampler.start()
        self._see_cluster(BEFORE)

    def _see_cluster(self, when: str) -> None:
        cluster = self.experiment.target.kubernetes
        assert cluster is not None
        self._event(KUBE_SEEN, when=when, cluster=see_cluster(cluster))

    def _see_hosts(self, when: str) -> None:
        from experiments.hosts.seen import see_hosts

        self._event(HOSTS_SEEN, when=when, hosts=see_hosts(self.experiment.target.hosts))

    def _marked(self) -> dict[str, str]:
        """Return the environment of our children: by it `gameday doctor` knows whose they are."""
        return os.environ | {
            RUN_VARIABLE: str(self.folder),
            SEED_VARIABLE: str(self.writer.header.seed),
        }

    def _environment(self) -> dict[str, str]:
        endpoint = {ENDPOINT_VARIABLE: self.url} if self.url else {}
        job = {JOB_VARIABLE: str(self.training.folder)} if self.training else {}
        return self._marked() | endpoint | job | ({LAB_VARIABLE: str(self.lab.folder)} if self.lab else {})

    # Guards.

    def _start_guard_probes(self) -> None:
        if not any(guard.probe is not None for guard in self.experiment.guards):
            return
        arguments = ["--experiment", str(self.experiment.path), "--run", str(self.folder)]
        with (self.folder / "guard.log").open("w") as log:
            command = python_module("experiments.guards.probes", *arguments)
            child = start_child(command, stdout=log, stderr=log, env=self._environment())
        self.stack.callback(self._stop_child, "guard probes", child)

    def _guards_see(self) -> bool:
        """See that every guard could stop us, before anything is broken."""
        deadline = time.monotonic() + GUARD_READY_TIMEOUT_S
        while (blind := self.guards.first_blind()) is not None:
            self._check_children()
            if time.monotonic() > deadline:
                self._note_trip(blind)
                self.progress.step("guards", "fail", f"{blind.guard}: {blind.observed}; nothing is injected")
                return False
            time.sleep(_GUARD_POLL_S)
        return True

    def _note_trip(self, trip: Trip) -> None:
        self.trip = trip
        self._event("guard.tripped", **asdict(trip))

    def _obey_guards(self) -> None:
        """Stop at once and put everything back when a guard says so."""
        if self.trip is not None or (trip := self.guards.look()) is None:
            return
        began = time.monotonic()
        self._note_trip(trip)
        self.progress.step("guards", "fail", f"{trip.guard}: {trip.observed}")
        self._stop_breaking("guard", heard_within_s=GUARD_HEARD_S)
        self._event("guard.stopped", guard=trip.guard, took_s=round(time.monotonic() - began, 3))

    def _stop_breaking(self, by: str, *, heard_within_s: float) -> None:
        if self.chaos is not None:
            self.chaos.end(heard_within_s=heard_within_s)
        undo_pending(self.folder, by=by)

    # The load.

    def _start_load(self) -> None:
        self.progress.step("steady state", "running", "starting load")
        seed = self.writer.header.seed
        self.load = start_load(self.experiment, self.folder, url=self.url, seed=seed, env=self._marked())
        self._event("load.started", pid=self.load.pid)

    def _check_children(self) -> None:
        """Raise when what a game day stands on has gone."""
        if self.sampler is not None and self.sampler.error is not None:
            raise self.sampler.error
        if self.way is not None:
            self.way.check()
        if self.lock is not None and self.lock.lost:
            raise TargetError(f"{self.lock.lost}; the game day stops and puts everything back")
        if self.alerts is not None and self.alerts.error is not None:
            raise self.alerts.error
        if self.training is not None and self.training.error is not None:
            raise self.training.error
        if self.load is not None and (error := end_of_load(self.load, self.folder)) is not None:
            raise error

    def _becomes_steady(self) -> bool:
        """Wait for enough good traffic; return whether it came."""
        if self.training is not None:
            return self._trains_steadily(self.training)
        experiment, slos = self.experiment, self.experiment.slos["before"]
        if experiment.workload is None:
            self.progress.step("steady state", "inconclusive", "no workload is named, so nobody looks")
            return True
        deadline = time.monotonic() + START_TIMEOUT_S
        first_ns: int | None = None
        while time.monotonic() < deadline:
            self._check_children()
            requests = self.record.requests()
            if requests and first_ns is None:
                first_ns = requests[0].t_intended_ns
                deadline = time.monotonic() + experiment.steady_s + STEADY_EXTRA_S
                self._phase("before", first_ns)
                self.progress.step("steady state", "running", f"traffic for {experiment.steady_s:g} s")
            now_ns = time.time_ns()
            if first_ns is not None and now_ns - first_ns >= experiment.steady_s * 1e9:
                start_ns = now_ns - ROW_DELAY_NS - GOOD_IN_A_ROW * WINDOW_NS
                windows = cut_windows(requests, slos, start_ns=start_ns, end_ns=now_ns - ROW_DELAY_NS)
                if windows and all(window.is_good for window in windows):
                    self._event("steady.seen", requests=len(requests))
                    self.progress.step("steady state", "done", f"{len(requests)} requests")
                    return True
            time.sleep(_POLL_S)
        if first_ns is None:
            raise TargetError(f"load: no request came back within {START_TIMEOUT_S:g} s; see load.log")
        self._event("steady.missing", waited_s=experiment.steady_s + STEADY_EXTRA_S)
        self.progress.step("steady state", "fail", "not steady: nothing is injected")
        return False

    def _trains_steadily(self, training: TrainingWatch) -> bool:
        """Wait for enough new steps; return whether they came, and the job is fed."""
        began, steady_s = time.monotonic(), self.experiment.steady_s
        self._phase("before", time.time_ns())
        self.progress.step("steady state", "running", f"steps for {steady_s:g} s")
        is_steady, reason = False, "too few steps, or none of late"
        while not is_steady and time.monotonic() - began < steady_s + STEADY_EXTRA_S:
            time.sleep(_POLL_S)
            self._check_children()
            if time.monotonic() - began < steady_s:
                continue
            if reason_starved := training.starving():
                reason = reason_starved
                break
            is_steady = training.is_steady()
        if not is_steady:
            self._event("steady.missing", waited_s=round(time.monotonic() - began, 1), reason=reason)
            self.progress.step("steady state", "fail", f"{reason}: nothing is injected")
            return False
        steps = training.progress().new_steps
        self._event("steady.seen", steps=steps)
        self.progress.step("steady state", "done", f"{steps} steps")
        return True

    def _finish_load(self) -> None:
        """Have the load drain and judge itself."""
        assert self.load is not None
        self._check_children()
        self.progress.step("load", "running", "finishing")
        self._event("load.ended", exit_status=finish_load(self.load))
        self._phase("", time.time_ns())
        self.progress.step("load", "done")

    # The fault.

    def _break(self) -> bool:
        """Run Chaos Toolkit and follow the recovery; return whether a fault was injected."""
        self.progress.step("fault", "running", self.experiment.title)
        self.chaos = ChaosProcess(self.experiment, self.folder, self._environment())
        deadline = time.monotonic() + self.experiment.chaos_deadline_s
        clock_at: float | None = None  # when recovery began to be expected
        next_at = time.monotonic()
        times: Times | None = None
        is_void = False  # it was cut short, or mended by us: what it was to show will not be seen
        while True:
            self._check_children()
            self._obey_guards()
            if time.monotonic() < next_at:
                time.sleep(_GUARD_POLL_S)
                continue
            next_at = time.monotonic() + _POLL_S
            has_ended = self.chaos.exit_status is not None
            is_first, times = times is None, self._times()
            if times is not None:
                if is_first:
                    self._phase("during", times.t_inject_ns)
                    self.progress.step("fault", "done", "injected")
                    self.progress.step("recovery", "running")
                self._note_moments(times)
                if clock_at is None and (times.t_clock_ns is not None or has_ended):
                    clock_at = time.monotonic()
            if has_ended and not is_void and (self.chaos.was_cut_short() or self._is_mended_by_us()):
                is_void = True
                undo_pending(self.folder, by="controller")
            if has_ended and (times is None or self._is_over(times, clock_at, is_void=is_void)):
                break
            if not has_ended:
                self._check_deadlines(self.chaos, deadline)
        self._event("guards.watched", looks=self.guards.looks)
        self._event("chaos.ended", exit_status=self.chaos.exit_status)
        if times is None:
            self.progress.step("fault", "inconclusive", "nothing was injected")
        else:
            back_ns = times.t_redundant_ns if self.load is None else times.t_back_ns
            self.progress.step("recovery", "done" if back_ns else "fail")
            self._phase("after", times.t_back_ns or time.time_ns())
        return times is not None

    def _times(self) -> Times | None:
        """Derive the faults' moments from what shows how the service is; None: nothing was injected."""
        if self.training is not None:
            return self.training.times(read_faults(load_run(self.folder)))
        return self.record.times(self.experiment.slos["after"])

    def _is_mended_by_us(self) -> bool:
        """Say whether undoing has put back what the platform was to heal: it will not any more."""
        mended = {e.id for e in read_ledger(self.folder) if not e.is_pending and e.is_mended_by_us}
        faults = read_faults(load_run(self.folder))
        return any(fault.is_healed_by_platform and fault.data["id"] in mended for fault in faults)

    def _is_over(self, times: Times, clock_at: float | None, *, is_void: bool) -> bool:
        is_watched = self.load is not None or self.training is not None
        if not is_watched and is_void:
            return True
        if times.t_clock_ns is None and not any(e.is_pending for e in read_ledger(self.folder)):
            return True  # nobody will ever see it undone: it is of somebody else's, and not declared
        assert clock_at is not None
        longest_s = FOLLOW_EXTRA_S + (0.0 if is_void else self.experiment.recovery_s)
        # Without traffic there is no recovery to be seen.
        back_ns = times.t_back_ns if is_watched else times.t_redundant_ns
        if not (back_ns is not None or time.monotonic() - clock_at > longest_s):
            return False
        is_awaited = self.alerts is not None and self.alerts.is_worth_waiting_for(times.t_inject_ns)
        return is_void or not is_awaited

    def _check_deadlines(self, chaos: ChaosProcess, deadline: float) -> None:
        """End a child that is stuck where no signal is heard, or takes longer than all its deadlines."""
        if stuck := chaos.stuck_activity():
            self._event("chaos.stuck", activity=stuck)
            chaos.kill()
            undo_pending(self.folder, by="controller")
        elif time.monotonic() > deadline:
            self._event("chaos.overran", deadline_s=self.experiment.chaos_deadline_s)
            self._stop_breaking("controller", heard_within_s=HEARD_TIMEOUT_S)

    def _watch_afterwards(self) -> None:
        if self.load is None and self.training is None:
            return
        what, began_ns = "traffic" if self.training is None else "steps", time.time_ns()
        self.progress.step("after", "running", f"{what} for {self.experiment.after_s:g} s")
        deadline = time.monotonic() + self.experiment.after_s
        latest = deadline + (STEADY_EXTRA_S if self.training is not None else 0.0)
        while (now := time.monotonic()) < latest:
            is_enough = self.training is None or self.training.has_steps_since(began_ns)
            if now >= deadline and (is_enough or "t_recover" not in self.seen):
                break
            self._check_children()
            time.sleep(_POLL_S)
        self.progress.step("after", "done")

    # The way out.

    def _put_back(self) -> None:
        """Undo whatever is pending; Chaos Toolkit's rollbacks may have done it, or not."""
        undone = undo_pending(self.folder, by="controller")
        if self.experiment.target.kind == HOSTS:
            self._see_hosts(AFTER)
        elif self.experiment.target.kind == KUBERNETES:
            self._see_cluster(AFTER)
        left = [u for u in undone if not u.is_restored]
        self.progress.step("undo", "fail" if left else "done", "; ".join(u.did for u in left))

    def _reaccept(self, wanted: Reaccept) -> None:
        """Burn in the hosts that were hit while no other game day can have them; judging reads the record."""
        from experiments.hosts.reaccept import END_WITHIN_S, start_burn_in

        hit = hosts_hit(read_ledger(self.folder))
        able = {name for name, entries in hit.items() if not any(entry.is_pending for entry in entries)}
        hosts = [host for host in self.experiment.target.hosts if host.name in able]
        names = ", ".join(host.name for host in hosts)
        if not hosts:
            return
        if self.alerts is not None:
            self.alerts.stop()  # what fires from now on may be the burn-in's
        self.progress.step("re-acceptance", "running", f"burn-in {wanted.profile} of {names}")
        seed = self.writer.header.seed
        child = start_burn_in(hosts, wanted, self.folder, seed=seed, env=self._marked())
        self._event("reaccept.started", pid=child.pid, hosts=[host.name for host in hosts])
        try:
            is_over = wait_until(
                lambda: child.poll() is not None, timeout_s=wanted.within_s, interval_s=_POLL_S
            )
        finally:
            end_child(child, grace_s=END_WITHIN_S)
        self._event("reaccept.ended", exit_status=child.poll(), is_in_time=is_over)
        self.progress.step("re-acceptance", "done" if child.poll() == 0 else "fail", names)

    def _note_moments(self, times: Times) -> None:
        """Put each moment on the timeline once, as soon as it is seen; judging derives them again."""
        harm, detection = None, times.detection
        if self.alerts is not None:
            harm, detection = times.detection, self.alerts.detection(times.t_inject_ns)
        moments = {
            "t_harm": harm.t_ns if harm else None,
            "t_detect": detection.t_ns if detection else None,
            "t_mitigate": times.t_mitigate_ns,
            "t_recover": times.t_recover_ns,
            "t_redundant": times.t_redundant_ns,
        }
        for kind, t_ns in moments.items():
            if t_ns is not None and kind not in self.seen:
                self.seen.add(kind)
                noticed = {"t_harm": harm, "t_detect": detection}.get(kind)
                by = {"by": noticed.by} if noticed else {}
                self._event_at(t_ns, kind, after_inject_s=times.after_inject_s(t_ns), **by)

    def _end_chaos(self) -> None:
        """Stop Chaos Toolkit; its rollbacks get their time, then undoing is ours."""
        if self.chaos is not None:
            self.chaos.end()

    def _stop_child(self, name: str, child: subprocess.Popen[str]) -> None:
        if not end_child(child):
            raise TargetError(f"{name}: process {child.pid} does not end even by SIGKILL; look at it")

    def end(self) -> None:
        """End everything of ours, the fault first.

        Each step has a deadline, and none that fails keeps the next from running. Harmless a second time.
        """
        with self.stack:
            if self.load is not None:
                self.stack.callback(self._stop_child, "load", self.load)
            self.stack.callback(undo_pending, self.folder, by="controller")
            self.stack.callback(self._end_chaos)


def target_folder(name: str, out: Path) -> Path:
    """Return the folder that stands for a target other than the lab."""
    return (out / TARGETS_FOLDER / name).resolve()


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Keep stop signals waiting, so that none cuts short the putting back; the first counts afterwards.

    By handlers, not by a mask: a mask holds for one thread only, and another would take the signal.
    """
    noted: list[int] = []
    before = {number: signal.signal(number, lambda n, _: noted.append(n)) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if noted:
            os.kill(os.getpid(), noted[0])

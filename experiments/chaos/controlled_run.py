"""A run of plain Chaos Toolkit with our record, load and verdict around it; see ``experiments.controls``."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from experiments.actions import LAB_VARIABLE, RUN_VARIABLE, SEED_VARIABLE
from experiments.breaking import FOLLOW_EXTRA_S
from experiments.chaos.child import JOURNAL_FILE, Recorder, Stop
from experiments.day import LabChoice
from experiments.declared.fault import is_foreign
from experiments.declared.watch import DeclaredWatch
from experiments.experiment import Experiment, check_experiment, reach
from experiments.gameday import spec_of
from experiments.impact.recovery import Times
from experiments.injecting.injection import undo_pending
from experiments.injecting.permission import look_at_permission
from experiments.injecting.undo_timer import start_timer
from experiments.judging import judge_run
from experiments.lab.control import FOLDER_NAME, is_lab_alive, read_lab
from experiments.lab.sampler import LabSampler
from experiments.live.record import LiveRecord
from experiments.live.timeline import Timeline
from experiments.processes.load import START_TIMEOUT_S, end_of_load, finish_load, start_load
from experiments.targets.all import NAMED
from experiments.targets.target import Target, target_folder
from probes.child import end_child
from probes.errors import ConfigError, TargetError
from probes.event import Event
from probes.json_types import JsonObject
from reports.record import create_run, mask_secrets, write_atomically
from reports.run import FINISHED, INTERRUPTED, Run
from reports.session import conclude

_POLL_S = 0.5


class ControlledRun:
    """The state of one experiment under ``chaos run``."""

    def __init__(
        self,
        document: JsonObject,
        *,
        workload: Path | None,
        folder: Path,
        endpoint: str,
        out: Path,
        seed: int,
    ) -> None:
        plain = {key: value for key, value in document.items() if key != "dry"}
        path = folder / "experiment"  # its name is not known; paths in it are relative to the folder
        self.experiment: Experiment = check_experiment(
            path, plain, root=None, workload=workload, endpoint=endpoint
        )
        if self.experiment.training is not None:
            raise ConfigError(
                "the control watches traffic, and this experiment a training job: `overproof gameday run`"
            )
        self.stack = contextlib.ExitStack()
        self.load: subprocess.Popen[str] | None = None
        self._find_target(path, plain, endpoint, out)
        self.writer = create_run(
            out, kind="gameday", spec=spec_of(self.experiment, LabChoice()) | {"by": "chaos run"}, seed=seed
        )
        self.folder = self.writer.path.resolve()
        self.record = LiveRecord(self.folder)
        self.stop = Stop(is_ours=False)

    def _find_target(self, path: Path, document: JsonObject, endpoint: str, out: Path) -> None:
        """Take the lab where one runs and is meant, else the address that is given or the workload's."""
        self.lab = Path(os.environ.get(LAB_VARIABLE) or out / FOLDER_NAME).resolve()
        self.has_lab = self.experiment.target.is_lab and is_lab_alive(self.lab)
        if self.has_lab:
            self.url = read_lab(self.lab).url
            return
        target = Target(name="") if self.experiment.target.is_lab else self.experiment.target
        if endpoint:
            target = replace(target, endpoint=endpoint)
        target = reach(target, self.experiment.workload, document, path)
        is_named = target.name and target.kind == NAMED  # hosts say themselves whether they may be hit
        if is_named and not (allowed := look_at_permission(target_folder(target.name, out))).is_met:
            raise ConfigError(f"{allowed.name}: {allowed.observed}")
        self.experiment = replace(self.experiment, target=target)
        self.url = target.endpoint

    def begin(self, registry: object) -> None:
        """Record, and wait for traffic.

        Raises:
            TargetError: the load did not come up.
        """
        os.environ |= {RUN_VARIABLE: str(self.folder), SEED_VARIABLE: str(self.writer.header.seed)}
        if self.has_lab:
            os.environ[LAB_VARIABLE] = str(self.lab)
            sampler = LabSampler(self.lab, self.writer)
            self.stack.callback(sampler.stop)
            sampler.start()
            self._event("lab.ready", url=self.url, folder=str(self.lab), is_ours=False)
        else:
            self._event("target.named", name=self.experiment.target.name, url=self.url)
        if self.experiment.faults or any(not is_foreign(a) for a in self._actions()):
            start_timer(self.folder)  # it undoes where Chaos Toolkit is killed
        if self.experiment.workload is not None:
            seed = self.writer.header.seed
            self.load = start_load(self.experiment, self.folder, url=self.url, seed=seed, env=os.environ)
            self.stack.callback(end_child, self.load)
            self._event("load.started", pid=self.load.pid)
            self._wait_for_traffic()
        timeline = Timeline(self.folder, "chaos")  # open to the end of the process: handlers are called last
        declared = DeclaredWatch(self.experiment, self.folder, timeline)
        timeline.note("chaos.started", pid=os.getpid())
        registry.register(Recorder(timeline, self.stop, declared))  # type: ignore[attr-defined]

    def _actions(self) -> list[JsonObject]:
        return [a for a in self.experiment.document["method"] if a.get("type") == "action"]

    def _event(self, kind: str, **data: object) -> None:
        self.writer.event("controller", kind, **data)

    def _phase(self, name: str, start_ns: int, end_ns: int) -> None:
        for kind, t_ns in (("phase.started", start_ns), ("phase.ended", end_ns)):
            host, data = self.writer.header.host, {"phase": name}
            self.writer.append_event(Event(t_ns=t_ns, host=host, source="controller", kind=kind, data=data))

    def _wait_for_traffic(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S + self.experiment.steady_s
        while time.monotonic() < deadline:
            self._check_load()
            requests = self.record.requests()
            if requests and time.time_ns() - requests[0].t_intended_ns >= self.experiment.steady_s * 1e9:
                return
            time.sleep(_POLL_S)
        raise TargetError(f"load: no traffic within {START_TIMEOUT_S:g} s; see {self.folder}/load.log")

    def _check_load(self) -> None:
        if self.load is not None and (error := end_of_load(self.load, self.folder)) is not None:
            raise error

    def end(self, journal: JsonObject) -> Run:
        """Watch the recovery, put back what is left, end the load, and judge."""
        kept = mask_secrets(journal | {"stopped_by": self.stop.reason})
        text = json.dumps(kept, default=str, indent=1)
        write_atomically(self.folder / JOURNAL_FILE, text + "\n")
        try:
            with contextlib.suppress(TargetError, ConfigError):  # a load that died is in the record
                self._watch_recovery()
        finally:
            undo_pending(self.folder, by="control")
            is_whole = journal.get("status") not in ("interrupted", "aborted")
            return self._close(FINISHED if is_whole else INTERRUPTED)  # noqa: B012

    def abandon(self) -> None:
        """Close the record of an experiment that never came to its end."""
        undo_pending(self.folder, by="control")
        self._close(INTERRUPTED)

    def _watch_recovery(self) -> None:
        if self.load is None:
            return
        times = self._follow()
        if times is not None:
            deadline = time.monotonic() + self.experiment.after_s
            while time.monotonic() < deadline:
                self._check_load()
                time.sleep(_POLL_S)
            requests, now_ns = self.record.requests(), time.time_ns()
            back_ns = times.t_back_ns or now_ns
            self._phase("before", requests[0].t_intended_ns, times.t_inject_ns)
            self._phase("during", times.t_inject_ns, back_ns)
            self._phase("after", back_ns, now_ns)
        self._check_load()
        self._event("load.ended", exit_status=finish_load(self.load))

    def _follow(self) -> Times | None:
        """Wait until everything is back, at most as long as that may take."""
        deadline = time.monotonic() + self.experiment.recovery_s + FOLLOW_EXTRA_S
        while True:
            self._check_load()
            times = self.record.times(self.experiment.slos["after"])
            is_hopeless = times is not None and times.t_clock_ns is None
            if times is None or times.t_back_ns or is_hopeless or time.monotonic() > deadline:
                return times
            time.sleep(_POLL_S)

    def _close(self, end: str) -> Run:
        self.stack.close()
        os.environ.pop(RUN_VARIABLE, None)
        self._event(end, **({"signal": "Chaos Toolkit was interrupted"} if end == INTERRUPTED else {}))
        self.writer.close()
        return conclude(self.writer, judge_run)

"""A training job under torchrun with elastic restart and checkpoints, as processes on this machine.

``python -P -m experiments.training.job --folder DIR`` is the supervisor: what a cluster's scheduler is to a
job. It starts the rendezvous, the storage and the nodes (torchrun agents), starts again what dies, and says
in ``job.json`` what runs. Restarting ranks is torchrun's own part. With ``--lifeline`` it leaves with its
parent.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from experiments.lab.control import Process, process_to_json, this_process
from experiments.processes.detached import lock_folder, start_supervisor
from experiments.training.job_folder import (
    CHECKPOINTS_FOLDER,
    JOB_FILE,
    LOG_FILE,
    PROGRESS_FOLDER,
    RESUMES_FILE,
    STORAGE_SOCKET,
    read_job,
    read_resumes,
    trains_in_full,
)
from experiments.training.parent import parent_environment
from experiments.training.processes import Worker, find_ranks, has_pending_end
from probes.child import end_child, process_start_time, python_module, start_child, watch_lifeline
from probes.errors import ConfigError, SuiteError
from probes.json_types import JsonObject
from reports.record import write_atomically

HOST = "127.0.0.1"
_POLL_S = 0.1
_RESTARTS_MAX = 1000  # of torchrun's, in a job that restarts


@dataclass(frozen=True, slots=True, kw_only=True)
class JobClocks:
    """The times that rule what heals when. torchrun takes whole seconds for those of its rendezvous."""

    monitor_s: float = 0.1  # between an agent's looks at its ranks
    node_lost_s: int = 4  # without a heartbeat, until the others count a node as lost
    last_call_s: int = 2  # that a rendezvous waits for more nodes once there are enough
    join_s: int = 120  # in which a rendezvous has to come about
    collective_timeout_s: float = 5.0  # after which a rank that waits for the others gives up
    storage_timeout_s: float = 120.0  # after which a rank that waits for data gives up
    end_grace_s: float = 2.0  # from SIGTERM to SIGKILL for a rank; torchrun itself would wait 30 s
    node_back_s: float = 15.0  # from a node's loss to its replacement
    storage_back_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """What a training job is to be."""

    folder: Path
    nodes: int = 2
    ranks_per_node: int = 2
    seed: int = 1
    step_s: float = 0.05
    checkpoint_every_steps: int | None = 20  # None: it makes none
    batch_s: float = 0.0  # that the storage takes for a batch
    is_restarting: bool = True
    clocks: JobClocks = JobClocks()


@dataclass(slots=True)
class Supervised:
    """One child and what became of it so far."""

    name: str
    child: subprocess.Popen[str] | None = None
    process: Process | None = None  # None: there is none at the moment
    start_at: float = 0.0  # of the monotonic clock; infinite: not by itself
    starts: int = 0
    ranks: list[Worker] = field(default_factory=list)


class Supervisor:
    """Runs a job until told to leave."""

    def __init__(self, plan: JobPlan) -> None:
        self.plan = plan
        self.leaving = threading.Event()
        self.start_wanted = threading.Event()
        self._listening = socket.create_server((HOST, 0), backlog=64)
        self._rendezvous, self._storage = Supervised("rendezvous"), Supervised("storage")
        self._nodes = [Supervised(f"node-{number}") for number in range(plan.nodes)]
        self._group = 0  # of agents, by the rendezvous that they have in common
        self._is_closed = False
        self._deaf: dict[Worker, float] = {}
        self._started_t_ns = time.time_ns()
        self._written = ""

    def run(self) -> None:
        """Start everything, look after it, and end it."""
        _clear(self.plan.folder)
        with (self.plan.folder / LOG_FILE).open("a") as log:
            try:
                while not self.leaving.is_set():
                    self._look_after(log)
                    self.leaving.wait(_POLL_S)
            finally:
                self._end()

    def _look_after(self, log: IO[str]) -> None:
        is_asked = self.start_wanted.is_set()
        self.start_wanted.clear()
        for one in (self._rendezvous, self._storage, *self._nodes):
            self._note_death(one)
        for one in (self._rendezvous, self._storage, *self._nodes):
            if one.child is None and (is_asked or time.monotonic() >= one.start_at) and self._may_start(one):
                self._start(one, log)
        for node in self._nodes:
            node.ranks = find_ranks(node.process, node.ranks)
        self._end_the_deaf()
        self._write_state()

    def _note_death(self, one: Supervised) -> None:
        if one.child is None or one.child.poll() is None:
            return
        end_child(one.child, grace_s=0.1)  # and whatever it may have left in its group
        back_s = {"storage": self.plan.clocks.storage_back_s, "rendezvous": 0.0}
        wait_s = back_s.get(one.name, self.plan.clocks.node_back_s)
        one.start_at = time.monotonic() + wait_s if self.plan.is_restarting else float("inf")
        self._is_closed |= one in self._nodes and one.child.returncode != -signal.SIGKILL
        one.child, one.process = None, None

    def _may_start(self, one: Supervised) -> bool:
        """See that no agent joins a rendezvous that one that gave up has closed: the others end too."""
        return one not in self._nodes or not self._is_closed or self._are_all_gone()

    def _are_all_gone(self) -> bool:
        return all(node.child is None for node in self._nodes)

    def _start(self, one: Supervised, log: IO[str]) -> None:
        stdout = self._listening.fileno() if one is self._rendezvous else log
        env = os.environ | parent_environment() | _ENVIRONMENT
        one.child = start_child(self._command(one), stdout=stdout, stderr=log, env=env)
        one.process = Process(pid=one.child.pid, start_time=process_start_time(one.child.pid))
        one.starts += 1

    def _command(self, one: Supervised) -> list[str]:
        if one is self._rendezvous:
            return python_module("experiments.training.rendezvous", "--port", str(self._port))
        given = ["--folder", str(self.plan.folder), "--seed", str(self.plan.seed)]
        if one is self._storage:
            return python_module("experiments.training.storage", *given, "--batch-s", str(self.plan.batch_s))
        if self._are_all_gone():
            self._group += 1
            self._is_closed = False
        return python_module("experiments.training.node", *self._torchrun(), *given, *self._training())

    @property
    def _port(self) -> int:
        return int(self._listening.getsockname()[1])

    def _torchrun(self) -> list[str]:
        clocks = self.plan.clocks
        rendezvous = {
            "is_host": 0,
            "join_timeout": clocks.join_s,
            "last_call_timeout": clocks.last_call_s,
            "close_timeout": 5,
            "keep_alive_interval": 1,
            "keep_alive_max_attempt": clocks.node_lost_s,
            "read_timeout": clocks.join_s,
        }
        return [
            f"--nnodes=1:{self.plan.nodes}",
            f"--nproc-per-node={self.plan.ranks_per_node}",
            f"--max-restarts={_RESTARTS_MAX if self.plan.is_restarting else 0}",
            f"--monitor-interval={clocks.monitor_s}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={HOST}:{self._port}",
            f"--rdzv-id=group-{self._group}",
            "--rdzv-conf=" + ",".join(f"{key}={value}" for key, value in rendezvous.items()),
            f"--local-addr={HOST}",
            "--module",
            "experiments.training.rank",
        ]

    def _training(self) -> list[str]:
        plan, clocks = self.plan, self.plan.clocks
        return [
            f"--step-s={plan.step_s}",
            f"--checkpoint-every-steps={plan.checkpoint_every_steps or 0}",
            f"--collective-timeout-s={clocks.collective_timeout_s}",
            f"--storage-timeout-s={clocks.storage_timeout_s}",
        ]

    def _end_the_deaf(self) -> None:
        """Kill ranks that were told to end and do not, as any node's manager does after its grace."""
        now = time.monotonic()
        deaf = [rank for node in self._nodes for rank in node.ranks if has_pending_end(rank.process.pid)]
        self._deaf = {rank: self._deaf.get(rank, now) for rank in deaf}
        for rank, since in self._deaf.items():
            if now - since > self.plan.clocks.end_grace_s:
                rank.process.send(signal.SIGKILL)

    def _end(self) -> None:
        children = [one.child for one in (*self._nodes, self._storage, self._rendezvous) if one.child]
        for child in children:
            child.kill()  # their ranks end with them; a training job has nobody to say goodbye to
        for child in children:
            end_child(child, grace_s=2.0)
        self._listening.close()
        for name in (JOB_FILE, STORAGE_SOCKET):
            (self.plan.folder / name).unlink(missing_ok=True)

    def _write_state(self) -> None:
        text = json.dumps(self._state(), indent=1) + "\n"
        if text == self._written:
            return
        try:
            write_atomically(self.plan.folder / JOB_FILE, text)
            self._written = text
        except OSError as error:  # a full disk must not take the job down with it
            with contextlib.suppress(OSError):
                sys.stderr.write(f"{JOB_FILE}: cannot be written: {error.strerror}\n")

    def _state(self) -> JsonObject:
        plan = self.plan
        return {
            "supervisor": process_to_json(this_process()),
            "started_t_ns": self._started_t_ns,
            "seed": plan.seed,
            "world": plan.nodes * plan.ranks_per_node,
            "step_s": plan.step_s,
            "checkpoint_every_steps": plan.checkpoint_every_steps,
            "is_restarting": plan.is_restarting,
            "restarts": max(0, len(read_resumes(plan.folder)) - 1),
            "clocks": asdict(plan.clocks),
            "rendezvous": _named(self._rendezvous.process),
            "storage": _named(self._storage.process),
            "nodes": [
                {
                    "name": node.name,
                    "agent": _named(node.process),
                    "starts": node.starts,
                    "ranks": [{"rank": rank.rank} | process_to_json(rank.process) for rank in node.ranks],
                }
                for node in self._nodes
            ],
        }


_ENVIRONMENT = {
    "PYTHONWARNINGS": "ignore:Failed to initialize NumPy",  # torch's, which nothing here needs
    "PYTHONSAFEPATH": "1",  # the user's folder may hold a probes.py of someone else
    "GLOO_SOCKET_IFNAME": "lo",
    "OMP_NUM_THREADS": "1",
    # Each round's rank 0 hosts the ranks' store: one that an agent keeps would end with its node.
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
}


def _named(process: Process | None) -> JsonObject | None:
    return None if process is None else process_to_json(process)


def _clear(folder: Path) -> None:
    """Remove what an earlier job has left: its steps and checkpoints are not this one's."""
    for name in (PROGRESS_FOLDER, CHECKPOINTS_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (RESUMES_FILE, JOB_FILE):
        (folder / name).unlink(missing_ok=True)


def job_command(plan: JobPlan, *, lifeline: bool) -> list[str]:
    """Return the command that runs this job."""
    row = {key: value for key, value in asdict(plan).items() if key != "folder"}
    arguments = [
        "--folder",
        str(plan.folder),
        "--plan",
        json.dumps(row),
        *(["--lifeline"] if lifeline else []),
    ]
    return python_module("experiments.training.job", *arguments)


def start_detached_job(plan: JobPlan, *, timeout_s: float) -> None:
    """Start a job that outlives us, and wait until every rank has made a step.

    Raises:
        ConfigError: its folder cannot be used.
        TargetError: it did not come up in time; it is stopped again.
    """
    start_supervisor(
        job_command(plan, lifeline=False),
        subject=f"training job {plan.folder}",
        log_path=plan.folder / LOG_FILE,
        is_up=lambda pid: trains_in_full(plan.folder) and read_job(plan.folder).supervisor.pid == pid,
        timeout_s=timeout_s,
    )


def main() -> int:
    """Run a job."""
    parser = argparse.ArgumentParser(prog="experiments.training.job")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--plan", default="{}", help="the fields of a JobPlan, as JSON")
    parser.add_argument("--lifeline", action="store_true")
    given = parser.parse_args()
    row = json.loads(given.plan)
    clocks = JobClocks(**row.pop("clocks", {}))
    plan = JobPlan(folder=given.folder.resolve(), clocks=clocks, **row)
    try:
        if importlib.util.find_spec("torch") is None:
            raise ConfigError("a training job needs torch: pip install 'overproof[burnin]'")
        lock_folder(plan.folder, subject=f"training job {plan.folder}", down="overproof lab train down")
        supervisor = Supervisor(plan)
    except SuiteError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: supervisor.leaving.set())
    signal.signal(signal.SIGUSR1, lambda *_: supervisor.start_wanted.set())
    if given.lifeline:
        watch_lifeline(supervisor.leaving.set)
    supervisor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())

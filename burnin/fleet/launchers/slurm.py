"""Programs on the nodes of a Slurm job: the one that we run in, or one that we ask for and give back.

Each host's program is a step of that job, started by ``srun``, which carries the two streams. A job that we
ask for is held by a process on this machine whose standard input is our lifeline: it cancels the job when we
are gone, also after kill -9. The job's own time limit ends it where that process was killed as well.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Mapping, Sequence

from burnin.fleet.host import Host
from burnin.fleet.launchers.bootstrap import command_words
from burnin.fleet.launchers.channel import Channel, Program
from burnin.fleet.launchers.hello import begin
from burnin.fleet.launchers.pipes import PipeChannel
from burnin.fleet.permission import node_names, slurm_says
from probes.errors import TargetError

ASK_WITHIN_S = 30.0
LEAVE_WITHIN_S = 5.0  # for salloc, once its input has ended
QUEUE_S = 120  # how long a job may wait for nodes that are said to be free
# What of our environment goes into a step: nothing that could hold a secret of the user's other programs.
CARRIED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LD_LIBRARY_PATH", "TMPDIR")
CARRIED_PREFIXES = (
    *("SLURM_", "MUNGE_", "NCCL_", "TORCH_", "UCX_", "CUDA_", "GLOO_", "LC_"),
    "OVERPROOF_TEST_",
)
# salloc gives the job back when its command ends; where salloc itself was killed, the command does it. Both
# at once has been seen to send salloc into an endless loop. A salloc that is killed takes a moment to die.
_HOLD = (
    'echo "$SLURM_JOB_ID"; cat >/dev/null; sleep 0.5; '
    'grep -qx "PPid:[[:space:]]*$PPID" /proc/$$/status || scancel "$SLURM_JOB_ID"'
)
_UNUSABLE = ("down", "drain", "fail", "unknown", "inval", "error", "power", "reboot")


class SlurmLauncher:
    """Starts each host's program as a step of one job.

    ``salloc_options`` go to salloc as they are, such as ``--reservation=intake`` or ``--partition=gpu``.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        time_limit_s: float,
        salloc_options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        queue_s: int = QUEUE_S,
        ask_within_s: float = ASK_WITHIN_S,
    ) -> None:
        self._names = tuple(names)
        self._time_limit_s = time_limit_s
        self._options = tuple(salloc_options)
        self._environment = _carried(os.environ if environment is None else environment)
        self._queue_s = queue_s
        self._ask_within_s = ask_within_s
        self._lock = threading.Lock()
        self._channels: list[PipeChannel] = []
        self._holder: PipeChannel | None = None  # None: no job was asked for
        self._job = self._environment.get("SLURM_JOB_ID", "")
        self._is_ours = not self._job
        self._reached: tuple[str, ...] = ()
        self._refused: dict[str, str] = {}  # node -> why no step can run there
        self._error: TargetError | None = None  # None: the job was not refused

    @property
    def job(self) -> str:
        """The job's number; empty before there is one."""
        return self._job

    def start(self, host: Host, program: Program, *, within_s: float) -> Channel:
        """Start a program as a step on one node.

        Raises:
            TargetError: there is no job, the node is not in it, or the step did not begin in time.
        """
        with self._lock:
            self._find_job()
        if host.name not in self._reached:
            raise TargetError(f"{host.name}: {self._refused.get(host.name) or self._not_in_job()}")
        words = command_words(host.access.python, host.access.wrapper)
        channel = PipeChannel(
            [*_step(self._job, host.name), *words], host=host.name, environment=self._environment
        )
        with self._lock:
            self._channels.append(channel)
        try:
            return begin(channel, program, host=host.name, within_s=within_s)
        except TargetError as error:
            said = last_line(channel.errors())
            raise TargetError(f"{error}; srun in job {self._job} said: {said or 'nothing'}") from error

    def _not_in_job(self) -> str:
        return f"not in job {self._job}; ask for it: salloc --nodelist={','.join(self._names)} --exclusive"

    def _find_job(self) -> None:
        """See which nodes the job has, or ask for one; what was refused once stays refused."""
        if self._error is not None:
            raise self._error
        if self._reached:
            return
        try:
            self._reached = self._own_job() if not self._is_ours else self._ask_for_job()
        except TargetError as error:
            self._error = error
            raise

    def _own_job(self) -> tuple[str, ...]:
        nodes = self._environment.get("SLURM_JOB_NODELIST", "")
        return tuple(node_names(nodes, self._environment, within_s=self._ask_within_s))

    def _ask_for_job(self) -> tuple[str, ...]:
        self._refused = self._unusable()
        names = tuple(name for name in self._names if name not in self._refused)
        if not names:
            raise TargetError(f"Slurm: no node can be had: {'; '.join(self._refused.values())[:600]}")
        self._holder = PipeChannel(self._asking(names), host="salloc", environment=self._environment)
        said = b""
        while b"\n" not in said:
            data = self._holder.read() if self._holder.wait(self._queue_s + self._ask_within_s) else b""
            if not data:
                self._holder.end()
                why = last_line(self._holder.errors()) or f"no answer within {self._queue_s:.0f} s"
                raise TargetError(f"salloc: {why}; see who has {','.join(names)}: squeue; or add queue time")
            said += data
        self._job = said.decode().strip()
        return names

    def _asking(self, names: Sequence[str]) -> list[str]:
        return [
            "salloc",
            "--job-name=overproof",
            f"--nodes={len(names)}",
            f"--nodelist={','.join(names)}",
            "--exclusive",  # all of each node, its GPUs too, and nobody beside us
            "--mem=0",
            "--no-kill",  # a node that fails takes only itself out of the job
            f"--time={math.ceil(self._time_limit_s / 60)}",
            f"--immediate={self._queue_s}",
            *self._options,
            "sh",
            "-c",
            _HOLD,
        ]

    def _unusable(self) -> dict[str, str]:
        """Return the nodes on which Slurm starts nothing, and why."""
        words = ["sinfo", "-h", "-N", "-n", ",".join(self._names), "-o", "%N|%T|%E"]
        rows = [
            line.split("|", 2)
            for line in slurm_says(words, self._environment, within_s=self._ask_within_s).splitlines()
        ]
        states = {name: (state, reason) for name, state, reason in rows}
        return {name: why for name in self._names if (why := why_unusable(name, *states.get(name, ("", ""))))}

    def close(self) -> None:
        """End every step, and give the job back if it was asked for."""
        for channel in self._channels:
            channel.end()
        self._channels.clear()
        if self._holder is None:
            return
        # A signal to salloc and its command at once can send salloc into an endless loop.
        self._holder.hang_up(within_s=LEAVE_WITHIN_S)
        self._holder.end()
        self._holder = None
        if not self._job:
            return
        try:
            slurm_says(["scancel", self._job], self._environment, within_s=self._ask_within_s)
        except TargetError as error:
            # It has its time limit, but who reads this can end it sooner.
            sys.stderr.write(f"overproof: job {self._job} may still be there: {error}; scancel {self._job}\n")


def why_unusable(name: str, state: str, reason: str) -> str:
    """Say why Slurm starts nothing on a node in this state, with what to do; empty: it does."""
    if not state:
        return f"{name}: Slurm has no node of this name; see: sinfo -N"
    if state.startswith("drain"):
        how = "put it into a reservation and resume it there, or reach it by the launcher ssh"
        return f"{name} is {state} ({reason}), and Slurm starts nothing on drained nodes; {how}"
    if state.startswith(_UNUSABLE) or state.endswith("*"):
        return f"{name} is {state} ({reason}); see slurmd there: systemctl status slurmd"
    return ""


def _step(job: str, name: str) -> list[str]:
    """Return the words that run a command on one node of a job, beside whatever other steps it has."""
    return [
        "srun",
        f"--jobid={job}",
        f"--nodelist={name}",
        "--nodes=1",
        "--ntasks=1",
        "--overlap",
        "--mem=0",
        "--cpu-bind=none",
        "--mpi=none",
        "--export=ALL",
        "--chdir=/",
        "--input=all",
    ]


def _carried(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name in CARRIED or name.startswith(CARRIED_PREFIXES)
    }


def last_line(errors: bytes) -> str:
    """Return the last line that a command of Slurm's wrote to standard error."""
    lines = errors.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""

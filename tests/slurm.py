"""A real Slurm below one folder: munged, slurmctld, and one slurmd for each node, all on this machine."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from probes.child import wait_until

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={machine}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SwitchType=switch/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n/slurmd.pid
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=2
MessageTimeout=5
BatchStartTimeout=5
NodeName=node[1-{count}] NodeHostname={machine} NodeAddr=127.0.0.1 Port={first_port}-{last_port} CPUs=1
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(slots=True)
class Slurm:
    """A running Slurm."""

    folder: Path
    nodes: list[str]
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to speak to this Slurm and to no other."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        return clean | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _PATH}

    def ask(self, *command: str) -> str:
        """Run one of Slurm's commands and return what it said."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def state(self, node: str) -> str:
        """Return the state of a node, as sinfo says it."""
        return self.ask("sinfo", "-h", "-N", "-n", node, "-o", "%T").strip()

    def jobs(self) -> list[str]:
        """Return the jobs that are there, each with its state."""
        return self.ask("squeue", "-h", "-o", "%i %T").splitlines()

    def write_script(self, name: str, text: str) -> None:
        """Let a script that is in the configuration do something."""
        (self.folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.folder / name).chmod(0o755)

    def start(self, name: str, *command: str) -> None:
        """Start one daemon."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self) -> None:
        """Cancel every job, so that no step outlives its slurmd, and end the daemons."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.daemons["slurmctld"].send_signal(signal.SIGCONT)
            self.ask("scancel", "--user", getpass.getuser())
            wait_until(lambda: not self.jobs(), timeout_s=10)
        for daemon in reversed(self.daemons.values()):
            daemon.send_signal(signal.SIGCONT)
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(timeout=5)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait(timeout=5)


@contextlib.contextmanager
def running_slurm(*, nodes: int = 2, scripts: Sequence[str] = ()) -> Iterator[Slurm]:
    """Start Slurm in a folder of its own, whose name is short because of its sockets, and end it all.

    ``scripts`` names settings such as Prolog: scripts of that name in the folder, which do nothing yet.
    """
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    slurm = Slurm(folder, [f"node{number}" for number in range(1, nodes + 1)])
    try:
        _configure(slurm, scripts)
        _start(slurm)
        yield slurm
    finally:
        slurm.end()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def silent_slurm(slurm: Slurm) -> Iterator[dict[str, str]]:
    """Yield an environment in which somebody listens where slurmctld should, and never says a word.

    The real one is not stopped: its nodes would count as not responding for minutes.
    """
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        lines = (slurm.folder / "slurm.conf").read_text().splitlines()
        kept = [line for line in lines if not line.startswith("SlurmctldPort=")]
        folder = slurm.folder / "silent"
        folder.mkdir(exist_ok=True)
        port = listening.getsockname()[1]
        (folder / "slurm.conf").write_text("\n".join([*kept, f"SlurmctldPort={port}", ""]))
        yield slurm.environment | {"SLURM_CONF": str(folder / "slurm.conf")}


def _configure(slurm: Slurm, scripts: Sequence[str]) -> None:
    folder, count = slurm.folder, len(slurm.nodes)
    first, controller = _free_ports(count + 1)
    text = _CONFIGURATION.format(
        machine=os.uname().nodename,
        user=getpass.getuser(),
        folder=folder,
        count=count,
        controller_port=controller,
        first_port=first,
        last_port=first + count - 1,
    )
    if "Prolog" in scripts:  # srun waits for it then, however long it takes
        text += "PrologFlags=Alloc\n"
    for name in scripts:
        slurm.write_script(name, "exit 0")
        text += f"{name}={folder / name}\n"
    (folder / "slurm.conf").write_text(text)
    # Nothing that we configure uses cgroups, but slurmd wants a plugin that loads ("disabled" came later).
    (folder / "cgroup.conf").write_text(f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={folder}/cgroup\n")
    (folder / "munge.key").touch(mode=0o600)
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    for name in ("state", *slurm.nodes):
        (folder / name).mkdir()


def _free_ports(count: int) -> tuple[int, int]:
    """Return the first of several neighbouring ports that are free, and the last of them."""
    for first in range(20000 + os.getpid() % 5000, 32000, count):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + count):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first, first + count - 1
    raise AssertionError("no free ports")


def _start(slurm: Slurm) -> None:
    folder = slurm.folder
    files = [f"--{name}={folder}/munge.{end}" for name, end in _MUNGE_FILES.items()]
    slurm.start("munged", "munged", "--foreground", "--force", *files)
    _wait(slurm, (folder / "munge.sock").exists)
    slurm.start("slurmctld", "slurmctld", "-D")
    for node in slurm.nodes:
        slurm.start(node, "slurmd", "-D", "-N", node)
    _wait(slurm, lambda: _is_idle(slurm, slurm.nodes))


_MUNGE_FILES = {
    "key-file": "key",
    "socket": "sock",
    "pid-file": "pid",
    "log-file": "log",
    "seed-file": "seed",
}


def _is_idle(slurm: Slurm, nodes: Sequence[str]) -> bool:
    try:
        return all(slurm.state(node) == "idle" for node in nodes)
    except AssertionError:
        return False


def _wait(slurm: Slurm, condition: object) -> None:
    assert callable(condition)
    if not wait_until(condition, timeout_s=20):
        logs = "\n".join(path.read_text(errors="replace")[-1000:] for path in slurm.folder.glob("*.log"))
        raise AssertionError(f"Slurm did not start:\n{logs}")

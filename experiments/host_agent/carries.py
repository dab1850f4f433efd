"""What else a host carries: somebody's jobs, pods, programs on its GPUs. Only what can be seen is said."""

from __future__ import annotations

import re
from pathlib import Path

from experiments.host_agent.processes import every_process

_STEP = re.compile(r"slurmstepd: \[(\d+)")
_POD = re.compile(r"pod([0-9a-f]{8}[-_][0-9a-f-_]{27})")
_GPUS_LOOKED_AT_MAX = 4000  # processes: a look must not take long


def what_it_carries() -> list[str]:
    """Return it in words, such as "2 Slurm jobs (17, 18)"."""
    found = every_process()
    jobs = sorted({match[1] for process in found if (match := _STEP.match(process.command))})
    pods = {match[1] for process in found if (match := _POD.search(_cgroup(process.pid)))}
    on_gpus = [process.pid for process in found[:_GPUS_LOOKED_AT_MAX] if _has_gpu(process.pid)]
    said = [f"{len(jobs)} Slurm jobs ({', '.join(jobs[:8])})"] if jobs else []
    said += [f"{len(pods)} pods"] if pods else []
    return said + ([f"{len(on_gpus)} processes on its GPUs"] if on_gpus else [])


def _cgroup(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""


def _has_gpu(pid: int) -> bool:
    """Say whether a process has a GPU open, not only the driver's control device."""
    try:
        names = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    return any(re.fullmatch(r"/dev/nvidia\d+", name) for name in names)

"""How fast a local disk or shared file system is, by ``fio`` where it is installed.

The file has no name: it is gone with the last process that holds it, however that ends. Nothing is written
where that would take more than a tenth of what is free.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from probes.json_types import JsonObject

FREE_SHARE_MAX = 0.1
RUNTIME_S = 5
WITHIN_S = 30.0


def measure_disks(wanted: JsonObject) -> list[JsonObject]:
    """Write and read a file in each folder; say what came of it, or why nothing did."""
    folders = wanted.get("directories") or [tempfile.gettempdir()]
    return [{"directory": str(f), **_measure(str(f), int(wanted["size_bytes"]))} for f in folders]


def _measure(folder: str, size: int) -> JsonObject:
    if shutil.which("fio") is None:
        return {"absent": "fio is not installed"}
    try:
        room = os.statvfs(folder)
        free = room.f_bavail * room.f_frsize
        if size > FREE_SHARE_MAX * free:
            return {"problem": f"{free / 1e9:.1f} GB free are too few for a file of {size / 1e9:.1f} GB"}
        descriptor = open_nameless(folder)
    except OSError as error:
        return {"problem": f"{error.strerror}"}
    try:
        os.posix_fallocate(descriptor, 0, size)
        direct = _run(descriptor, size, is_direct=True)  # not every file system has that
        return direct if "problem" not in direct else _run(descriptor, size, is_direct=False)
    except OSError as error:
        return {"problem": f"{error.strerror}"}
    finally:
        os.close(descriptor)


def open_nameless(folder: str) -> int:
    """Return a descriptor of a file in a folder that has no name there."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError:  # file systems of a network do not have that
        descriptor, path = tempfile.mkstemp(prefix=".overproof-disk-", dir=folder)
        Path(path).unlink()
        return descriptor


def _run(descriptor: int, size: int, *, is_direct: bool) -> JsonObject:
    """Write the file, then read it, in blocks of 1 MiB."""
    shared = [f"--filename=/proc/self/fd/{descriptor}", f"--size={size}", "--bs=1M", "--ioengine=psync"]
    shared += [f"--direct={int(is_direct)}", f"--runtime={RUNTIME_S}", "--thread", "--allow_file_create=0"]
    command = ["fio", "--output-format=json"]
    for name, kind in (("write", "--rw=write"), ("read", "--rw=read")):
        command += [f"--name={name}", kind, "--stonewall", *shared]
    try:
        done = subprocess.run(
            [*command, "--end_fsync=1"],
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
            stdin=subprocess.DEVNULL,
            pass_fds=[descriptor],
        )
        jobs = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
        return {"problem": f"{type(error).__name__}: {error}"[:200]}
    if done.returncode or any(job["error"] for job in jobs):
        return {"problem": done.stderr.strip()[:200] or "fio reports an error"}
    figures = {f"{job['jobname']}_mbps": round(job[job["jobname"]]["bw_bytes"] / 1e6, 1) for job in jobs}
    return {"size_bytes": size, "is_direct": is_direct, **figures}

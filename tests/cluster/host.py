"""A host of the cluster as a shell script: its control groups, its namespaces, then its supervisor."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_HIERARCHIES = Path("/sys/fs/cgroup")
_UNSHARE = "unshare --mount --uts --ipc --pid --fork --kill-child --mount-proc"


class NoControlGroupsError(Exception):
    """The machine's control groups are not of the kind that is supported here."""


def hierarchies() -> list[str]:
    """Return the control group hierarchies of version 1 that this machine has mounted.

    Raises:
        NoControlGroupsError: it has those of version 2 only.
    """
    found = sorted(path.parent.name for path in _HIERARCHIES.glob("*/tasks"))
    if not {"cpu", "cpuacct", "cpuset", "memory"} <= set(found):
        raise NoControlGroupsError(
            "this machine mounts control groups of version 2 only, which the test cluster cannot use yet; "
            "name another cluster with KUBECONFIG"
        )
    return found


def control_group_folders(group: str) -> list[Path]:
    """Return the folder of a group in each hierarchy."""
    return [_HIERARCHIES / name / group for name in hierarchies()]


def join_control_group(group: str) -> str:
    """Return the lines that put the shell, and all that it starts, into a control group of its own."""
    lines = []
    for folder in control_group_folders(group):
        lines.append(f"mkdir -p {folder}")
        if folder.relative_to(_HIERARCHIES).parts[0] == "cpuset":  # a new one has neither cores nor memory
            top = _HIERARCHIES / "cpuset"
            for each in (folder.parent, folder):
                lines += [f"cat {top}/{file} > {each}/{file}" for file in ("cpuset.cpus", "cpuset.mems")]
        lines.append(f"echo $$ > {folder}/cgroup.procs")
    return "\n".join(lines)


def mount_control_groups() -> str:
    """Return the lines that show a host its own control groups only, with its own group as their root."""
    lines = [f"mount -t tmpfs cgroup {_HIERARCHIES}"]
    for name in hierarchies():
        option = "none,name=systemd" if name == "systemd" else name
        lines += [f"mkdir {_HIERARCHIES}/{name}", f"mount -t cgroup -o {option} cgroup {_HIERARCHIES}/{name}"]
    return "\n".join(lines)


def enter_namespaces(script: Path, *, more: str) -> str:
    """Return the line that goes on with another script in namespaces of its own."""
    return f"exec {_UNSHARE} {more} sh {shlex.quote(str(script))}"


def supervise(folder: Path, services: Mapping[str, Sequence[str]]) -> str:
    """Write the list of services and return the line that starts them."""
    listed = folder / "services.json"
    listed.write_text(json.dumps(services, indent=1))
    return f"exec {shlex.quote(sys.executable)} -I {shlex.quote(str(_SUPERVISOR))} {shlex.quote(str(listed))}"


def write_script(path: Path, lines: Sequence[str]) -> Path:
    """Write a shell script that ends at the first failure."""
    path.write_text("\n".join(["set -e", *lines]) + "\n")
    return path

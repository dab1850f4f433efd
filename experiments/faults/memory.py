"""A replica that gets no more memory: its address space is limited to little more than it has."""

from __future__ import annotations

import resource
from pathlib import Path

from experiments.faults.fault import UNDO, Fault, FaultRefused, Undoing, Verification
from experiments.faults.victims import (
    A_LAB,
    processes_of,
    recheck_victims,
    see_serving,
    subject_of,
    undo_in_lab,
)
from probes.json_types import JsonObject

_PAGE_BYTES = resource.getpagesize()


def with_limit(captured: JsonObject, *, headroom_bytes: int) -> JsonObject:
    """Add each victim's limit before, and the one that it gets."""
    before, limits = {}, {}
    for victim in processes_of(captured):
        pid = str(victim.pid)
        before[pid] = list(resource.prlimit(victim.pid, resource.RLIMIT_AS))
        pages = int(Path(f"/proc/{victim.pid}/statm").read_text().split()[0])
        limits[pid] = pages * _PAGE_BYTES + headroom_bytes
    return captured | {"limits_before": before, "limits": limits}


def limit_victims(captured: JsonObject) -> None:
    """Set the soft limit; the hard one stays, so that whoever owns the process can take it back."""
    for victim in processes_of(captured):
        if not victim.is_alive:
            raise FaultRefused(f"{subject_of(captured)}: pid {victim.pid} was gone before it was hit")
        _, hard = captured["limits_before"][str(victim.pid)]
        resource.prlimit(victim.pid, resource.RLIMIT_AS, (captured["limits"][str(victim.pid)], hard))


def verify_limit(captured: JsonObject) -> Verification:
    """Read each victim's limit from the kernel; one that died of it has felt it."""
    said, is_verified = [], True
    for victim in processes_of(captured):
        if not victim.is_alive:
            said.append(f"pid {victim.pid} died of it")
            continue
        soft = resource.prlimit(victim.pid, resource.RLIMIT_AS)[0]
        is_verified = is_verified and soft == captured["limits"][str(victim.pid)]
        said.append(f"pid {victim.pid} may have {soft} bytes")
    return Verification(is_verified=is_verified, observed=f"{subject_of(captured)}: {', '.join(said)}")


def undo_limit(captured: JsonObject) -> Undoing:
    """Give each victim that still lives its limit of before."""
    freed = []
    for victim in processes_of(captured):
        before = tuple(captured["limits_before"][str(victim.pid)])
        if victim.is_alive and resource.prlimit(victim.pid, resource.RLIMIT_AS) != before:
            resource.prlimit(victim.pid, resource.RLIMIT_AS, (before[0], before[1]))
            freed.append(victim.pid)

    def restore() -> Undoing:
        pids = ", ".join(map(str, freed))
        return see_serving(captured, did=f"gave pid {pids} the limit of before" if freed else "")

    return undo_in_lab(captured, restore)


MEMORY = Fault(
    name="replica.memory",
    fidelity="P",
    ends_by=UNDO,
    subject=subject_of,
    recheck=recheck_victims,
    inject=limit_victims,
    verify=verify_limit,
    undo=undo_limit,
    needs=(A_LAB,),
    covers=("host-exhausted",),
)

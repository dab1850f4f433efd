"""Arming a change on a cluster from the process that makes it, and taking it back."""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Sequence

from experiments.faults.fault import FaultRefused, Undoing
from experiments.kube.deadman.hold import why_silent
from experiments.kube.deadman.lease import (
    INJECT_WITHIN_S,
    LEASE_S,
    age_s,
    beat_of,
    read_lease,
)
from experiments.kube.deadman.mirror import (
    MirrorEntry,
    Place,
    undo_entry,
    write_armed,
    write_outcome,
)
from experiments.kube.undoing.steps import Api, UndoStep
from probes.child import wait_until
from probes.errors import SuiteError, TargetError

SEEN_WITHIN_S = 20.0  # a beat comes each second; a pod that was just moved needs a while
_POLL_S = 0.25


def arm_in_cluster(
    api: Api, place: Place, *, entry_id: str, fault: str, subject: str, steps: Sequence[UndoStep]
) -> None:
    """Mirror an entry of the ledger; return once the dead-man has read it and shown that it could undo it.

    Only after this has returned may the change be made, and within the time that one call may take.

    Raises:
        FaultRefused: it could not, or it counts us as gone.
        TargetError: the API server does not answer.
    """
    entry = MirrorEntry(
        id=entry_id, fault=fault, subject=subject, steps=tuple(steps), t_armed_ns=time.time_ns()
    )
    write_armed(place, api, entry)
    said = "nothing"

    def is_answered() -> bool:
        nonlocal said
        found = read_lease(place.heartbeat, api)
        if found is None:
            raise TargetError(f"{place.heartbeat}: is gone; nothing is injected")
        beat = beat_of(found)
        said = beat.cannot.get(entry_id, "")
        return entry_id in beat.sees or bool(said)

    if not wait_until(is_answered, timeout_s=SEEN_WITHIN_S, interval_s=_POLL_S):
        raise FaultRefused(
            f"{subject}: the dead-man in the cluster has not seen it within {SEEN_WITHIN_S:g} s: "
            f"{why_silent(api, place)}; nothing is injected"
        )
    if said:
        raise FaultRefused(f"{subject}: the dead-man could not undo it: {said}; nothing is injected")
    check_lease(api, place)


def check_lease(api: Api, place: Place) -> None:
    """See that the dead-man will not take over during one call; asked where the controller runs.

    Raises:
        FaultRefused: it might.
    """
    found = read_lease(place.lease, api)
    age = float("inf") if found is None else age_s(found, datetime.datetime.now(datetime.UTC))
    if age > LEASE_S - INJECT_WITHIN_S:
        raise FaultRefused(
            f"{place.lease}: not renewed for {age:.0f} s: the controller is gone, or the API was away; "
            "nothing is injected"
        )


def undo_in_cluster(
    api: Api, place: Place | None, *, entry_id: str, fault: str, subject: str, steps: Sequence[UndoStep]
) -> Undoing:
    """Carry out the steps, from any machine, and note it in the mirror where there still is one.

    Raises:
        TargetError: not all of it could be put back.
    """
    entry = MirrorEntry(id=entry_id, fault=fault, subject=subject, steps=tuple(steps))
    noted, has_acted = undo_entry(entry, api, by=f"us, on {os.uname().nodename}")
    if place is not None:
        with contextlib.suppress(SuiteError):  # what is undone is: the dead-man will find nothing to do
            write_outcome(place, api, noted)
    if noted.is_pending:
        raise TargetError(noted.did)
    return Undoing(is_restored=True, did=noted.did, has_acted=has_acted)

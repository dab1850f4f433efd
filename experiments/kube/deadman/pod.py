"""The dead-man: ``python dead-man.zip experiments.kube.deadman.pod NAMESPACE NAME NONCE`` in a pod of a Job.

It says again and again that it lives, which entries of the mirror it has read, and whether it could undo
them. Once the controller's lease has not been renewed for its time, it undoes what is pending, and looks
again until nothing comes back. It leaves when it is done, or when the mirror is gone: the game day has ended.

This file travels into the cluster: standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable

from experiments.kube.deadman.lease import LEASE_S, Silence, beat_words, read_lease, renew
from experiments.kube.deadman.mirror import (
    NAMESPACE,
    UNREADABLE,
    MirrorClosed,
    MirrorEntry,
    Place,
    entries_of,
    fired_reason,
    read_mirror,
    undo_entry,
    write_fired,
    write_outcome,
)
from experiments.kube.deadman.pod_api import PodApi
from experiments.kube.undoing.steps import Api, prove
from probes.errors import TargetError
from probes.json_types import JsonObject

POLL_S = 1.0
SETTLE_S = 12.0  # a call that was under way when its sender died takes effect within this time
WAIT_S_MAX = 5.0  # between tries where undoing fails, doubling up to here
_TERMINATED = 143  # never 0 when told to leave: a Job takes 0 for done, and would start no other


class DeadMan:
    """Watches over one game day."""

    def __init__(
        self,
        place: Place,
        api: Api,
        *,
        nonce: str,
        name: str,
        clock_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._place, self._api, self._nonce, self._name = place, api, nonce, name
        self._clock_s, self._sleep = clock_s, sleep
        self._silence = Silence(clock_s)
        self._proven: dict[
            str, str
        ] = {}  # by the id of an entry: why it could not be undone, empty where it could

    def watch(self) -> None:
        """Return once the game day has ended, or all that it left is undone."""
        while True:
            try:
                found = read_mirror(self._place, self._api)
                if found is None:
                    return
                if self._has_to_fire(found):
                    break
                self._beat(found)
            except TargetError as error:  # the API server is away, or refuses us: it is asked again
                self._silence.miss()
                _say(str(error))
            self._sleep(POLL_S)
        self._undo_all()

    def _has_to_fire(self, found: JsonObject) -> bool:
        if fired_reason(found):  # by one of us whose node was lost, say
            return True
        self._silence.look(read_lease(self._place.lease, self._api))
        if self._silence.lasted_s < LEASE_S:
            return False
        write_fired(self._place, self._api, f"the controller has not renewed its lease for {LEASE_S} s")
        _say(f"{self._place.name}: the controller is silent; undoing")
        return True

    def _beat(self, found: JsonObject) -> None:
        """Prove what is new, then say so: a beat that names an entry is a promise to undo it."""
        for entry in entries_of(found):
            if entry.is_pending and self._proven.get(entry.id) != "":
                reasons = [entry.did] if entry.state == UNREADABLE else []
                reasons += [reason for step in entry.steps if (reason := prove(step, self._api))]
                self._proven[entry.id] = "; ".join(reasons)
        sees = {key for key, reason in self._proven.items() if not reason}
        cannot = {key: reason for key, reason in self._proven.items() if reason}
        renew(self._place.heartbeat, self._api, self._name, beat_words(self._nonce, sees, cannot))

    def _undo_all(self) -> None:
        """Undo until all of it is undone and has stayed so for a while; fails and tries again without end."""
        wait_s, quiet_since_s = POLL_S, self._clock_s()
        while True:
            try:
                found = read_mirror(self._place, self._api)
                if found is None:
                    return
                outcomes = [self._undo(entry) for entry in reversed(entries_of(found))]
                is_whole, has_acted = all(o[0] for o in outcomes), any(o[1] for o in outcomes)
            except TargetError as error:
                _say(str(error))
                is_whole, has_acted = False, False
            if not is_whole or has_acted:
                quiet_since_s = self._clock_s()
            if is_whole and self._clock_s() - quiet_since_s >= SETTLE_S:
                _say(f"{self._place.name}: all is undone")
                return
            wait_s = POLL_S if is_whole else min(wait_s * 2, WAIT_S_MAX)
            self._sleep(wait_s)

    def _undo(self, entry: MirrorEntry) -> tuple[bool, bool]:
        """Undo an entry, also one that is undone already: a late injection brings it back."""
        try:
            by = f"dead-man {self._name}"
            noted, has_acted = undo_entry(entry, self._api, by=by, may_delete=False)
        except Exception as error:  # whatever it is: the others are undone all the same, this tried again
            _say(f"{entry.id}: {type(error).__name__}: {error}")
            return False, False
        if entry.is_pending or has_acted:
            _say(f"{entry.id}: {noted.state}: {noted.did}")
            with contextlib.suppress(MirrorClosed):
                write_outcome(self._place, self._api, noted)
        return not noted.is_pending, has_acted


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main(arguments: list[str]) -> int:
    """Watch over one game day."""
    namespace, name, nonce = arguments
    # The first process of a container ignores what it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(_TERMINATED))
    place = Place(namespace=namespace or NAMESPACE, name=name)
    DeadMan(place, PodApi(), nonce=nonce, name=os.uname().nodename).watch()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

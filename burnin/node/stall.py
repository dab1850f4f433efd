"""When a worker has stalled: pure, so that a positive control can prove it before every run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probes.json_types import JsonObject


@dataclass(slots=True, kw_only=True)
class Sign:
    """The last signs of life of one worker, in monotonic seconds of the agent."""

    device: str
    is_busy: bool = False  # with a stage
    is_waiting: bool = False  # for other devices
    is_inside: bool = False  # a collective
    steps: int = -1
    entered: int = 0  # collectives of the present group
    stepped_at: float = 0.0
    heard_at: float = 0.0  # its last pulse: it still runs


def note_pulse(sign: Sign, said: JsonObject, *, now_s: float) -> None:
    """Take in what a worker says of itself."""
    if said["steps"] != sign.steps:
        sign.steps, sign.stepped_at = int(said["steps"]), now_s
    sign.is_waiting, sign.is_inside = bool(said["is_waiting"]), bool(said["is_inside"])
    sign.entered, sign.heard_at = int(said["entered"]), now_s


def find_stalled(signs: Sequence[Sign], *, stall_s: float, now_s: float) -> list[str]:
    """Return the devices that make no step and do not wait for another.

    Where all that are busy wait for each other, those have stalled that entered fewer collectives than
    the others and are in none. One inside an earlier collective waits for what the others, which have left
    it, have sent: were the data lost, or does it hang itself? Nobody can tell. Then, and where all entered
    as many, the collective itself hangs, and each of them is returned.
    """
    busy = [sign for sign in signs if sign.is_busy]
    silent = [sign for sign in busy if now_s - sign.stepped_at >= stall_s]
    # What a frozen process said last, that it waits, is no longer true.
    culprits = [s for s in silent if not s.is_waiting or now_s - s.heard_at >= stall_s / 2]
    if culprits or len(silent) < len(busy):
        return [sign.device for sign in culprits]
    latest = max((sign.entered for sign in silent), default=0)
    behind = [sign.device for sign in silent if sign.entered < latest and not sign.is_inside]
    if behind:
        return behind
    # A grace on top: a partner that has just been ended must first let go of those that wait for it.
    is_over = any(now_s - sign.stepped_at >= 2 * stall_s for sign in silent)
    return [sign.device for sign in silent] if is_over else []


def is_stall_found(stall_s: float) -> bool:
    """Seed a stall among invented signs: one worker stands still, one waits for it, one works."""
    now_s = 1000.0
    old = now_s - 1.5 * stall_s
    signs = [
        Sign(device="stalled", is_busy=True, stepped_at=old, heard_at=now_s),
        Sign(device="waiting", is_busy=True, is_waiting=True, stepped_at=old, heard_at=now_s),
        Sign(device="working", is_busy=True, stepped_at=now_s, heard_at=now_s),
    ]
    return find_stalled(signs, stall_s=stall_s, now_s=now_s) == ["stalled"]

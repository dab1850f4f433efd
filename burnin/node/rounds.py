"""Rounds: which devices work at the same time in a stage, and which of them together. Standard library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

ALONE, TOGETHER = "alone", "together"
ALONE_SHARE = 0.3  # of a stage's length; the rest is for all at once, as real work loads them
SOLO_STAGES = ("matmul", "bandwidth")  # first one device after another, then all at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Groups of devices that work at the same time; the devices of one group work with each other."""

    phase: str
    length_s: float
    groups: tuple[tuple[str, ...], ...]
    is_joined: bool = False  # the devices of a group exchange data


def plan_rounds(
    stage: str, devices: Sequence[str], *, length_s: float, phases: Sequence[str] = (ALONE, TOGETHER)
) -> list[Round]:
    """Return the rounds of a stage in order; none where there are too few devices for it."""
    if stage == "links":
        return _link_rounds(devices, length_s, phases)
    if stage == "allreduce":
        whole = Round(phase=TOGETHER, length_s=length_s, groups=(tuple(devices),), is_joined=True)
        return [whole] if len(devices) > 1 else []
    each = tuple((device,) for device in devices)
    if stage not in SOLO_STAGES or len(devices) < 2 or ALONE not in phases:
        return [Round(phase=TOGETHER, length_s=length_s, groups=each)]
    alone_s = length_s * ALONE_SHARE / len(devices)
    alone = [Round(phase=ALONE, length_s=alone_s, groups=(group,)) for group in each]
    return [*alone, Round(phase=TOGETHER, length_s=length_s * (1 - ALONE_SHARE), groups=each)]


def _link_rounds(devices: Sequence[str], length_s: float, phases: Sequence[str]) -> list[Round]:
    """Each pair by itself, then all pairs in rounds in which no device has two partners."""
    if len(devices) < 2:
        return []
    together = [(TOGETHER, pairs) for pairs in disjoint_pairs(devices)]
    pairs = list(combinations(devices, 2))
    # With one pair only, both are the same.
    alone = [(ALONE, (pair,)) for pair in pairs] if ALONE in phases and len(pairs) > 1 else []
    planned = [*alone, *together]
    return [
        Round(phase=phase, length_s=length_s / len(planned), groups=tuple(groups), is_joined=True)
        for phase, groups in planned
    ]


def disjoint_pairs(devices: Sequence[str]) -> list[tuple[tuple[str, str], ...]]:
    """Return every pair once, in as few rounds as possible: the circle method of tournaments."""
    ring: list[str | None] = [*devices, *([None] if len(devices) % 2 else [])]
    order, rounds = {device: index for index, device in enumerate(devices)}, []
    for _ in range(len(ring) - 1):
        half = len(ring) // 2
        pairs = []
        for one, other in zip(ring[:half], reversed(ring[half:]), strict=True):
            if one is not None and other is not None:
                pairs.append((one, other) if order[one] < order[other] else (other, one))
        rounds.append(tuple(pairs))
        ring = [ring[0], ring[-1], *ring[1:-1]]
    return rounds


def link_name(one: str, other: str) -> str:
    """Return how a link is called in the record."""
    return f"{one}-{other}"

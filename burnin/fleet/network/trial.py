"""One trial of the network stage: a group of hosts exchanges data over one path, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

FULL = "full"
NO_NVLINK = "no-nvlink"  # NVLink between hosts switched off: what is left is the fabric of the NICs
RAIL = "rail:"  # then the rails that are used, the others off: "rail:3" or "rail:0,1,2,3"

ALL_REDUCE, ALL_TO_ALL, ALL_GATHER, SEND_RECV = "all_reduce", "all_to_all", "all_gather", "send_recv"
# Every host with every other, one distance in the ring at a time; the figure is that of the slowest distance.
# A slow pair shows undiluted, whatever the size of the group: an all-to-all hides it among the others.
PAIRWISE = "pairwise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A group of hosts that are to run collectives together."""

    id: str
    round: int
    # Why it runs: "domains", "across", "bisection", "boundary", "contrast", "tournament", "rail", "confirm",
    # "repeat". A trial of one host stays inside it.
    design: str
    hosts: tuple[str, ...]
    path: str = FULL  # FULL, NO_NVLINK, "rail:3" or "rail:0,1"
    collectives: tuple[str, ...] = ("all_reduce",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One collective at one size, over all its iterations."""

    collective: str
    size_bytes: int
    ranks: int
    iterations: int
    busbw_gbps: float  # over all iterations together
    busbw_worst_gbps: float  # the slowest iteration, or window of iterations at small sizes
    wrong_elements: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """What came of a trial."""

    trial: Trial
    state: str  # "done", "hung", "failed" (an error, no hang), "lost" (a host fell out), "not run"
    sweeps: tuple[Sweep, ...] = ()  # only complete ones are judged
    is_complete: bool = False  # every size of every collective was measured
    transport: str | None = (
        None  # what NCCL or gloo really used: "NET/IB", "NET/Socket", "P2P", "gloo"; None: not told
    )
    blamed: tuple[str, ...] = ()  # hosts that the trial itself names: lost, or absent according to NCCL's RAS
    seconds: float = 0.0
    detail: str = ""
    environment: dict[str, str] = field(default_factory=dict)  # NCCL's, as it was


# Runs the trials of one round side by side (no host is in two of them); one result for each trial.
RoundRunner = Callable[[Sequence[Trial]], Sequence[TrialResult]]

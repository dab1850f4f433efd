"""The order of a trial: what one host is told about its part in a group. Standard library alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from probes.json_types import JsonObject

COLLECTIVES = ("all_reduce", "all_gather", "all_to_all", "send_recv", "pairwise")
FAULTS = ("slow", "absent", "bit_flip", "crash", "late")
RANKS_VARIABLE, LEADER_VARIABLE, GPUS_VARIABLE = "OVERPROOF_TRIAL", "OVERPROOF_LEADER", "OVERPROOF_GPUS"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOrder:
    """What one host is to do in a trial."""

    trial: str
    device: str  # "auto", "cuda" or "cpu"
    nodes: int
    index: int  # of this host among them; the first one is where all meet
    address: str  # of the first host, as the others reach it
    collectives: tuple[str, ...] = ()
    sizes_bytes: tuple[int, ...] = ()  # empty: those of the device
    length_s: float = 0.5  # for each size of each collective
    path: str = "full"
    cpu_ranks: int = 1
    seed: int = 1
    meet_within_s: float = 60.0  # from the moment at which every host is told to meet
    limit_s: float = 300.0  # libraries below us give up some time after this
    silence_s: float = 15.0  # the controller is gone when it says nothing for so long
    faults: tuple[str, ...] = ()  # seeded into this host alone
    training: JsonObject | None = None  # None: collectives


def trial_order_to_json(order: TrialOrder) -> JsonObject:
    """Return the order as plain JSON values."""
    return asdict(order)


def trial_order_from_json(data: JsonObject) -> TrialOrder:
    """Read an order back.

    Raises:
        ValueError: this is no order.
    """
    try:
        lists = {name: tuple(data[name]) for name in ("collectives", "sizes_bytes", "faults")}
        return TrialOrder(**(data | lists))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not the order of a trial: {error}") from error

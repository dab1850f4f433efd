"""Seeded faults: what a user of ``--seed-fault`` and the positive controls put into our own buffers."""

from __future__ import annotations

from collections.abc import Sequence

from burnin.node.order import SeededFault
from probes.errors import ConfigError

# What can be seeded where. "every_product" and "input_flip" are there from the first product on,
# "late_flip" comes once, at a random time.
KINDS = {
    "memory": ("bit_flip", "stuck_bit", "wrong_address", "unloaded", "stall", "crash"),
    "matmul": ("bit_flip", "late_flip", "nan", "every_product", "input_flip", "stall", "slow", "crash"),
    "bandwidth": ("bit_flip", "slow", "stall", "crash"),
    "links": ("bit_flip", "stall", "crash"),
    "allreduce": ("bit_flip", "nan", "absent", "stall", "crash"),
    "power": ("digest_flip", "nan", "every_product", "input_flip", "slow", "stall", "crash"),
}
# A slow device does each product this often and counts it once. A neighbour on the same physical core can
# halve a healthy one's rate, so five stays apart from any noise that a healthy device shows.
SLOW_FACTOR = 5


def parse_seeded_fault(text: str) -> SeededFault:
    """Read ``stage:kind@device``, or ``stage:kind@device#cycle`` for one cycle only.

    Raises:
        ConfigError: there is no such stage or kind.
    """
    where, at, device = text.partition("@")
    stage, _, kind = where.partition(":")
    device, hash_, cycle = device.partition("#")
    is_cycle = cycle.isdecimal() and int(cycle) > 0 if hash_ else True
    if not at or not device or not is_cycle or kind not in KINDS.get(stage, ()):
        known = ", ".join(f"{stage}:{kind}" for stage, kinds in KINDS.items() for kind in kinds)
        raise ConfigError(
            f"--seed-fault: got {text!r}; wanted STAGE:KIND@DEVICE or STAGE:KIND@DEVICE#CYCLE, "
            f"with one of {known}"
        )
    return SeededFault(stage=stage, kind=kind, device=device, cycle=int(cycle) if cycle else None)


def kinds_for(faults: Sequence[SeededFault], *, stage: str, device: str, cycle: int = 1) -> frozenset[str]:
    """Return the kinds of fault that one device is to show in one stage of one cycle."""
    return frozenset(
        fault.kind
        for fault in faults
        if (fault.stage, fault.device) == (stage, device) and fault.cycle in (None, cycle)
    )

"""Seeded faults: what a user of ``--seed-fault`` and the positive controls put into our own buffers."""

from __future__ import annotations

from collections.abc import Sequence

from burnin.order import SeededFault
from probes.errors import ConfigError

# What can be seeded where; "digest_flip" hits a product of the throughput phase, "bit_flip" an exact one.
KINDS = {
    "matmul": ("bit_flip", "nan", "digest_flip", "stall", "slow", "crash"),
    "allreduce": ("bit_flip", "nan", "stall", "crash"),
}
# A slow device does each product this often and counts it once. A neighbour on the same physical core can
# halve a healthy one's rate, so five stays apart from any noise that a healthy device shows.
SLOW_FACTOR = 5


def parse_seeded_fault(text: str) -> SeededFault:
    """Read ``stage:kind@device``.

    Raises:
        ConfigError: there is no such stage or kind.
    """
    where, at, device = text.partition("@")
    stage, _, kind = where.partition(":")
    if not at or not device or kind not in KINDS.get(stage, ()):
        known = ", ".join(f"{stage}:{kind}" for stage, kinds in KINDS.items() for kind in kinds)
        raise ConfigError(f"--seed-fault: got {text!r}; wanted STAGE:KIND@DEVICE with one of {known}")
    return SeededFault(stage=stage, kind=kind, device=device)


def kinds_for(faults: Sequence[SeededFault], *, stage: str, device: str) -> frozenset[str]:
    """Return the kinds of fault that one device is to show in one stage."""
    return frozenset(fault.kind for fault in faults if (fault.stage, fault.device) == (stage, device))

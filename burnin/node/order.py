"""The order: everything an agent is told, as one line of JSON. Standard library only; it travels to nodes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from probes.event import to_json_line
from probes.json_types import JsonObject

STAGES = ("preflight", "memory", "matmul", "bandwidth", "links", "allreduce", "power", "aftermath")
LOADED_STAGES = STAGES[1:-1]  # those in which the workers do something
OPTIONAL_STAGES = ("vendor",)  # run only if asked for, when the workers have gone
STAGE_ORDER = (*STAGES[:-1], *OPTIONAL_STAGES, STAGES[-1])
PHASE_OFFSET = "phase_offset_s"  # option of the power stage: by how much this node's steps are shifted
DEVICE_KINDS = ("auto", "cuda", "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeededFault:
    """A fault that we put on purpose into one device's own buffers, pace or process."""

    stage: str
    kind: str
    device: str
    cycle: int | None = None  # None: in every cycle

    def __str__(self) -> str:
        return f"{self.stage}:{self.kind}@{self.device}" + (f"#{self.cycle}" if self.cycle else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOrder:
    """One stage that is to run."""

    name: str
    length_s: float  # of load, in each cycle; 0 where a stage takes what it takes
    options: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one agent is to do."""

    device: str  # "auto", "cuda" or "cpu"
    stages: tuple[StageOrder, ...]
    left_out: tuple[str, ...]
    seed: int
    stall_s: float  # a worker that makes no step for this long has stalled
    gpus_expected: int | None = None  # None: as many as there are
    cpu_devices: int = 2  # into how many devices the cores are split where they stand in for GPUs
    # Without a word from the controller for this long the agent leaves; None: the end of its input says so.
    controller_silence_s: float | None = None
    raw_bytes_max: int = 8 << 20  # of readings as they were taken, which the node keeps until the end
    seeded_faults: tuple[SeededFault, ...] = ()
    cycles: int = 1  # how often the loaded stages are run, one after the other

    @property
    def preflight_options(self) -> JsonObject:
        """What load the preflight puts on the host itself; empty: none, as in orders of before 2026-11-21."""
        stage = self.stage("preflight")
        return stage.options if stage is not None and "host_load_s" in stage.options else {}

    def stage(self, name: str) -> StageOrder | None:
        """Return a stage of this order; None: it was left out."""
        return next((stage for stage in self.stages if stage.name == name), None)


def order_to_json(order: Order) -> JsonObject:
    """Return the order as plain JSON values: what goes to the agent and into the record."""
    return asdict(order)


def order_from_json(data: Mapping[str, object]) -> Order:
    """Read an order back.

    Raises:
        ValueError: this is no order.
    """
    try:
        fields: JsonObject = dict(data)
        fields["stages"] = tuple(StageOrder(**stage) for stage in fields["stages"])
        fields["left_out"] = tuple(fields["left_out"])
        fields["seeded_faults"] = tuple(SeededFault(**fault) for fault in fields.get("seeded_faults", ()))
        return Order(**fields)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an order: {error}") from error


def order_to_line(order: Order) -> str:
    """Return the order as the one line that an agent reads first."""
    return to_json_line(order_to_json(order))


def order_from_line(line: str) -> Order:
    """Read the line back.

    Raises:
        ValueError: this is no order.
    """
    data = json.loads(line)
    if not isinstance(data, dict):
        raise ValueError(f"not an order: {line!r:.200}")
    return order_from_json(data)

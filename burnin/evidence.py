"""What a recorded burn-in holds, laid out for the rules: devices, stages, and the readings of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from burnin.node.number_format import PRIMARY
from burnin.node.order import Order, order_from_json
from burnin.rules.sighting import Sighting
from probes.event import Event
from probes.json_types import JsonObject
from reports.run import Run
from reports.table import count_rows, read_series

# Rows of a series that are kept in memory for all rules; more, as of days, are read as they are needed.
ROWS_KEPT_MAX = 100_000


@dataclass(frozen=True)
class Evidence:
    """One record, read once: all of it, or what belongs to one cycle of repeated stages."""

    run: Run
    cycle: int | None = None  # None: the whole run
    whole_series: dict[str, list[JsonObject]] = field(default_factory=dict)  # read once for all cycles
    row_counts: dict[str, int] = field(default_factory=dict)  # of each series, likewise
    rows_kept_max: int = ROWS_KEPT_MAX

    def in_cycles(self) -> list[Evidence]:
        """Return what each cycle has shown: what was said in it, and what was said in none of them."""
        if self.order.cycles == 1:
            return [self]
        return [replace(self, cycle=number) for number in range(1, self.order.cycles + 1)]

    @cached_property
    def _events(self) -> dict[str, list[Event]]:
        """All events by kind, in order of time."""
        found: dict[str, list[Event]] = {}
        for event in self.run.events:
            if self.cycle is None or event.data.get("cycle", self.cycle) == self.cycle:
                found.setdefault(event.kind, []).append(event)
        return found

    @cached_property
    def order(self) -> Order:
        """What was to be done."""
        return order_from_json(self.run.header.spec["order"])

    @cached_property
    def choice(self) -> JsonObject | None:
        """The devices that were chosen; None: it never came to that."""
        return next((event.data for event in self.run.events_of("inventory")), None)

    @property
    def devices(self) -> list[str]:
        """The names of the devices under test."""
        return [str(device["name"]) for device in (self.choice or {}).get("devices", [])]

    @property
    def is_cpu(self) -> bool:
        """Whether this machine's cores stood in for GPUs."""
        return (self.choice or {}).get("device_kind") == "cpu"

    @cached_property
    def inventory(self) -> JsonObject:
        """What NVML said there is; empty where it said nothing."""
        return next((event.data for event in self.run.events_of("nvml.inventory")), {})

    @property
    def gpus(self) -> list[JsonObject]:
        """The GPUs that NVML lists, whether or not they are under test."""
        return list(self.inventory.get("gpus") or [])

    def told(self, kind: str, **wanted: object) -> list[JsonObject]:
        """Return the data of the events of a kind that have these values."""
        found = (event.data for event in self._events.get(kind, ()))
        return [data for data in found if all(data.get(key) == value for key, value in wanted.items())]

    def while_ours(self, kind: str, **wanted: object) -> list[Event]:
        """Return events like ``told``, but none of the time in which the vendor's tools loaded the GPUs."""
        spans = [
            event.t_ns
            for event in self.run.events_of("stage.started", "stage.finished")
            if event.data.get("stage") == "vendor"
        ]
        begin, end = (spans[0], spans[-1]) if len(spans) > 1 else (spans[0], math.inf) if spans else (0, 0)
        return [
            event
            for event in self.run.events_of(kind)
            if not begin <= event.t_ns <= end
            and all(event.data.get(key) == value for key, value in wanted.items())
        ]

    def sightings(self, gpu: str) -> list[Sighting]:
        """Return every XID that anybody reported of a GPU."""
        found = (event for event in self.run.events_of("gpu.xid", "kernel.xid") if event.data["gpu"] == gpu)
        return [
            Sighting(
                t_ns=event.t_ns,
                xid=int(event.data["xid"]),
                source="NVML" if event.kind == "gpu.xid" else "kernel log",
            )
            for event in found
        ]

    def series(self, name: str, **wanted: object) -> list[JsonObject]:
        """Return the rows of a series that have these values, in order."""
        rows = self._rows(name, {key: value for key, value in wanted.items() if isinstance(value, str)})
        return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]

    def _rows(self, name: str, wanted: dict[str, str]) -> list[JsonObject]:
        """Return the rows of a series that belong here: all, or of a long one at least those wanted."""
        if name not in self.row_counts:
            self.row_counts[name] = count_rows(self.run, name)
        if self.row_counts[name] > self.rows_kept_max:
            span_ns = None if self.cycle is None else self._span_ns
            read = read_series(self.run, name, wanted=wanted, span_ns=span_ns)
            return [row for row in read if self._has(row)]
        if name not in self._series:
            if name not in self.whole_series:
                self.whole_series[name] = read_series(self.run, name)
            self._series[name] = [row for row in self.whole_series[name] if self._has(row)]
        return self._series[name]

    def _has(self, row: JsonObject) -> bool:
        """Say whether a row belongs here; sensors know of no cycle, but of the time."""
        if self.cycle is None:
            return True
        begin_ns, end_ns = self._span_ns
        cycle = row.get("cycle")
        return begin_ns <= int(row["t_ns"]) <= end_ns if cycle is None else bool(cycle == self.cycle)

    @cached_property
    def _span_ns(self) -> tuple[int, int]:
        """From the first to the last that was said in this cycle."""
        at = [event.t_ns for events in self._events.values() for event in events if "cycle" in event.data]
        return min(at, default=0), max(at, default=0)

    def matmul_rows(self, device: str, *, phase: str = "together") -> list[JsonObject]:
        """Return a device's windows of throughput in the format that is compared between devices.

        Before 2026-11-21 there was no other format and no other phase, and rows named neither.
        """
        primary = PRIMARY["cpu" if self.is_cpu else "cuda"]
        return [
            row
            for row in self.series("matmul", device=device)
            if (row.get("phase") or "together") == phase and (row.get("format") or primary) == primary
        ]

    @cached_property
    def _series(self) -> dict[str, list[JsonObject]]:
        return {}

    def stage_names(self) -> list[str]:
        """Return the stages that were to run."""
        return [stage.name for stage in self.order.stages]

    def has_done(self, device: str, stage: str) -> bool:
        """Say whether a device got to the end of a stage."""
        return bool(self.told("worker.done", device=device, stage=stage))

    def impossible(self, stage: str) -> str | None:
        """Return why a stage could not be run at all; None: it could."""
        found = self.told("stage.impossible", stage=stage)
        return str(found[0]["reason"]) if found else None


def subject_of(device: str) -> str:
    """Return the subject of a finding about a device."""
    return f"gpu:{device}" if device.startswith(("GPU-", "MIG-")) else f"device:{device}"


def numbers(rows: Sequence[JsonObject], column: str) -> list[float]:
    """Return the values of a column that are there."""
    return [float(row[column]) for row in rows if isinstance(row.get(column), (int, float))]

"""One GPU's sensors: which of them answer, a row every second, its counters before and after.

A few readings are taken ten times a second and put together to that row; the counters are read before and
after the load, and the list of processes rarely, because it holds the driver's lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from burnin.node.raw import RawStore
from burnin.node.second import put_together
from burnin.node.speaker import Speaker
from burnin.node.watched_call import Watch, watched
from probes.json_types import JsonObject
from probes.nvml import (
    COUNTED,
    FAST,
    IDENTITY,
    SAMPLED,
    Handle,
    SensorError,
    Unsupported,
    is_corrupt,
    read_processes,
)
from probes.nvml_fields import COUNTED_FIELDS, read_fields
from probes.nvml_structures import STRUCTURES, read_links

FAST_PER_ROW = 10
PROCESSES_EVERY_S = 10.0  # listing them holds the driver's lock


@dataclass(slots=True, eq=False, kw_only=True)
class GpuWatch:
    """One GPU and what has been told of it."""

    handle: Handle
    uuid: str
    speaker: Speaker
    watch: Watch
    raw: RawStore
    lacking: dict[str, str] = field(default_factory=dict)  # sensors that this driver or board does not have
    failing: set[str] = field(default_factory=set)  # sensors whose silence has been told
    is_lost: bool = False
    wanted: list[str] = field(default_factory=list)  # snapshots asked for: "before", "after"
    processes: list[int] = field(default_factory=list)
    _fast: list[JsonObject] = field(default_factory=list)  # the readings of this second
    _processes_at: float = 0.0

    def read_all(self, readings: Mapping[str, Callable[[Handle], Any]]) -> JsonObject:
        """Read what can be read; what fails is told once and left out."""
        found: JsonObject = {}
        for name, read in readings.items():
            if name in self.lacking:
                continue
            try:
                found[name] = watched(self.watch, name, lambda read=read: read(self.handle))  # type: ignore[misc]
            except Unsupported as error:
                self.lacking[name] = str(error)
            except SensorError as error:
                self._tell_failure(name, error)
        return found

    def _tell_failure(self, name: str, error: SensorError) -> None:
        if error.is_lost and not self.is_lost:
            self.is_lost = True
            self.speaker.say("gpu.lost", gpu=self.uuid, sensor=name, error=str(error))
        if name not in self.failing:
            self.failing.add(name)
            self.speaker.say(
                "sensor.failed",
                gpu=self.uuid,
                sensor=name,
                error=str(error),
                is_corrupt=is_corrupt(error.code),
            )

    def tick(self) -> None:
        """Take what is due: a snapshot whenever one is wanted, a fast reading, a row, the processes."""
        while self.wanted:
            self._snapshot(self.wanted.pop(0))
        reading = self.read_all(FAST)
        self.raw.add(self.uuid, reading)
        self._fast.append(reading)
        if len(self._fast) == FAST_PER_ROW:
            self.speaker.sample("gpu", gpu=self.uuid, **put_together(self._fast), **self.read_all(SAMPLED))
            self._fast.clear()
        if time.monotonic() - self._processes_at >= PROCESSES_EVERY_S:
            self._processes_at = time.monotonic()
            self._tell_processes()

    def _snapshot(self, when: str) -> None:
        values = self.read_all(COUNTED)
        for structure in self.read_all(STRUCTURES).values():
            values |= structure
        values |= self._read_fields()
        links = self.read_all({"nvlinks": read_links}).get("nvlinks")
        self.speaker.say(
            "gpu.snapshot",
            gpu=self.uuid,
            when=when,
            values=values,
            links=links,  # None: the links that are there could not be read
            lacking=dict(self.lacking),
        )

    def _read_fields(self) -> JsonObject:
        wanted = {name: number for name, number in COUNTED_FIELDS.items() if name not in self.lacking}
        readings = self.read_all({"fields": lambda gpu: read_fields(gpu, wanted)}).get("fields")
        if readings is None:
            return {}
        self.lacking |= readings.lacking
        for name, error in readings.failed.items():
            self._tell_failure(name, error)
        return dict(readings.found)

    def _tell_processes(self) -> None:
        pids = self.read_all({"processes": read_processes}).get("processes")
        if pids is not None and pids != self.processes:
            self.processes = pids
            self.speaker.say("gpu.processes", gpu=self.uuid, pids=pids)


def read_identity(handle: Handle, watch: Watch) -> tuple[JsonObject, dict[str, str]]:
    """Return what a GPU is, and why the rest of it could not be read.

    Raises:
        SensorError: not even its UUID can be read.
    """
    found: JsonObject = {}
    lacking: dict[str, str] = {}
    for name, read in IDENTITY.items():
        try:
            found[name] = watched(watch, name, lambda read=read: read(handle))  # type: ignore[misc]
        except Unsupported as error:
            lacking[name] = str(error)
        except SensorError as error:
            if name == "uuid":
                raise
            lacking[name] = str(error)
            if is_corrupt(error.code):
                found.setdefault("corrupt", []).append(name)
    return found, lacking

"""The record of a burn-in of one healthy node, written as the agent writes it, for a test to spoil.

What the sensors say is what the real sampler read from the twin of NVML; what the workers say are figures of
8 × H100 SXM: a whole run, without the half hour that it takes and the GPUs that it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from burnin.node.order import Order, StageOrder, order_to_json
from probes.event import SAMPLE, Event
from probes.json_types import JsonObject
from reports.record import create_run
from reports.run import FINISHED, Run, load_run
from tests.burnin.captured import capture
from tests.twins.nvml import uuid

HOST = "node-1"
T0_NS = 1_760_000_000 * 10**9
S = 10**9
LOAD_S = 20


@dataclass
class Node:
    """What the record will hold; change it before it is written."""

    gpus: int = 8
    model: str = "H100"  # of the twin
    age: int = 580  # of the driver
    faults: tuple[str, ...] = ()  # lines of the twin's scenario
    spec: JsonObject = field(default_factory=dict)  # on top of the run's spec
    identity: dict[int, JsonObject] = field(default_factory=dict)
    tflops: Callable[[int, int], float | None] = lambda gpu, second: 700.0 + gpu + (second % 3)
    gpu_row: Callable[[int, int], JsonObject] = lambda gpu, second: {}
    events: list[tuple[float, str, JsonObject]] = field(default_factory=list)  # second, kind, data
    tested: tuple[int, ...] | None = None  # numbers of the GPUs under test; None: all
    digest: Callable[[int], str] = lambda gpu: "aa"
    without: Callable[[str, JsonObject], bool] = lambda kind, data: False
    with_power: bool = False  # a power stage, whose operands were checked
    stages: dict[str, float] = field(default_factory=dict)  # further ones; their events are the test's own
    options: dict[str, JsonObject] = field(default_factory=dict)  # of those stages
    series: dict[str, list[tuple[float, JsonObject]]] = field(default_factory=dict)  # further rows
    matmul: JsonObject = field(default_factory=lambda: {"formats": ["fp32", "bf16"]})
    busbw_gbps: float = 475.0
    size_bytes: int = 1 << 34

    def write(self, folder: Path) -> Run:
        """Write the record and open it."""
        lengths = {"preflight": 0.0, "matmul": float(LOAD_S), "allreduce": 3.0} | self.stages
        lengths |= {"power": 3.0} if self.with_power else {}
        lengths["aftermath"] = 0.0
        order = Order(
            device="cuda",
            stages=tuple(
                StageOrder(name=name, length_s=length, options=self._options(name))
                for name, length in lengths.items()
            ),
            left_out=(),
            seed=1,
            stall_s=10.0,
        )
        spec: JsonObject = {"profile": "gate", "order": order_to_json(order)} | self.spec
        with create_run(folder, kind="burnin", spec=spec, seed=1) as writer:
            for second, kind, data in sorted([*self._events(), *self.events], key=lambda e: e[0]):
                if not self.without(kind, data):
                    writer.append_event(_event(second, kind, data))
            for name, rows in self.series.items():
                for at_s, data in rows:
                    writer.sample(name, {"t_ns": _at(at_s), "host": HOST} | data)
            for index in self._tested() if self.with_power else ():
                for second in range(20, 24):
                    hold = {"t_ns": _at(second), "host": HOST, "device": uuid(index), "phase": "hold"}
                    writer.sample("power", hold | {"tflops": 700.0, "window_s": 1.0})
            for index in range(self.gpus):
                for second in range(LOAD_S + 10):
                    writer.sample("gpu", self._gpu_row(index, second))
                for second in range(5, 5 + LOAD_S) if index in self._tested() else ():
                    rate = self.tflops(index, second)
                    if rate is not None:
                        at = {
                            "t_ns": _at(second),
                            "host": HOST,
                            "device": uuid(index),
                            "phase": "together",
                            "format": "bf16",
                        }
                        writer.sample("matmul", at | {"tflops": rate, "products": 600})
            writer.append_event(_event(LOAD_S + 10, FINISHED, {}))
        return load_run(writer.path)

    def _options(self, stage: str) -> JsonObject:
        return self.matmul if stage == "matmul" else self.options.get(stage, {})

    def _gpu_row(self, index: int, second: int) -> JsonObject:
        said = [e for e in self._captured() if e.kind == SAMPLE and e.source == "gpu"]
        row = next(e.data for e in reversed(said) if e.data["gpu"] == uuid(index))
        return {"t_ns": _at(second), "host": HOST} | row | self.gpu_row(index, second)

    def _tested(self) -> tuple[int, ...]:
        return self.tested if self.tested is not None else tuple(range(self.gpus))

    def _captured(self) -> list[Event]:
        return capture(self.model, self.age, self.gpus, self.faults)

    def _events(self) -> list[tuple[float, str, JsonObject]]:
        stall = {"device": "agent", "detector": "stalled worker", "is_found": True, "fidelity": "parser only"}
        found: list[tuple[float, str, JsonObject]] = [
            (0, "agent.started", {"pid": 1, "python": "3.11.9"}),
            (1, "inventory", self._choice()),
            (1, "room", {"cores": 128, "memory_available_bytes": 10**12, "load_1min": 0.5}),
            *((4, "control", {"stage": stage} | stall) for stage in ("matmul", "allreduce")),
            (4, "stage.started", {"stage": "matmul", "length_s": LOAD_S}),
            (LOAD_S + 5.2, "stage.finished", {"stage": "matmul"}),
            (LOAD_S + 5.3, "stage.started", {"stage": "allreduce", "length_s": 3.0}),
            (LOAD_S + 7.2, "stage.finished", {"stage": "allreduce"}),
            (LOAD_S + 9.9, "agent.finished", {}),
        ]
        found += [event for index in self._tested() for event in self._gpu_events(index)]
        return found + [self._sensor_event(event) for event in self._captured() if event.kind != SAMPLE]

    def _sensor_event(self, event: Event) -> tuple[float, str, JsonObject]:
        """Move what the sampler said to where it belongs in this run."""
        data = event.data
        if event.kind == "nvml.inventory":
            gpus = [gpu | self.identity.get(int(gpu["index"]), {}) for gpu in data["gpus"]]
            data = data | {"gpus": gpus}
        if event.kind == "host.snapshot":  # this machine's own troubles are not the node's
            data = data | {"values": dict.fromkeys(data["values"], 0)}
        return (LOAD_S + 8 if data.get("when") == "after" else 0.2), event.kind, data

    @property
    def name(self) -> str:
        """What NVML calls the model."""
        inventory = next(e.data for e in self._captured() if e.kind == "nvml.inventory")
        return str(inventory["gpus"][0]["name"])

    def _choice(self) -> JsonObject:
        devices = [{"name": uuid(i), "model": self.name} for i in self._tested()]
        return {"device_kind": "cuda", "devices": devices, "problem": ""}

    def _gpu_events(self, index: int) -> list[tuple[float, str, JsonObject]]:
        device = uuid(index)
        at: JsonObject = {"stage": "matmul", "device": device}
        ready = {"model": self.name, "torch": "2.6.0", "cuda": "12.4", "threads": 0}
        found: list[tuple[float, str, JsonObject]] = [
            (3, "worker.ready", {"device": device, "pid": 100 + index} | ready),
            (4, "formats", at | {"tested": ["fp32", "bf16"], "left_out": {}}),
            (5, "reference.result", at | {"format": "bf16", "elements": 1 << 26, "outside": 0}),
            (LOAD_S + 5, "throughput.result", at | _throughput(self.digest(index))),
            (LOAD_S + 5, "loaded", at | {"loaded_s": float(LOAD_S), "checked_elements": 10**9}),
            (LOAD_S + 5.1, "worker.done", at),
            (LOAD_S + 7, "allreduce.result", self._allreduce(device)),
            (LOAD_S + 7.1, "worker.done", {"stage": "allreduce", "device": device}),
        ]
        for detector in ("bit flip in a product", "NaN in a product", "bit flip in a digested product"):
            seen = {"detector": detector, "is_found": True, "fidelity": "end to end"}
            found.append((4, "control", at | seen))
        seen = {"detector": "bit flip in a reduced buffer", "is_found": True, "fidelity": "end to end"}
        found.append((LOAD_S + 6, "control", {"stage": "allreduce", "device": device} | seen))
        if self.with_power:
            found += _power_events(device)
        for name in ("fp32", "bf16"):
            found.append((4.9, "exact.result", at | _exact(name)))
        return found

    def _allreduce(self, device: str) -> JsonObject:
        return {
            "stage": "allreduce",
            "device": device,
            "backend": "nccl",
            "ranks": len(self._tested()),
            "size_bytes": self.size_bytes,
            "rounds": 50,
            "elements": 50 * self.size_bytes // 4,
            "busbw_gbps": self.busbw_gbps,
            "miscompared_rounds": 0,
            "miscompared_elements": 0,
        }


def _power_events(device: str) -> list[tuple[float, str, JsonObject]]:
    at: JsonObject = {"stage": "power", "device": device}
    operands: JsonObject = at | {"differing": [], "elements": 1 << 27}
    found: list[tuple[float, str, JsonObject]] = [(LOAD_S + 7.5, "worker.done", at)]
    for detector in ("bit flip in an operand", "bit flip in a digested product"):
        seen = {"detector": detector, "is_found": True, "fidelity": "end to end"}
        found.append((LOAD_S + 7.3, "control", at | seen))
    stall = {"stage": "power", "device": "agent", "detector": "stalled worker"}
    found.append((LOAD_S + 7.3, "control", stall | {"is_found": True, "fidelity": "parser only"}))
    before = (LOAD_S + 7.3, "operands.result", operands | {"when": "before"})
    return [*found, before, (LOAD_S + 7.4, "operands.result", operands | {"when": "after"})]


def _at(second: float) -> int:
    return T0_NS + round(second * S)


def _event(second: float, kind: str, data: JsonObject) -> Event:
    return Event(t_ns=_at(second), host=HOST, source="test", kind=kind, data=data)


def _exact(name: str) -> dict[str, Any]:
    return {
        "format": name,
        "edge": 2048,
        "products": 500,
        "operand_sets": 10,
        "elements": 500 * 2048 * 2048,
        "miscompared_products": 0,
        "miscompared_elements": 0,
    }


def _throughput(digest: str) -> dict[str, Any]:
    return {
        "format": "bf16",
        "edge": 8192,
        "products": 12000,
        "digest_every": 10,
        "digests": 1200,
        "digest": digest,
        "dissents": 0,
    }

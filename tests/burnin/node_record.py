"""The record of a burn-in of one healthy node, written as the agent writes it, for a test to spoil.

The figures are those of 8 × H100 SXM: what a real run leaves behind, without the hour that it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from burnin.order import Order, StageOrder, order_to_json
from probes.event import Event
from probes.json_types import JsonObject
from reports.record import create_run
from reports.run import FINISHED, Run, load_run

HOST = "node-1"
T0_NS = 1_760_000_000 * 10**9
S = 10**9
LOAD_S = 20


def uuid(index: int) -> str:
    return f"GPU-{index:08d}-0000-0000-0000-000000000000"


@dataclass
class Node:
    """What the record will hold; change it before it is written."""

    gpus: int = 8
    name: str = "NVIDIA H100 80GB HBM3"
    spec: JsonObject = field(default_factory=dict)  # on top of the run's spec
    identity: dict[int, JsonObject] = field(default_factory=dict)
    tflops: Callable[[int, int], float | None] = lambda gpu, second: 700.0 + gpu + (second % 3)
    gpu_row: Callable[[int, int], JsonObject] = lambda gpu, second: {}
    events: list[tuple[float, str, JsonObject]] = field(default_factory=list)  # second, kind, data
    without: Callable[[str, JsonObject], bool] = lambda kind, data: False
    matmul: JsonObject = field(default_factory=lambda: {"formats": ["fp32", "bf16"]})
    busbw_gbps: float = 475.0
    size_bytes: int = 1 << 34

    def write(self, folder: Path) -> Run:
        """Write the record and open it."""
        lengths = {"preflight": 0.0, "matmul": float(LOAD_S), "allreduce": 3.0, "aftermath": 0.0}
        order = Order(
            device="cuda",
            stages=tuple(
                StageOrder(name=name, length_s=length, options=self.matmul if name == "matmul" else {})
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
            for index in range(self.gpus):
                for second in range(LOAD_S + 10):
                    writer.sample("gpu", self._gpu_row(index, second))
                for second in range(5, 5 + LOAD_S):
                    rate = self.tflops(index, second)
                    if rate is not None:
                        at = {"t_ns": _at(second), "host": HOST, "device": uuid(index), "phase": "together"}
                        writer.sample("matmul", at | {"tflops": rate, "products": 600})
            writer.append_event(_event(LOAD_S + 10, FINISHED, {}))
        return load_run(writer.path)

    def _gpu_row(self, index: int, second: int) -> JsonObject:
        row: JsonObject = {
            "t_ns": _at(second),
            "host": HOST,
            "gpu": uuid(index),
            "temperature_c": 62,
            "memory_temperature_c": 74,
            "power_w": 692.0,
            "sm_clock_mhz": 1700 + index,
            "memory_clock_mhz": 2619,
            "event_reasons": 0x4,
            "util_pct": 100,
        }
        return row | self.gpu_row(index, second)

    def _events(self) -> list[tuple[float, str, JsonObject]]:
        found: list[tuple[float, str, JsonObject]] = [
            (0, "agent.started", {"pid": 1, "python": "3.11.9"}),
            (0, "host.snapshot", {"when": "before", "values": _host_counters()}),
            (0.1, "nvml.inventory", {"nvml": "answers", "driver": "580.82.07", "gpus": self._inventory()}),
            (0.2, "xid.watching", {}),
            (1, "inventory", self._choice()),
            (1, "room", {"cores": 128, "memory_available_bytes": 10**12, "load_1min": 0.5}),
            (LOAD_S + 8, "host.snapshot", {"when": "after", "values": _host_counters()}),
            (LOAD_S + 9.9, "agent.finished", {}),
        ]
        for stage in ("matmul", "allreduce"):
            stall = {"stage": stage, "device": "agent", "detector": "stalled worker"}
            found.append((4, "control", stall | {"is_found": True, "fidelity": "parser only"}))
        return found + [event for index in range(self.gpus) for event in self._gpu_events(index)]

    def _choice(self) -> JsonObject:
        devices = [{"name": uuid(i), "model": self.name} for i in range(self.gpus)]
        return {"device_kind": "cuda", "devices": devices, "problem": ""}

    def _inventory(self) -> list[JsonObject]:
        return [
            {
                "uuid": uuid(index),
                "name": self.name,
                "serial": f"16542230{index:05d}",
                "pci_bus_id": f"00000000:{0x10 + index:02X}:00.0",
                "vbios": "96.00.A5.00.01",
                "slowdown_c": 90,
                "power_limit_w": 700.0,
                "memory_bytes": 81559 << 20,
                "processes": [],
                "index": index,
                "lacking": {},
            }
            | self.identity.get(index, {})
            for index in range(self.gpus)
        ]

    def _gpu_events(self, index: int) -> list[tuple[float, str, JsonObject]]:
        device = uuid(index)
        at: JsonObject = {"stage": "matmul", "device": device}
        ready = {"model": self.name, "torch": "2.6.0", "cuda": "12.4", "threads": 0}
        counters = {"ecc_uncorrected": 0, "ecc_corrected": 0, "throttled_thermal_ns": 0}
        found: list[tuple[float, str, JsonObject]] = [
            (0.3, "gpu.snapshot", {"gpu": device, "when": "before", "values": counters, "lacking": {}}),
            (LOAD_S + 8, "gpu.snapshot", {"gpu": device, "when": "after", "values": counters, "lacking": {}}),
            (3, "worker.ready", {"device": device, "pid": 100 + index} | ready),
            (4, "formats", at | {"tested": ["fp32", "bf16"], "left_out": {}}),
            (5, "reference.result", at | {"format": "bf16", "elements": 1 << 26, "outside": 0}),
            (LOAD_S + 5, "throughput.result", at | _throughput()),
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
        for name in ("fp32", "bf16"):
            found.append((4.9, "exact.result", at | _exact(name)))
        return found

    def _allreduce(self, device: str) -> JsonObject:
        return {
            "stage": "allreduce",
            "device": device,
            "backend": "nccl",
            "ranks": self.gpus,
            "size_bytes": self.size_bytes,
            "rounds": 50,
            "elements": 50 * self.size_bytes // 4,
            "busbw_gbps": self.busbw_gbps,
            "miscompared_rounds": 0,
            "miscompared_elements": 0,
        }


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


def _throughput() -> dict[str, Any]:
    return {
        "format": "bf16",
        "edge": 8192,
        "products": 12000,
        "digest_every": 10,
        "digests": 1200,
        "digest": "aa",
        "dissents": 0,
    }


def _host_counters() -> dict[str, int | None]:
    return {
        "edac_corrected": 0,
        "edac_uncorrected": 0,
        "machine_checks": 0,
        "core_throttled_ms": 0,
        "oom_kills": 0,
    }

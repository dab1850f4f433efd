"""A burn-in of a node with GPUs that nobody has: made up, written through the record like any other."""

from __future__ import annotations

import math
from pathlib import Path

from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.record import create_run
from reports.run import FINISHED, Run, load_run
from reports.table import seal
from tests.reports.recorded import SECOND, finding

GPUS = tuple(f"GPU-{n}aaa-made-up" for n in range(4))


def gpu_node(out: Path, *, seconds: int = 90) -> Run:
    """Record a node of four GPUs, one of them held back by heat and behind a slow link."""
    with create_run(out, kind="burnin", spec={"profile": "made up"}, seed=4) as writer:
        t0 = writer.header.started_ns
        gpus = [{"uuid": uuid, "index": n, "model": "Made-up GPU"} for n, uuid in enumerate(GPUS)]
        writer.event("sampler", "nvml.inventory", nvml="present", gpus=gpus)
        devices = [{"name": f"cuda:{n}", **gpu} for n, gpu in enumerate(gpus)]
        writer.event("agent", "inventory", device_kind="cuda", devices=devices)
        for second in range(seconds):
            for n, uuid in enumerate(GPUS):
                writer.sample("gpu", {"t_ns": t0 + second * SECOND, "gpu": uuid, **_sensed(n, second)})
        for n in range(4):
            for second in range(20, 40, 4):
                row: JsonObject = {"t_ns": t0 + second * SECOND, "device": f"cuda:{n}", "phase": "alone"}
                for dtype, usual in (("bf16", 700.0), ("fp8", 1400.0)):
                    writer.sample("matmul", row | {"format": dtype, "tflops": usual - 40 * (n == 2)})
            for other in range(n + 1, 4):
                both: JsonObject = {"t_ns": t0 + 50 * SECOND, "phase": "alone"}
                for receiver in (n, other):
                    gbps = 200.0 if 2 in (n, other) else 390.0
                    ends = {"link": f"cuda:{n}-cuda:{other}", "receiver": f"cuda:{receiver}"}
                    writer.sample("links", both | ends | {"gbps": gbps})
                ends = {"link": f"cuda:{n}-cuda:{other} both ways", "receiver": f"cuda:{n}"}
                writer.sample("links", both | ends | {"gbps": 700.0})
        writer.event("controller", FINISHED)
        seal(writer.path)
        writer.write_findings(
            [
                finding("throttle", f"gpu:{GPUS[2]}", Outcome.FAIL, "held back by hardware heat for 31 s",
                        next_step="check the cooling of this GPU, then run it again"),
                finding("exact", "device:cuda:1", Outcome.PASS, "every element right"),
                finding("ecc", f"gpu:{GPUS[0]}", None, "ECC is off"),
                finding("heat", f"gpu:{GPUS[3]}", Outcome.INCONCLUSIVE, "the sensor was silent"),
            ]
        )  # fmt: skip
    return load_run(writer.path)


def _sensed(number: int, second: int) -> JsonObject:
    is_hot = number == 2 and second > 40
    return {
        "temperature_c": 50 + number + 20 * (1 - math.exp(-second / 20)) + 15 * is_hot,
        "memory_temperature_c": 60 + number,
        "power_w": 640.0 - 200 * is_hot,
        "power_max_w": 700.0,
        "sm_clock_mhz": 1400.0 if is_hot else 1980.0,
        "sm_clock_min_mhz": 1200 if is_hot else 1965,
        "event_reasons": 0x44 if is_hot else 0x4,
        "held_hw_slowdown_pct": 0.0,
        "held_hw_thermal_pct": 60.0 * is_hot,
        "held_sw_thermal_pct": 0.0,
        "held_power_brake_pct": 0.0,
    }

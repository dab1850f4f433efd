"""Positive controls of the rules on figures: invented readings with a fault in them, one for each rule."""

from __future__ import annotations

from collections.abc import Callable

from burnin.expectation import Expectation, Figure
from burnin.rules.bound import Load, judge_bound
from burnin.rules.controls import prove_rules
from burnin.rules.figures import Floor, judge_floor, judge_memory_size, judge_per_clock, judge_power
from burnin.rules.firmware import judge_firmware
from probes.finding import Finding
from probes.outcome import Outcome

_FLOOR = Floor(value=80.0, why="of a model that does not exist")
_MODEL = Expectation(
    model="invented",
    figures={"memory_gb": Figure(value=80.0, source="invented")},
    tflops_typical={},
    allreduce_floors=(),
)


def prove_figure_rules() -> Finding:
    """See whether each rule on figures names the fault that was made for it."""
    mixed = [{"uuid": f"GPU-{n}", "name": "x", "vbios": "2" if n else "1"} for n in range(3)]
    slow = [Load(stage="matmul", loaded_s=60.0, checked_elements=0)]
    seeded: dict[str, Callable[[], Finding]] = {
        "rate below its floor": lambda: judge_floor(
            "tflops", "gpu:1", [70.0] * 3, _FLOOR, what="x", unit="TFLOPS", stage="matmul"
        ),
        "bandwidth below its floor": lambda: judge_floor(
            "hbm-bandwidth", "gpu:1", [79.0] * 3, _FLOOR, what="x", unit="GB/s", stage="bandwidth"
        ),
        "rate of NaN": lambda: judge_floor(
            "tflops", "gpu:1", [float("nan")] * 3, _FLOOR, what="x", unit="TFLOPS", stage="matmul"
        ),
        "slow at its full clock": lambda: judge_per_clock(
            "GPU-1", [80.0] * 3, {"GPU-2": [100.0] * 3}, ratio_min=0.9
        ),
        "less memory than its model": lambda: judge_memory_size("GPU-1", 70e9, _MODEL),
        "power limit not reached": lambda: judge_power(
            "GPU-1", [300.0] * 3, limit_w=700.0, share_min=0.9, stage="power"
        ),
        "firmware of its own": lambda: next(
            f for f in judge_firmware("h", mixed, is_failure=True) if f.outcome is Outcome.FAIL
        ),
        "load without a check": lambda: judge_bound("GPU-1", slow, errors=[]),
    }
    return prove_rules("figures", seeded)

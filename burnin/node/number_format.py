"""Number formats: what each device multiplies, and up to which integers that is exact."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFormat:
    """One way in which a device multiplies matrices."""

    name: str
    operand: str  # torch's name of the operands' type
    result: str  # torch's name of the results' type
    sum_max: int  # the largest integer up to which every partial sum is exact in the accumulator
    result_max: int  # the largest integer up to which the result's type holds every integer
    operand_max: int  # the largest integer that every operand holds exactly
    kinds: tuple[str, ...]  # devices that have it at a speed worth testing
    capability_min: tuple[int, int] = (0, 0)  # of a GPU, as CUDA counts


# The format in which a device of this kind draws most, and which siblings repeat bit for bit.
PRIMARY = {"cpu": "fp32", "cuda": "bf16"}

# The accumulator of fp32, tf32, bf16 and fp16 products is fp32 (2^24); reduced-precision reductions are off.
# fp16 on a CPU takes a thousand times as long as fp32 (1 GFLOPS, torch 2.15, 2026-11): nobody uses it there.
FORMATS: dict[str, NumberFormat] = {
    "fp64": NumberFormat(
        name="fp64",
        operand="float64",
        result="float64",
        sum_max=2**53,
        result_max=2**53,
        operand_max=2**20,
        kinds=("cpu", "cuda"),
    ),
    "fp32": NumberFormat(
        name="fp32",
        operand="float32",
        result="float32",
        sum_max=2**24,
        result_max=2**24,
        operand_max=2**24,
        kinds=("cpu", "cuda"),
    ),
    "tf32": NumberFormat(
        name="tf32",
        operand="float32",
        result="float32",
        sum_max=2**24,
        result_max=2**24,
        operand_max=2**11,
        kinds=("cuda",),
        capability_min=(8, 0),
    ),
    "bf16": NumberFormat(
        name="bf16",
        operand="bfloat16",
        result="bfloat16",
        sum_max=2**24,
        result_max=2**8,
        operand_max=2**8,
        kinds=("cpu", "cuda"),
        capability_min=(8, 0),
    ),
    "fp16": NumberFormat(
        name="fp16",
        operand="float16",
        result="float16",
        sum_max=2**24,
        result_max=2**11,
        operand_max=2**11,
        kinds=("cuda",),
    ),
    # e4m3. Hopper accumulates it with fewer bits than fp32 has; sums below 2^12 are exact there as well.
    "fp8": NumberFormat(
        name="fp8",
        operand="float8_e4m3fn",
        result="float32",
        sum_max=2**12,
        result_max=2**24,
        operand_max=2**4,
        kinds=("cuda",),
        capability_min=(8, 9),
    ),
    "int8": NumberFormat(
        name="int8",
        operand="int8",
        result="int32",
        sum_max=2**31 - 1,
        result_max=2**31 - 1,
        operand_max=127,
        kinds=("cpu", "cuda"),
    ),
}


def supported(
    names: list[str], kind: str, capability: tuple[int, int] = (99, 0)
) -> tuple[list[str], list[str]]:
    """Split format names into those that a device has and those that it lacks."""
    has = [
        name
        for name in names
        if kind in FORMATS[name].kinds and (kind == "cpu" or capability >= FORMATS[name].capability_min)
    ]
    return has, [name for name in names if name not in has]

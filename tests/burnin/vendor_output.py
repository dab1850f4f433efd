"""What the vendor's tools print, in the forms of their sources, and executables that print it.

DCGM's JSON follows dcgmi/Diag.cpp and dcgm_diag_schema.json (version 4) and the older form of version 3; the
table of nccl-tests follows its src/util.cu. The GPUs are those of the twin.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from probes.json_types import JsonObject
from tests.twins.machine import FIRST_BUS
from tests.twins.nvml import uuid

STRESS = (
    "memory", "pcie", "diagnostic", "targeted_stress", "targeted_power", "memory_bandwidth",
)  # fmt: skip
WARNING: JsonObject = {"error_category": 0, "error_id": 1, "error_severity": 1, "warning": "x"}
Results = Mapping[tuple[str, int], JsonObject | None]  # None: no result at all


def discovery(gpus: Sequence[int]) -> str:
    """Return the list of GPUs; DCGM's number N is the N-th of ``gpus``, which need not be NVML's."""
    line = "+--------+----------------------------------------------------------------------+\n"
    rows = ""
    for number, index in enumerate(gpus):
        rows += f"| {number:<6} | {'Name: NVIDIA H100 80GB HBM3':<68} |\n"
        rows += f"|        | {f'PCI Bus ID: 00000000:{FIRST_BUS + index:02X}:00.0':<68} |\n"
        rows += f"|        | {f'Device UUID: {uuid(index)}':<68} |\n{line}"
    head = f"{line}| GPU ID | {'Device Information':<68} |\n{line}"
    return f"{len(gpus)} GPUs found.\n{head}{rows}0 NvSwitches found.\n"


def version_4(gpus: Sequence[int], changed: Results | None = None, tests: Sequence[str] = STRESS) -> str:
    """Return a report in which every test passed, but for what was changed by test and DCGM's number."""
    entities = [{"device_id": "2330", "entity_id": n, "serial_num": _serial(i)} for n, i in enumerate(gpus)]
    group = {"entity_group": "GPU", "entity_group_id": 1}
    document = {
        "DCGM Diagnostic": {"test_categories": _categories(gpus, changed or {}, tests, _entity, "Pass")},
        "entity_groups": [group | {"entities": entities}],
        "metadata": {"Driver Version Detected": "580.82.07", "version": "4.2.3"},
    }
    return json.dumps(document, indent=3) + "\n"


def version_3(gpus: Sequence[int], changed: Results | None = None, tests: Sequence[str] = STRESS) -> str:
    """Return the same as version 3 prints it."""
    body = {
        "Driver Version Detected": "535.183.01",
        "GPU Device IDs": ["2330"] * len(gpus),
        "GPU Device Serials": {str(n): _serial(i) for n, i in enumerate(gpus)},
        "test_categories": _categories(
            gpus, changed or {}, tests, lambda number: {"gpu_id": str(number)}, "Pass"
        ),
        "version": "3.3.1",
    }
    return json.dumps({"DCGM GPU Diagnostic": body}, indent=3) + "\n"


def _serial(index: int) -> str:
    return f"16542230{index:05d}"


def _entity(number: int) -> JsonObject:
    return {"entity_group": "GPU", "entity_group_id": 1, "entity_id": number}


def _categories(
    gpus: Sequence[int],
    changed: Results,
    tests: Sequence[str],
    entity: Callable[[int], JsonObject],
    status: str,
) -> list[JsonObject]:
    found = []
    for test in ("software", *tests):
        results = [
            entity(number) | {"status": status} | (changed.get((test, number), {}) or {})
            for number in range(len(gpus))
            if changed.get((test, number), {}) is not None
        ]
        found.append({"name": test, "results": results, "test_summary": {"status": status}})
    return [{"category": "Deployment", "tests": found[:1]}, {"category": "Hardware", "tests": found[1:]}]


def complaint(severity: int, text: str, *, status: str = "Fail", error_id: int = 1) -> JsonObject:
    """Return the changed result of one test."""
    told = WARNING | {"error_severity": severity, "warning": text, "error_id": error_id}
    return {"status": status, "warnings": [told]}


def sweep(
    gpus: Sequence[int],
    sizes: Sequence[int],
    *,
    busbw: Callable[[int], float] = lambda size: 475.0,
    wrong: Callable[[int], str] = lambda size: "0",
    in_place: Callable[[int], float] | None = None,
    footer: bool = True,
    mean: float = 475.0,
) -> str:
    """Return what all_reduce_perf prints."""
    text = "# nccl-tests version 2.17.9 nccl-headers=22809 nccl-library=22809\n"
    text += f"# nThread 1 nGpus {len(gpus)} minBytes {sizes[0]} maxBytes {sizes[-1]} step: 2(factor) warmup "
    text += "iters: 5 iters: 20 agg iters: 1 validation: 1 graph: 0\n#\n# Using devices\n"
    for rank, index in enumerate(gpus):
        where = f"[0000:{FIRST_BUS + index:02x}:00]"
        text += f"#  Rank {rank:2} Group  0 Pid   4242 on     node-1 device {rank:2} {where} NVIDIA H100\n"
    text += "#\n#       size         count      type   redop    root     time   algbw   busbw  #wrong"
    text += "     time   algbw   busbw  #wrong \n"
    for size in sizes:
        one, other = busbw(size), (in_place or busbw)(size)
        text += f"{size:12}  {size // 4:12}     float     sum      -1    10.00  {one / 1.75:6.2f}  {one:6.2f}"
        text += f"  {wrong(size):>6}    10.00  {other / 1.75:6.2f}  {other:6.2f}       0\n"
    if footer:
        text += f"# Out of bounds values : 0 OK\n# Avg bus bandwidth    : {mean:g} \n#\n"
    return text


def install(folder: Path, programs: Mapping[str, str]) -> Path:
    """Write executables, each of which is a shell script; return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


def prints(text: str, *, exit_code: int = 0) -> str:
    """Return a script that prints this and ends."""
    return f"printf %s {shlex.quote(text)}\nexit {exit_code}"


def dcgmi(report: str, gpus: Sequence[int], *, exit_code: int = 0) -> str:
    """Return a script that answers as dcgmi does."""
    listed, told = prints(discovery(gpus)), prints(report, exit_code=exit_code)
    return f'if [ "$1" = discovery ]; then\n{listed}\nfi\n{told}'

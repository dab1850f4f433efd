"""The vendor's own tools, where they are installed: what is run, and with which arguments. It travels.

What they print is judged by our rules. Their exit codes, their means, and whether they call it a pass are not
evidence: each has been seen to say well of a bad GPU and ill of a good one.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

from burnin.node.dcgm_ids import read_gpu_ids
from burnin.node.tool_run import FINISHED, OUTPUT, Program
from burnin.node.visible import split_visible
from probes.event import Event
from probes.json_types import JsonObject

STAGE = "vendor"
DISCOVERY = "dcgmi discovery"
DIAGNOSTIC = "dcgmi diag"
BYTES_MAX = 4 << 20  # the report of level 4 on eight GPUs is some 200 KB
DISCOVERY_WITHIN_S = 20.0  # a daemon that takes longer to list its GPUs is in trouble
# Twice and more of what the levels have been seen to take (AWS's health checks, read 2026-02).
DIAG_WITHIN_S = {1: 300.0, 2: 1200.0, 3: 3600.0, 4: 5 * 3600.0}
COLLECTIVES = ("all_reduce_perf", "all_gather_perf", "reduce_scatter_perf", "alltoall_perf", "sendrecv_perf")
COLLECTIVE_WITHIN_S = 900.0
ITERATIONS, WARM_UPS = 20, 5
MEMORY_SHARE_MAX = 0.25  # for one message: nccl-tests keeps three of that size, and NCCL has its own
# They would choose other GPUs, or turn a comparison of means into an exit code.
_NOT_OURS = ("NCCL_TESTS_MIN_BW", "NCCL_TESTS_DEVICE", "NCCL_TESTS_SPLIT", "NCCL_TESTS_SPLIT_MASK")

Run = Callable[[Program], Sequence[Event]]
Say = Callable[..., None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU that the tools may load."""

    uuid: str
    memory_bytes: int | None  # None: nobody has read it


def gpus_to_load(
    inventory: JsonObject | None, environment: Mapping[str, str], *, intruded: Set[str]
) -> tuple[list[Gpu], str]:
    """Return the GPUs that the tools may load, and why none; empty: some.

    What is hidden from us, in slices, or used by somebody else is left alone, as in every other stage.
    """
    gpus = list((inventory or {}).get("gpus") or [])
    if not gpus:
        return [], "NVML lists no GPU"
    is_pci_order = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    visible, _, problem = split_visible(
        gpus, environment.get("CUDA_VISIBLE_DEVICES"), is_pci_order=is_pci_order
    )
    if problem:
        return [], problem
    in_use = sorted(
        {*intruded, *(str(gpu["uuid"]) for gpu in visible if gpu.get("processes") or gpu.get("mig_mode"))}
    )
    if in_use:
        return [], f"in use or in slices: {', '.join(in_use)}"
    return [Gpu(uuid=str(gpu["uuid"]), memory_bytes=gpu.get("memory_bytes")) for gpu in visible], ""


def run_tools(
    gpus: Sequence[Gpu], options: JsonObject, *, environment: Mapping[str, str], run: Run, say: Say
) -> None:
    """Run each tool that is installed on these GPUs and no others; say which are not installed."""
    path = environment.get("PATH")
    if options.get("dcgm_level"):
        _run_dcgm(gpus, options, path=path, run=run, say=say)
    for tool in COLLECTIVES if options.get("nccl_bytes_max") else ():
        if shutil.which(tool, path=path) is None:
            say("tool.absent", tool=tool)
        elif len(gpus) > 1:
            run(collective_program(tool, gpus, options))
        else:
            say("tool.pointless", tool=tool, reason="a collective takes two GPUs")


def _run_dcgm(gpus: Sequence[Gpu], options: JsonObject, *, path: str | None, run: Run, say: Say) -> None:
    if shutil.which("dcgmi", path=path) is None:
        say("tool.absent", tool=DIAGNOSTIC)
        return
    told = run(discovery_program())
    wanted = {gpu.uuid for gpu in gpus}
    numbers = [number for number, uuid in read_gpu_ids(text_of(told)).items() if uuid in wanted]
    if numbers:
        run(diagnostic_program(numbers, options))
    else:
        say("tool.pointless", tool=DIAGNOSTIC, reason="its daemon lists none of the GPUs under test")


def discovery_program() -> Program:
    """Return what asks DCGM which GPU is which."""
    return Program(
        tool=DISCOVERY,
        command=["dcgmi", "discovery", "-l"],
        within_s=DISCOVERY_WITHIN_S,
        bytes_max=BYTES_MAX,
    )


def diagnostic_program(numbers: Sequence[int], options: JsonObject) -> Program:
    """Return DCGM's diagnostic of these GPUs: those of others on this node are left alone."""
    level = int(options["dcgm_level"])
    chosen = ",".join(map(str, sorted(numbers)))
    return Program(
        tool=DIAGNOSTIC,
        command=["dcgmi", "diag", "-r", str(level), "-i", chosen, "-j"],
        within_s=float(options.get("dcgm_within_s") or DIAG_WITHIN_S[level]),
        bytes_max=BYTES_MAX,
    )


def collective_program(tool: str, gpus: Sequence[Gpu], options: JsonObject) -> Program:
    """Return one of nccl-tests, every argument spelled out, on these GPUs by UUID.

    Without ``-J``: that file holds the whole environment, secrets and all, and no figure that the table
    lacks.
    """
    largest = largest_message(gpus, int(options["nccl_bytes_max"]))
    arguments: dict[str, object] = {
        "-b": 8,
        "-e": largest,
        "-f": 2,
        "-g": len(gpus),
        "-c": 1,
        "-n": ITERATIONS,
        "-w": WARM_UPS,
    }
    arguments |= {"-t": 1, "-d": "float", "-o": "sum"}
    visible = ",".join(gpu.uuid for gpu in gpus)
    return Program(
        tool=tool,
        command=[tool, *(str(part) for pair in arguments.items() for part in pair)],
        within_s=float(options.get("nccl_within_s") or COLLECTIVE_WITHIN_S),
        bytes_max=BYTES_MAX,
        environment=dict.fromkeys(_NOT_OURS) | {"CUDA_VISIBLE_DEVICES": visible, "NCCL_DEBUG": "WARN"},
    )


def largest_message(gpus: Sequence[Gpu], wanted: int) -> int:
    """Return the largest power of two that was wanted and fits into the smallest of these GPUs."""
    memories = [gpu.memory_bytes for gpu in gpus if gpu.memory_bytes]
    room = min([wanted, *(int(memory * MEMORY_SHARE_MAX) for memory in memories)])
    return 1 << (max(room, 8).bit_length() - 1)


def text_of(events: Sequence[Event]) -> str:
    """Return what a program printed, put together from its chunks."""
    chunks = [base64.b64decode(str(e.data["base64"])) for e in events if e.kind == OUTPUT]
    return b"".join(chunks).decode(errors="replace")


def is_end(event: Event) -> bool:
    """Say whether this is the last that a runner says."""
    return event.kind == FINISHED

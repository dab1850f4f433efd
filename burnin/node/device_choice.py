"""Which devices to load: the GPUs that NVML lists, by UUID, or the cores of this machine as two devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from burnin.node.visible import split_visible
from probes.host import read_processor, read_usable_cores
from probes.json_types import JsonObject

CPU_DEVICES = 2  # as many as it takes for siblings to compare and for a collective


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One device and what its worker needs to have it for itself."""

    name: str
    model: str
    cores: list[int]  # empty: any
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The devices of a run."""

    kind: str  # "cuda" or "cpu"
    seats: tuple[Seat, ...]
    problem: str = ""  # why nothing can be loaded, where that is so
    hidden: tuple[str, ...] = ()  # UUIDs of GPUs that CUDA_VISIBLE_DEVICES keeps us away from


def choose_devices(
    wanted: str,
    inventory: JsonObject | None,
    *,
    cpu_devices: int = CPU_DEVICES,
    environment: Mapping[str, str] | None = None,
) -> Choice:
    """Choose what the order wants from what there is. ``inventory`` is None where the sampler said nothing.

    A GPU that NVML lists is never passed over in favour of the CPU because something else about it is wrong.
    """
    gpus = (inventory or {}).get("gpus") or []
    if wanted == "cpu":
        return _choose_cpu(cpu_devices)
    if gpus:
        return _choose_gpus(gpus, environment or {})
    state = str((inventory or {}).get("nvml", "silent"))
    if state == "absent" and wanted == "auto":
        return _choose_cpu(cpu_devices)
    detail = str((inventory or {}).get("detail", "the sampler said nothing"))
    return Choice(kind="cuda", seats=(), problem=f"NVML lists no GPU: {detail}")


def _choose_gpus(gpus: Sequence[JsonObject], environment: Mapping[str, str]) -> Choice:
    """Give each worker the one GPU with that UUID: indices of CUDA and of NVML need not agree."""
    is_pci_order = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    gpus, hidden, problem = split_visible(
        gpus, environment.get("CUDA_VISIBLE_DEVICES"), is_pci_order=is_pci_order
    )
    names = tuple(str(gpu["uuid"]) for gpu in hidden)
    sliced = [str(gpu["uuid"]) for gpu in gpus if gpu.get("mig_mode")]
    if problem or sliced:
        problem = problem or f"MIG is on: {', '.join(sliced)}"
        return Choice(kind="cuda", seats=(), problem=problem, hidden=names)
    in_use = [
        f"{gpu['uuid']} by pid {', '.join(map(str, gpu['processes']))}"
        for gpu in gpus
        if gpu.get("processes")
    ]
    if in_use:
        return Choice(kind="cuda", seats=(), problem=f"in use: {'; '.join(in_use)}", hidden=names)
    return Choice(kind="cuda", seats=tuple(_seat(gpu) for gpu in gpus), hidden=names)


def _seat(gpu: JsonObject) -> Seat:
    uuid = str(gpu["uuid"])
    return Seat(
        name=uuid, model=str(gpu.get("name", "GPU")), cores=[], environment={"CUDA_VISIBLE_DEVICES": uuid}
    )


def _choose_cpu(count: int) -> Choice:
    cores = read_usable_cores()
    share = max(len(cores) // count, 1)
    # With more devices than cores they share cores, one each, so that all compute with as many threads.
    parts = [
        cores[index * share : (index + 1) * share] or [cores[index % len(cores)]] for index in range(count)
    ]
    model = read_processor()
    seats = (Seat(name=f"cpu:{index}", model=model, cores=part) for index, part in enumerate(parts))
    return Choice(kind="cpu", seats=tuple(seats))

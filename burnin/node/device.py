"""What torch says about the one device that this worker has."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata

import torch

from probes.json_types import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """The device as torch names it, and what goes into the record about it."""

    torch_device: torch.device
    described: JsonObject


def read_device(kind: str, *, threads: int) -> DeviceFacts:
    """Take the device and read what it is.

    Raises:
        RuntimeError: torch does not see the GPU.
    """
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
    if kind == "cpu":
        torch.set_num_threads(max(threads, 1))
        described = {"model": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
        return DeviceFacts(torch_device=torch.device("cpu"), described=versions | described)
    if not torch.cuda.is_available():
        raise RuntimeError(f"torch {torch.__version__} sees no GPU; is it a build for CUDA?")
    properties = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info(0)
    described = {
        "model": properties.name,
        "torch_uuid": str(getattr(properties, "uuid", "")),
        "memory_free_bytes": free,
        "memory_bytes": total,
        "visible": torch.cuda.device_count(),
        "nccl": _nccl_version(),
        "cublas": _cublas_version(),
    }
    return DeviceFacts(torch_device=torch.device("cuda", 0), described=versions | described)


def _nccl_version() -> str | None:
    """Return the version of the NCCL that torch brings; None: it was built without."""
    if not (torch.distributed.is_available() and torch.distributed.is_nccl_available()):
        return None
    return ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]


def _cublas_version() -> str | None:
    """Return the version of cuBLAS that came as a package; None: it came with torch or the image."""
    for name in ("nvidia-cublas", f"nvidia-cublas-cu{(torch.version.cuda or '0').partition('.')[0]}"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None

"""NVML readings that come as a structure: SRAM errors, the fabric, the state of each NVLink."""

from __future__ import annotations

import ctypes

import pynvml

from probes.json_types import JsonObject
from probes.nvml import Handle, Unsupported, ask
from probes.nvml_fields import LINK_FIELDS, read_fields

LINKS_MAX = 36  # NVML's own bound
# The fabric's health mask: two bits for each fault, 1 says that it is there; then the configuration.
FABRIC_FAULTS = {
    0: "bandwidth degraded",
    2: "route recovery under way",
    4: "route unhealthy",
    6: "access timeout",
}
FABRIC_CONFIGURATION_SHIFT, FABRIC_CONFIGURATION_CORRECT = 8, 1
FABRIC_COMPLETED = 3


def read_sram(gpu: Handle) -> dict[str, int]:
    """Return the errors of the on-chip memories and whether they are more than the vendor accepts."""
    status = pynvml.c_nvmlEccSramErrorStatus_v1_t()
    ask(pynvml.nvmlDeviceGetSramEccErrorStatus, gpu, ctypes.byref(status))
    return {
        "sram_uncorrected": status.volatileUncParity + status.volatileUncSecDed,
        "sram_uncorrected_ever": status.aggregateUncParity + status.aggregateUncSecDed,
        "sram_threshold_exceeded": status.bThresholdExceeded,
    }


def read_fabric(gpu: Handle) -> dict[str, int]:
    """Return the state of the NVLink fabric as this GPU sees it.

    Raises:
        Unsupported: this board is not part of one.
        SensorError: it is, and the answer did not come.
    """
    info = pynvml.c_nvmlGpuFabricInfo_v2_t()
    ask(pynvml.nvmlDeviceGetGpuFabricInfoV, gpu, ctypes.byref(info))
    state = int(info.state) & 0xFF  # one byte in the driver's header, padded in the structure
    if state == pynvml.NVML_GPU_FABRIC_STATE_NOT_SUPPORTED:
        raise Unsupported("this board is not part of a fabric")
    return {"fabric_state": state, "fabric_health": int(info.healthMask), "fabric_status": int(info.status)}


def read_links(gpu: Handle) -> list[JsonObject]:
    """Return each NVLink with its state and its counters; empty: this board has none.

    Raises:
        SensorError: the state of a link that is there did not come.
    """
    links = []
    for link in range(LINKS_MAX):
        try:
            is_active = bool(ask(pynvml.nvmlDeviceGetNvLinkState, gpu, link))
        except Unsupported:
            break  # none at all, or one more than there are
        links.append({"link": link, "is_active": is_active, **_link_counters(gpu, link)})
    return links


def _link_counters(gpu: Handle, link: int) -> dict[str, int | float]:
    try:
        return read_fields(gpu, LINK_FIELDS, scope=link).found
    except Unsupported:
        return {}


# Readings of several values, taken with the counters.
STRUCTURES = {"sram": read_sram, "fabric": read_fabric}

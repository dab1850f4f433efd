"""NVML sensors through pynvml: one function per reading, every one of them optional.

A driver that lacks a call, a board that lacks a sensor and a GPU that has fallen off the bus are three
different things; ``Unsupported`` stands for the first two, ``SensorError`` for all that ought to answer.
Calls can block for ever on a dying GPU: call from a thread or process that you can do without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pynvml

from probes.json_types import JsonObject

# Bits of the clocks' event reasons that say the hardware holds the clocks back.
HW_SLOWDOWN, SW_THERMAL, HW_THERMAL, POWER_BRAKE = 0x8, 0x20, 0x40, 0x80
_XID_EVENT = 0x8
_UNSUPPORTED = (
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_NO_PERMISSION,
)
_LOST = (pynvml.NVML_ERROR_GPU_IS_LOST,)

Handle = Any  # pynvml's own pointer type, which has no name there


class Unsupported(Exception):
    """This driver or board does not have that reading."""


class SensorError(Exception):
    """A reading that this driver and board have did not come."""

    def __init__(self, text: str, *, is_lost: bool = False) -> None:
        super().__init__(text)
        self.is_lost = is_lost  # the GPU itself is gone


class LibraryAbsent(Exception):
    """There is no NVML on this machine."""


def _ask(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        code = getattr(error, "value", None)
        if code in _UNSUPPORTED:
            raise Unsupported(str(error)) from error
        raise SensorError(str(error), is_lost=code in _LOST) from error


def open_nvml() -> None:
    """Load the library and connect to the driver.

    Raises:
        LibraryAbsent: this machine has no NVML.
        SensorError: it has, and the driver does not answer.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if getattr(error, "value", None) == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            raise LibraryAbsent(str(error)) from error
        raise SensorError(str(error)) from error


def count_gpus() -> int:
    """Return how many GPUs NVML lists."""
    return int(_ask(pynvml.nvmlDeviceGetCount))


def open_gpu(index: int) -> Handle:
    """Return the handle of a GPU; the index is NVML's own and good for nothing else."""
    return _ask(pynvml.nvmlDeviceGetHandleByIndex, index)


def read_driver_version() -> str:
    """Return the version of the driver."""
    return str(_ask(pynvml.nvmlSystemGetDriverVersion))


def _threshold(which: int) -> Callable[[Handle], int]:
    return lambda gpu: int(_ask(pynvml.nvmlDeviceGetTemperatureThreshold, gpu, which))


# What a GPU is: read once.
IDENTITY: dict[str, Callable[[Handle], Any]] = {
    "uuid": lambda gpu: str(_ask(pynvml.nvmlDeviceGetUUID, gpu)),
    "name": lambda gpu: str(_ask(pynvml.nvmlDeviceGetName, gpu)),
    "serial": lambda gpu: str(_ask(pynvml.nvmlDeviceGetSerial, gpu)),
    "pci_bus_id": lambda gpu: str(_ask(pynvml.nvmlDeviceGetPciInfo, gpu).busId),
    "vbios": lambda gpu: str(_ask(pynvml.nvmlDeviceGetVbiosVersion, gpu)),
    "slowdown_c": _threshold(pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN),
    "power_limit_w": lambda gpu: _ask(pynvml.nvmlDeviceGetEnforcedPowerLimit, gpu) / 1000,
    "memory_bytes": lambda gpu: int(_ask(pynvml.nvmlDeviceGetMemoryInfo, gpu).total),
}
# What changes all the time: read every second.
SAMPLED: dict[str, Callable[[Handle], Any]] = {
    "temperature_c": lambda gpu: int(_ask(pynvml.nvmlDeviceGetTemperature, gpu, pynvml.NVML_TEMPERATURE_GPU)),
    "memory_temperature_c": lambda gpu: read_field(gpu, pynvml.NVML_FI_DEV_MEMORY_TEMP),
    "power_w": lambda gpu: _ask(pynvml.nvmlDeviceGetPowerUsage, gpu) / 1000,
    "sm_clock_mhz": lambda gpu: int(_ask(pynvml.nvmlDeviceGetClockInfo, gpu, pynvml.NVML_CLOCK_SM)),
    "memory_clock_mhz": lambda gpu: int(_ask(pynvml.nvmlDeviceGetClockInfo, gpu, pynvml.NVML_CLOCK_MEM)),
    "event_reasons": lambda gpu: int(_ask(pynvml.nvmlDeviceGetCurrentClocksEventReasons, gpu)),
    "util_pct": lambda gpu: int(_ask(pynvml.nvmlDeviceGetUtilizationRates, gpu).gpu),
}


def _ecc(kind: int) -> Callable[[Handle], int]:
    return lambda gpu: int(_ask(pynvml.nvmlDeviceGetTotalEccErrors, gpu, kind, pynvml.NVML_VOLATILE_ECC))


def _throttled(policy: int) -> Callable[[Handle], int]:
    return lambda gpu: int(_ask(pynvml.nvmlDeviceGetViolationStatus, gpu, policy).violationTime)


# What only ever grows: read before and after, and judged by the difference.
COUNTED: dict[str, Callable[[Handle], int]] = {
    "ecc_uncorrected": _ecc(pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
    "ecc_corrected": _ecc(pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
    "throttled_thermal_ns": _throttled(pynvml.NVML_PERF_POLICY_THERMAL),
    "throttled_power_ns": _throttled(pynvml.NVML_PERF_POLICY_POWER),
    "throttled_board_ns": _throttled(pynvml.NVML_PERF_POLICY_BOARD_LIMIT),
}
_FIELD_MEMBERS = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}


def read_field(gpu: Handle, field_id: int) -> int | float:
    """Return one field value. An error of a single field is in its own return code and is raised nowhere."""
    (value,) = _ask(pynvml.nvmlDeviceGetFieldValues, gpu, [field_id])
    if value.nvmlReturn in (*_UNSUPPORTED, pynvml.NVML_ERROR_INVALID_ARGUMENT):
        raise Unsupported(f"field {field_id}: {pynvml.NVMLError(value.nvmlReturn)}")
    if value.nvmlReturn != pynvml.NVML_SUCCESS:
        error = pynvml.NVMLError(value.nvmlReturn)
        raise SensorError(f"field {field_id}: {error}", is_lost=value.nvmlReturn in _LOST)
    number: int | float = getattr(value.value, _FIELD_MEMBERS[value.valueType])
    return number


def read_processes(gpu: Handle) -> list[int]:
    """Return the pids of the processes that compute on a GPU."""
    return sorted(int(process.pid) for process in _ask(pynvml.nvmlDeviceGetComputeRunningProcesses, gpu))


def open_xid_events(gpus: list[Handle]) -> Any:
    """Return an event set that delivers the XIDs of these GPUs.

    Raises:
        Unsupported: this driver or board has no such events.
    """
    events = _ask(pynvml.nvmlEventSetCreate)
    for gpu in gpus:
        _ask(pynvml.nvmlDeviceRegisterEvents, gpu, _XID_EVENT, events)
    return events


def wait_for_xid(events: Any, *, timeout_ms: int) -> JsonObject | None:
    """Return the next XID with the UUID of its GPU; None: none came in time."""
    try:
        data = pynvml.nvmlEventSetWait_v2(events, timeout_ms)
    except pynvml.NVMLError as error:
        if getattr(error, "value", None) == pynvml.NVML_ERROR_TIMEOUT:
            return None
        raise SensorError(str(error), is_lost=getattr(error, "value", None) in _LOST) from error
    if data.eventType != _XID_EVENT:
        return None
    return {"gpu": str(_ask(pynvml.nvmlDeviceGetUUID, data.device)), "xid": int(data.eventData)}

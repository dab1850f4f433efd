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
# Further events that tell of trouble, by their bits; those from 0x200 on came with the headers of CUDA 12.6
# and 12.8, and a driver registers only what it says that it supports.
EVENTS = {
    0x1: "single-bit ECC error",
    0x2: "double-bit ECC error",
    0x200: "storm of single-bit ECC errors",
    0x400: "DRAM row retired",
    0x800: "DRAM row could not be retired",
    0x1000: "poisoned data, contained",
    0x2000: "poisoned data, fatal",
    0x4000: "GPU unavailable",
    0x8000: "recovery action changed",
}
UNSUPPORTED = (
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_NO_PERMISSION,
    # How a driver says that it does not know a structure's version, a field, or one kind of a counter.
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    pynvml.NVML_ERROR_DEPRECATED,
    pynvml.NVML_ERROR_INVALID_ARGUMENT,
)
_LOST = (pynvml.NVML_ERROR_GPU_IS_LOST,)

Handle = Any  # pynvml's own pointer type, which has no name there


class Unsupported(Exception):
    """This driver or board does not have that reading."""


class SensorError(Exception):
    """A reading that this driver and board have did not come."""

    def __init__(self, text: str, *, is_lost: bool = False, code: int | None = None) -> None:
        super().__init__(text)
        self.is_lost = is_lost  # the GPU itself is gone
        self.code = code  # NVML's own; None: there was none


class LibraryAbsent(Exception):
    """There is no NVML on this machine."""


def is_lost(code: int | None) -> bool:
    """Say whether an error code means that the GPU itself is gone."""
    return code in _LOST


def ask(function: Callable[..., Any], *arguments: Any) -> Any:
    """Make one NVML call.

    Raises:
        Unsupported: this driver or board does not have it, or it is not for us.
        SensorError: it has, and the answer did not come.
    """
    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        code = getattr(error, "value", None)
        if code in UNSUPPORTED:
            raise Unsupported(str(error)) from error
        raise SensorError(str(error), is_lost=is_lost(code), code=code) from error


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
    return int(ask(pynvml.nvmlDeviceGetCount))


def open_gpu(index: int) -> Handle:
    """Return the handle of a GPU; the index is NVML's own and good for nothing else."""
    return ask(pynvml.nvmlDeviceGetHandleByIndex, index)


def read_driver_version() -> str:
    """Return the version of the driver."""
    return str(ask(pynvml.nvmlSystemGetDriverVersion))


def _threshold(which: int) -> Callable[[Handle], int]:
    return lambda gpu: int(ask(pynvml.nvmlDeviceGetTemperatureThreshold, gpu, which))


def _max_clock(which: int) -> Callable[[Handle], int]:
    return lambda gpu: int(ask(pynvml.nvmlDeviceGetMaxClockInfo, gpu, which))


# What a GPU is, and how it is set up: read once.
IDENTITY: dict[str, Callable[[Handle], Any]] = {
    "uuid": lambda gpu: str(ask(pynvml.nvmlDeviceGetUUID, gpu)),
    "name": lambda gpu: str(ask(pynvml.nvmlDeviceGetName, gpu)),
    "serial": lambda gpu: str(ask(pynvml.nvmlDeviceGetSerial, gpu)),
    "pci_bus_id": lambda gpu: str(ask(pynvml.nvmlDeviceGetPciInfo, gpu).busId),
    "vbios": lambda gpu: str(ask(pynvml.nvmlDeviceGetVbiosVersion, gpu)),
    "inforom_image": lambda gpu: str(ask(pynvml.nvmlDeviceGetInforomImageVersion, gpu)),
    "architecture": lambda gpu: int(ask(pynvml.nvmlDeviceGetArchitecture, gpu)),
    "slowdown_c": _threshold(pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN),
    "shutdown_c": _threshold(pynvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN),
    "memory_max_c": _threshold(pynvml.NVML_TEMPERATURE_THRESHOLD_MEM_MAX),
    "gpu_max_c": _threshold(pynvml.NVML_TEMPERATURE_THRESHOLD_GPU_MAX),
    "power_limit_w": lambda gpu: ask(pynvml.nvmlDeviceGetEnforcedPowerLimit, gpu) / 1000,
    "power_default_limit_w": lambda gpu: ask(pynvml.nvmlDeviceGetPowerManagementDefaultLimit, gpu) / 1000,
    "sm_clock_max_mhz": _max_clock(pynvml.NVML_CLOCK_SM),
    "memory_clock_max_mhz": _max_clock(pynvml.NVML_CLOCK_MEM),
    "memory_bytes": lambda gpu: int(ask(pynvml.nvmlDeviceGetMemoryInfo, gpu).total),
    "memory_used_bytes": lambda gpu: int(ask(pynvml.nvmlDeviceGetMemoryInfo, gpu).used),
    "pcie_generation_max": lambda gpu: int(ask(pynvml.nvmlDeviceGetMaxPcieLinkGeneration, gpu)),
    "pcie_width_max": lambda gpu: int(ask(pynvml.nvmlDeviceGetMaxPcieLinkWidth, gpu)),
    "ecc_mode": lambda gpu: int(ask(pynvml.nvmlDeviceGetEccMode, gpu)[0]),
    "mig_mode": lambda gpu: int(ask(pynvml.nvmlDeviceGetMigMode, gpu)[0]),
    "persistence_mode": lambda gpu: int(ask(pynvml.nvmlDeviceGetPersistenceMode, gpu)),
}
# What changes within a second: read ten times in each, and put together to one row.
FAST: dict[str, Callable[[Handle], Any]] = {
    "power_w": lambda gpu: ask(pynvml.nvmlDeviceGetPowerUsage, gpu) / 1000,
    "sm_clock_mhz": lambda gpu: int(ask(pynvml.nvmlDeviceGetClockInfo, gpu, pynvml.NVML_CLOCK_SM)),
    "event_reasons": lambda gpu: _event_reasons(gpu),
}
# What changes more slowly: read every second.
SAMPLED: dict[str, Callable[[Handle], Any]] = {
    "temperature_c": lambda gpu: int(ask(pynvml.nvmlDeviceGetTemperature, gpu, pynvml.NVML_TEMPERATURE_GPU)),
    "memory_temperature_c": lambda gpu: read_field(gpu, pynvml.NVML_FI_DEV_MEMORY_TEMP),
    "temperature_margin_c": lambda gpu: int(ask(pynvml.nvmlDeviceGetMarginTemperature, gpu)),
    "memory_clock_mhz": lambda gpu: int(ask(pynvml.nvmlDeviceGetClockInfo, gpu, pynvml.NVML_CLOCK_MEM)),
    "util_pct": lambda gpu: int(ask(pynvml.nvmlDeviceGetUtilizationRates, gpu).gpu),
    "pcie_generation": lambda gpu: int(ask(pynvml.nvmlDeviceGetCurrPcieLinkGeneration, gpu)),
    "pcie_width": lambda gpu: int(ask(pynvml.nvmlDeviceGetCurrPcieLinkWidth, gpu)),
}


def _event_reasons(gpu: Handle) -> int:
    """Return why the clocks are where they are; before driver 535 the call had another name."""
    try:
        return int(ask(pynvml.nvmlDeviceGetCurrentClocksEventReasons, gpu))
    except Unsupported:
        return int(ask(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, gpu))


def _ecc(kind: int) -> Callable[[Handle], int]:
    return lambda gpu: int(ask(pynvml.nvmlDeviceGetTotalEccErrors, gpu, kind, pynvml.NVML_VOLATILE_ECC))


def _located(kind: int, location: int) -> Callable[[Handle], int]:
    call = pynvml.nvmlDeviceGetMemoryErrorCounter
    return lambda gpu: int(ask(call, gpu, kind, pynvml.NVML_VOLATILE_ECC, location))


def _throttled(policy: int, field_id: int) -> Callable[[Handle], int]:
    """Nanoseconds held back: by the call where there is one, by the field of the same counter otherwise."""

    def read(gpu: Handle) -> int:
        try:
            return int(ask(pynvml.nvmlDeviceGetViolationStatus, gpu, policy).violationTime)
        except Unsupported:
            return int(read_field(gpu, field_id))

    return read


def _remapped(index: int) -> Callable[[Handle], int]:
    return lambda gpu: int(ask(pynvml.nvmlDeviceGetRemappedRows, gpu)[index])


def _histogram(column: str) -> Callable[[Handle], int]:
    return lambda gpu: int(getattr(ask(pynvml.nvmlDeviceGetRowRemapperHistogram, gpu), column))


def is_corrupt(code: int | None) -> bool:
    """Say whether an error code means that the checksums of the board's InfoROM are wrong."""
    return bool(code == pynvml.NVML_ERROR_CORRUPTED_INFOROM)


def _inforom_corrupt(gpu: Handle) -> int:
    """Have the driver verify the checksums of the InfoROM; 1: they are wrong."""
    try:
        ask(pynvml.nvmlDeviceValidateInforom, gpu)
    except SensorError as error:
        if is_corrupt(error.code):
            return 1
        raise
    return 0


_UNCORRECTED, _CORRECTED = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED
# What only ever grows, and what states a condition: read before and after, and judged by the difference or by
# what it says at the end.
COUNTED: dict[str, Callable[[Handle], int]] = {
    "ecc_uncorrected": _ecc(_UNCORRECTED),
    "ecc_corrected": _ecc(_CORRECTED),
    "ecc_dram_uncorrected": _located(_UNCORRECTED, pynvml.NVML_MEMORY_LOCATION_DRAM),
    "ecc_dram_corrected": _located(_CORRECTED, pynvml.NVML_MEMORY_LOCATION_DRAM),
    "ecc_sram_uncorrected": _located(_UNCORRECTED, pynvml.NVML_MEMORY_LOCATION_SRAM),
    "throttled_thermal_ns": _throttled(
        pynvml.NVML_PERF_POLICY_THERMAL, pynvml.NVML_FI_DEV_PERF_POLICY_THERMAL
    ),
    "throttled_power_ns": _throttled(pynvml.NVML_PERF_POLICY_POWER, pynvml.NVML_FI_DEV_PERF_POLICY_POWER),
    "throttled_board_ns": _throttled(
        pynvml.NVML_PERF_POLICY_BOARD_LIMIT, pynvml.NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT
    ),
    "throttled_reliability_ns": _throttled(
        pynvml.NVML_PERF_POLICY_RELIABILITY, pynvml.NVML_FI_DEV_PERF_POLICY_RELIABILITY
    ),
    "rows_remapped_corrected": _remapped(0),
    "rows_remapped_uncorrected": _remapped(1),
    "row_remap_pending": _remapped(2),
    "row_remap_failure": _remapped(3),
    "banks_without_spare_rows": _histogram("none"),
    "banks_with_few_spare_rows": _histogram("low"),
    "pcie_replays": lambda gpu: int(ask(pynvml.nvmlDeviceGetPcieReplayCounter, gpu)),
    "energy_mj": lambda gpu: int(ask(pynvml.nvmlDeviceGetTotalEnergyConsumption, gpu)),
    "power_limit_w": lambda gpu: ask(pynvml.nvmlDeviceGetEnforcedPowerLimit, gpu) / 1000,
    "inforom_corrupt": _inforom_corrupt,
}
FIELD_MEMBERS = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}


def read_field(gpu: Handle, field_id: int) -> int | float:
    """Return one field value. An error of a single field is in its own return code and is raised nowhere."""
    (value,) = ask(pynvml.nvmlDeviceGetFieldValues, gpu, [field_id])
    if value.nvmlReturn in UNSUPPORTED:
        raise Unsupported(f"field {field_id}: {pynvml.NVMLError(value.nvmlReturn)}")
    if value.nvmlReturn != pynvml.NVML_SUCCESS:
        error = pynvml.NVMLError(value.nvmlReturn)
        raise SensorError(f"field {field_id}: {error}", is_lost=value.nvmlReturn in _LOST)
    number: int | float = getattr(value.value, FIELD_MEMBERS[value.valueType])
    return number


def read_processes(gpu: Handle) -> list[int]:
    """Return the pids of the processes that compute on a GPU."""
    return sorted(int(process.pid) for process in ask(pynvml.nvmlDeviceGetComputeRunningProcesses, gpu))


def open_events(gpus: list[Handle]) -> tuple[Any, dict[str, int]]:
    """Return an event set that delivers XIDs and other trouble, and the bits that each GPU has by its UUID.

    Raises:
        Unsupported: this driver or board has no XID events.
    """
    events, bits = ask(pynvml.nvmlEventSetCreate), {}
    for gpu in gpus:
        wanted = _XID_EVENT | sum(EVENTS) & _supported_events(gpu)
        try:
            ask(pynvml.nvmlDeviceRegisterEvents, gpu, wanted, events)
        except Unsupported:
            wanted = _XID_EVENT
            ask(pynvml.nvmlDeviceRegisterEvents, gpu, wanted, events)
        bits[str(ask(pynvml.nvmlDeviceGetUUID, gpu))] = wanted
    return events, bits


def _supported_events(gpu: Handle) -> int:
    try:
        return int(ask(pynvml.nvmlDeviceGetSupportedEventTypes, gpu))
    except Unsupported:
        return 0


def wait_for_event(events: Any, *, timeout_ms: int) -> JsonObject | None:
    """Return the next XID, or the bit of another event, with the UUID of its GPU; None: none came in time."""
    try:
        data = pynvml.nvmlEventSetWait_v2(events, timeout_ms)
    except pynvml.NVMLError as error:
        if getattr(error, "value", None) == pynvml.NVML_ERROR_TIMEOUT:
            return None
        raise SensorError(str(error), is_lost=getattr(error, "value", None) in _LOST) from error
    gpu = str(ask(pynvml.nvmlDeviceGetUUID, data.device))
    if data.eventType == _XID_EVENT:
        return {"gpu": gpu, "xid": int(data.eventData)}
    return {"gpu": gpu, "bit": int(data.eventType), "data": int(data.eventData)}

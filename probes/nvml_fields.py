"""NVML's numbered fields: many counters in one call, each with an error of its own.

The numbers are not stable. What a driver does not know it calls an invalid argument or not supported; worse,
the nanoseconds held back by each reason moved from 251-253 to 269-271 with CUDA 13, and the old
numbers now mean power smoothing. Both places are read; the rule on throttling decides which to believe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pynvml

from probes.nvml import FIELD_MEMBERS, UNSUPPORTED, Handle, SensorError, ask, is_lost

# Held back by software for heat, by hardware for heat, by the power brake: nanoseconds, in this order.
CLOCK_FIELDS_OLD, CLOCK_FIELDS_NEW = 251, 269
CLOCK_REASONS = ("sw_thermal", "hw_thermal", "power_brake")
DRIVER_WITH_NEW_CLOCK_FIELDS = 580  # the driver of CUDA 13.0

# Read before and after; the header's names without their prefix say the same.
COUNTED_FIELDS: dict[str, int] = {
    "pcie_replay_rollovers": pynvml.NVML_FI_DEV_PCIE_REPLAY_ROLLOVER_COUNTER,
    "pcie_l0_to_recovery": pynvml.NVML_FI_DEV_PCIE_L0_TO_RECOVERY_COUNTER,
    "pcie_correctable": pynvml.NVML_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS,
    "pcie_naks_received": pynvml.NVML_FI_DEV_PCIE_COUNT_NAKS_RECEIVED,
    "pcie_receiver_errors": pynvml.NVML_FI_DEV_PCIE_COUNT_RECEIVER_ERROR,
    "pcie_bad_tlps": pynvml.NVML_FI_DEV_PCIE_COUNT_BAD_TLP,
    "pcie_naks_sent": pynvml.NVML_FI_DEV_PCIE_COUNT_NAKS_SENT,
    "pcie_bad_dllps": pynvml.NVML_FI_DEV_PCIE_COUNT_BAD_DLLP,
    "pcie_non_fatal": pynvml.NVML_FI_DEV_PCIE_COUNT_NON_FATAL_ERROR,
    "pcie_fatal": pynvml.NVML_FI_DEV_PCIE_COUNT_FATAL_ERROR,
    "pcie_unsupported_requests": pynvml.NVML_FI_DEV_PCIE_COUNT_UNSUPPORTED_REQ,
    "pcie_lcrc_errors": pynvml.NVML_FI_DEV_PCIE_COUNT_LCRC_ERROR,
    "pcie_lane_errors": pynvml.NVML_FI_DEV_PCIE_COUNT_LANE_ERROR,
    "recovery_action": pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
    **{
        f"clock_field_{first + n}": first + n
        for first in (CLOCK_FIELDS_OLD, CLOCK_FIELDS_NEW)
        for n in range(3)
    },
}
# Counted per link: the first three up to Hopper, the others from Blackwell on.
LINK_FIELDS: dict[str, int] = {
    "replays": pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY,
    "recoveries": pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY,
    "crc_errors": pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_CRC,
    "speed_mbps": pynvml.NVML_FI_DEV_NVLINK_GET_SPEED,
    "recoveries_failed": pynvml.NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS,
    "effective_errors": pynvml.NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_ERRORS,
    "symbol_errors": pynvml.NVML_FI_DEV_NVLINK_COUNT_SYMBOL_ERRORS,
}


@dataclass(slots=True)
class FieldReadings:
    """What the fields of one call said."""

    found: dict[str, int | float] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)  # this driver or board does not have them
    failed: dict[str, SensorError] = field(default_factory=dict)


def read_fields(gpu: Handle, wanted: Mapping[str, int], *, scope: int = 0) -> FieldReadings:
    """Read fields by name in one call; ``scope`` is the link, for those that count per link.

    Raises:
        Unsupported: this driver has no fields at all.
        SensorError: the call as a whole failed.
    """
    return _sort_out(wanted, ask(pynvml.nvmlDeviceGetFieldValues, gpu, [(n, scope) for n in wanted.values()]))


def _sort_out(wanted: Mapping[str, int], values: Sequence[pynvml.c_nvmlFieldValue_t]) -> FieldReadings:
    readings = FieldReadings()
    for (name, number), value in zip(wanted.items(), values, strict=True):
        code = value.nvmlReturn
        if code == pynvml.NVML_SUCCESS:
            readings.found[name] = getattr(value.value, FIELD_MEMBERS[value.valueType])
        elif code in UNSUPPORTED:
            readings.lacking[name] = f"field {number}: {pynvml.NVMLError(code)}"
        else:
            error = SensorError(f"field {number}: {pynvml.NVMLError(code)}", is_lost=is_lost(code))
            readings.failed[name] = error
    return readings

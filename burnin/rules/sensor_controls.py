"""Positive controls of the rules on sensors: invented readings with one fault each, for the rule itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from burnin.required_evidence import Site, judge_required
from burnin.rules.gpu_bus import judge_fabric, judge_nvlinks, judge_pcie_errors, judge_pcie_link
from burnin.rules.gpu_events import judge_gpu_events
from burnin.rules.gpu_memory_health import (
    judge_ecc_mode,
    judge_hbm_heat,
    judge_inforom,
    judge_row_remaps,
    judge_sram,
)
from burnin.rules.gpu_readings import GpuReadings
from burnin.rules.gpu_settings import (
    judge_memory_clock,
    judge_memory_in_use,
    judge_mig,
    judge_power_limit,
    judge_recovery_action,
)
from burnin.rules.log_health import judge_log_trouble
from probes.finding import Finding
from probes.kernel_log import find_trouble
from probes.platform import BARE_METAL

_COUNTERS = {
    "row_remap_failure": 0,
    "row_remap_pending": 0,
    "rows_remapped_uncorrected": 0,
    "sram_threshold_exceeded": 0,
    "sram_uncorrected": 0,
    "pcie_replays": 0,
    "pcie_fatal": 0,
    "fabric_state": 3,
    "fabric_health": 0x1AA,
    "recovery_action": 0,
    "power_limit_w": 700,
    "inforom_corrupt": 0,
}
_ROW = {"util_pct": 100, "pcie_generation": 5, "pcie_width": 16, "memory_clock_mhz": 2619}
_LINK = {"link": 0, "is_active": True, "recoveries": 0}
_HEALTHY = GpuReadings(
    gpu="GPU-1",
    run_s=60,
    identity={
        "pcie_generation_max": 5,
        "pcie_width_max": 16,
        "memory_clock_max_mhz": 2619,
        "power_default_limit_w": 700,
        "memory_max_c": 95,
        "ecc_mode": 1,
        "memory_bytes": 80 * 2**30,
        "memory_used_bytes": 2**29,
        "mig_mode": 0,
    },
    rows=[_ROW | {"memory_temperature_c": 70}] * 10,
    before=_COUNTERS,
    after=_COUNTERS,
    links_before=[_LINK],
    links_after=[_LINK],
)
_SXID = "nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 46 LTSSM Fault Up"


def sensor_faults() -> dict[str, Callable[[], Finding]]:
    """Return each seeded fault by name with the rule that must find it."""
    return {
        "row that could not be remapped": lambda: judge_row_remaps(_after(row_remap_failure=1)),
        "remapping pending": lambda: judge_row_remaps(_after(row_remap_pending=1)),
        "SRAM error": lambda: judge_sram(_after(sram_uncorrected=1)),
        "ECC switched off": lambda: judge_ecc_mode(_identity(ecc_mode=0)),
        "corrupt InfoROM": lambda: judge_inforom(_after(inforom_corrupt=1)),
        "event of NVML": lambda: judge_gpu_events(
            "GPU-1", [{"bit": 0x2, "data": 0}], bits=0xB, unavailable=None
        ),
        "hot memory": lambda: judge_hbm_heat(_rows(memory_temperature_c=99)),
        "half a PCIe link": lambda: judge_pcie_link(_rows(pcie_width=8)),
        "PCIe replays": lambda: judge_pcie_errors(_after(pcie_replays=10_000)),
        "fatal PCIe error": lambda: judge_pcie_errors(_after(pcie_fatal=1)),
        "inactive NVLink": lambda: _links(is_active=False),
        "recovered NVLink": lambda: _links(recoveries=1),
        "degraded fabric": lambda: judge_fabric(_after(fabric_health=0x1A9)),
        "reboot recommended": lambda: judge_recovery_action(_after(recovery_action=2)),
        "lowered power limit": lambda: judge_power_limit(_after(power_limit_w=500)),
        "slow memory clock": lambda: judge_memory_clock(_rows(memory_clock_mhz=1593)),
        "memory that somebody holds": lambda: judge_memory_in_use(_identity(memory_used_bytes=2**35)),
        "MIG": lambda: judge_mig(_identity(mig_mode=1)),
        "SXid in the kernel log": _sxid,
        "reading that never came": _missing,
    }


def _after(**changed: int) -> GpuReadings:
    return replace(_HEALTHY, after=_COUNTERS | changed)


def _identity(**changed: int) -> GpuReadings:
    return replace(_HEALTHY, identity=_HEALTHY.identity | changed)


def _rows(**changed: int) -> GpuReadings:
    return replace(_HEALTHY, rows=[_ROW | changed] * 10)


def _links(**changed: object) -> Finding:
    return judge_nvlinks(replace(_HEALTHY, links_after=[_LINK | changed]), links_expected=1)


def _sxid() -> Finding:
    trouble = find_trouble(_SXID)
    assert trouble is not None
    told = {"what": trouble.what, "severity": trouble.severity, "pci": trouble.pci, "text": trouble.text}
    return judge_log_trouble("h", [told], is_watched=True)[0]


def _missing() -> Finding:
    site = Site(
        board="NVIDIA H100 80GB HBM3",
        architecture="hopper",
        driver_major=580,
        platform=BARE_METAL,
        profile="quick",
    )
    return judge_required("GPU-1", site, set(), {})

"""Healthy machines for the twin of NVML: every GPU model, with drivers of three ages, as scenario lines."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.twins.nvml import SCENARIO_VARIABLE, SOURCE

LIBRARY = "libnvidia-ml.so.1"
FIRST_BUS = 0x10  # the twin's GPU N sits on bus 0x10 + N


@dataclass(frozen=True, kw_only=True)
class Driver:
    """A driver of some age: its version, and the calls that it does not have yet."""

    version: str
    absent: tuple[str, ...] = ()


DRIVERS = {
    535: Driver(
        version="535.183.01",
        absent=(
            "nvmlDeviceGetSramEccErrorStatus",
            "nvmlDeviceGetMarginTemperature",
            "nvmlDeviceGetGpuFabricInfoV",
        ),
    ),
    570: Driver(version="570.133.20"),
    580: Driver(version="580.82.07"),
}
# What tells one model from another; the twin's defaults are those of an H100 SXM.
MODELS: dict[str, dict[str, int | str]] = {
    "A100": {
        "name": "NVIDIA_A100-SXM4-80GB", "arch": 7, "default_limit_mw": 400_000, "sm_mhz": 1275,
        "sm_mhz_max": 1410, "mem_mhz_max": 1593, "nvlinks": 12, "pcie_gen_max": 4, "fabric": 0,
        "memory_mib": 81920,
    },
    "H100": {"name": "NVIDIA_H100_80GB_HBM3"},
    "H100-PCIe": {
        "name": "NVIDIA_H100_PCIe", "default_limit_mw": 350_000, "sm_mhz": 1395, "sm_mhz_max": 1755,
        "mem_mhz_max": 1593, "nvlinks": 0, "fabric": 0,
    },
    "H200": {"name": "NVIDIA_H200", "memory_mib": 143_771, "mem_mhz_max": 3201},
    "B200": {
        "name": "NVIDIA_B200", "arch": 10, "default_limit_mw": 1_000_000, "memory_mib": 183_359,
        "mem_mhz_max": 3996, "sm_mhz_max": 1965, "nvlink_mbps": 53_125,
    },
    "GB200": {
        "name": "NVIDIA_GB200", "arch": 10, "default_limit_mw": 1_200_000, "memory_mib": 189_471,
        "mem_mhz_max": 3996, "sm_mhz_max": 2062, "nvlink_mbps": 53_125,
    },
    "GB300": {
        "name": "NVIDIA_GB300", "arch": 10, "default_limit_mw": 1_400_000, "memory_mib": 284_208,
        "mem_mhz_max": 3996, "sm_mhz_max": 2032, "nvlink_mbps": 53_125,
    },
}  # fmt: skip


def build_driver(folder: Path, age: int) -> Path:
    """Compile the twin as a driver of some age; return the folder that holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    hidden = [f"-D{call}=absent_{call}" for call in DRIVERS[age].absent]
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-DWITH_VIOLATION", *hidden]
    subprocess.run(
        [*command, f"-Wl,-soname,{LIBRARY}", "-o", folder / LIBRARY, SOURCE], check=True, timeout=60
    )
    return folder


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine with the twin as its driver; faults are further lines of its scenario."""

    folder: Path
    library: Path
    model: str = "H100"
    age: int = 580
    gpus: int = 8

    @property
    def scenario(self) -> Path:
        """Return the file that the twin looks at."""
        return self.folder / "scenario"

    def write(self, *faults: str) -> None:
        """Make the machine healthy but for these lines, in one step."""
        lines = [f"gpus {self.gpus}", f"driver {DRIVERS[self.age].version}"]
        lines += [f"{key} {value}" for key, value in MODELS[self.model].items()]
        beside = self.scenario.with_suffix(".new")
        beside.write_text("\n".join([*lines, *faults, ""]))
        beside.replace(self.scenario)

    def environment(self) -> dict[str, str]:
        """Return what a process needs in its environment to find this machine's driver."""
        return {"LD_LIBRARY_PATH": str(self.library), SCENARIO_VARIABLE: str(self.scenario)}

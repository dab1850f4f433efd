"""Builds the twin of NVML and drives it: the real pynvml loads it in place of the driver's library."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")
SCENARIO_VARIABLE = "OVERPROOF_NVML_SCENARIO"


def uuid(index: int) -> str:
    """Return the UUID that the twin gives a GPU."""
    return f"GPU-00000000-0000-0000-0000-{index:012d}"


def build_twin(folder: Path, *, has_violation: bool = True) -> Path:
    """Compile the twin; without violation status it stands for a driver that lacks a call."""
    library = folder / "libnvidia-ml.so.1"
    switches = ["-DWITH_VIOLATION"] if has_violation else []
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", *switches]
    subprocess.run([*command, "-Wl,-soname,libnvidia-ml.so.1", "-o", library, SOURCE], check=True, timeout=60)
    return library


@dataclass(frozen=True)
class Scenario:
    """What the twin's GPUs do; changing it changes what the next call answers."""

    path: Path

    def set(self, **values: int) -> None:
        """Replace the scenario; ``temperature_1=91`` is about GPU 1 alone, ``temperature=60`` about all."""
        lines = [f"{_key(name)} {value}\n" for name, value in values.items()]
        beside = self.path.with_suffix(".new")
        beside.write_text("".join(lines))
        beside.replace(self.path)

    def environment(self, library: Path) -> dict[str, str]:
        """Return what a process needs in its environment to find the twin and its scenario."""
        return {"LD_LIBRARY_PATH": str(library.parent), SCENARIO_VARIABLE: str(self.path)}


def _key(name: str) -> str:
    head, _, tail = name.rpartition("_")
    return f"{head}.{tail}" if tail.isdigit() else name

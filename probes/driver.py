"""Prints the version of the NVIDIA driver as one JSON line: ``python -m probes.driver``, to be waited for.

A process of its own, since NVML blocks for ever where a GPU is dying.
"""

from __future__ import annotations

import json
import sys

from probes import nvml


def main() -> None:
    """Ask NVML once."""
    try:
        nvml.open_nvml()
        said = {"driver": nvml.read_driver_version()}
    except (nvml.LibraryAbsent, nvml.SensorError, nvml.Unsupported) as error:
        said = {"absent": f"NVML: {error}"}
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()

"""What travels to a host of a fleet: one zip of our modules and pynvml, always the same bytes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pynvml

from burnin.node_files import NODE_MODULES
from probes.archive import build_zip


@cache
def build_archive() -> bytes:
    """Return the archive; equal sources give equal bytes."""
    return build_zip(NODE_MODULES, {"pynvml.py": Path(pynvml.__file__).read_bytes()})

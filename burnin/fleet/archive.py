"""What travels to a host: one zip of our modules and pynvml, always the same bytes.

``python ARCHIVE MODULE ARGUMENT…`` runs one of the modules in it on the host's own Python.
"""

from __future__ import annotations

import io
import zipfile
from functools import cache
from pathlib import Path

import pynvml

from burnin.node_files import NODE_MODULES

_ROOT = Path(__file__).parent.parent.parent
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say
_MAIN = """\
import runpy
import sys

runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


@cache
def build_archive() -> bytes:
    """Return the archive; equal sources give equal bytes."""
    files = {"__main__.py": _MAIN.encode(), "pynvml.py": Path(pynvml.__file__).read_bytes()}
    for module in NODE_MODULES:
        path = source_of(module)
        files[str(path.relative_to(_ROOT))] = path.read_bytes()
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED, compresslevel=9)
    return held.getvalue()


def source_of(module: str) -> Path:
    """Return the file that a module of ours is written in."""
    path = _ROOT / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")

"""A zip of our modules that travels to another machine: equal sources give equal bytes.

``python ARCHIVE MODULE ARGUMENT…`` runs one of the modules in it on that machine's own Python.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say
_MAIN = """\
import runpy
import sys

runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def build_zip(modules: Iterable[str], others: Mapping[str, bytes] | None = None) -> bytes:
    """Return an archive of our modules and of other files by name."""
    files = {"__main__.py": _MAIN.encode(), **(others or {})}
    for module in modules:
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

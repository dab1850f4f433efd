"""A host whose arithmetic is broken: an interpreter of its own, whose torch multiplies rightly only twice."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

_SITE = """\
import importlib.abc, importlib.util, itertools, sys

class Spoiler(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            multiply, turn = module.mm, itertools.count(1)
            def mm(*operands, **more):
                product = multiply(*operands, **more)
                if next(turn) > 2:
                    product[0, 0] += 1
                return product
            module.mm = mm
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Spoiler())
"""


def bad_python(folder: Path) -> Path:
    """Make such an interpreter; it has all packages of ours."""
    own = Path(sys.executable).resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (packages / "sitecustomize.py").write_text(_SITE)
    (folder / "pyvenv.cfg").write_text(f"home = {own.parent}\n")
    (folder / "bin").mkdir()
    python = folder / "bin" / version
    python.symlink_to(own)
    return python

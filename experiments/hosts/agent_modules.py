"""What travels to a host that is to be broken, listed in this one place."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from probes.archive import build_zip

_PACKAGE = Path(__file__).parent.parent / "host_agent"


@cache
def build_agent() -> bytes:
    """Return the archive: the agent with every fault it knows, and what it needs of ``probes``."""
    files = sorted(_PACKAGE.glob("*.py")) + sorted((_PACKAGE / "faults").glob("*.py"))
    names = [file.relative_to(_PACKAGE.parent.parent).with_suffix("").as_posix() for file in files]
    modules = [name.replace("/", ".").removesuffix(".__init__") for name in names]
    return build_zip(["experiments", "probes", "probes.child", *modules])

"""The Pythons that this machine has."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path


def oldest_python() -> str:
    """Return Python 3.10 where this machine has it, else the Python under our own virtual environment."""
    found = [shutil.which("python3.10"), *sorted(Path.home().glob(".pyenv/versions/3.10*/bin/python3.10"))]
    for candidate in filter(None, found):
        if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return str(candidate)
    return str(getattr(sys, "_base_executable", sys.executable))

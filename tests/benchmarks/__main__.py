"""Prints the benchmarks as a Markdown table: ``make bench`` or ``python -m tests.benchmarks startup``."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_NOT_BENCHMARKS = {"__init__", "__main__", "figure", "own_network"}


def main(names: list[str]) -> None:
    """Print each figure of the named benchmarks; of all without names."""
    known = sorted(path.stem for path in _HERE.glob("*.py") if path.stem not in _NOT_BENCHMARKS)
    print(f"{os.cpu_count()} cores, Linux {os.uname().release}, Python {sys.version.split()[0]}\n")  # noqa: T201
    print("| benchmark | figure | median | unit | repeats | beside |\n|---|---|---|---|---|---|")  # noqa: T201
    for name in names or known:
        for figure in importlib.import_module(f"tests.benchmarks.{name}").figures():
            cells = (
                name,
                figure.name,
                f"{figure.median:.3g}",
                figure.unit,
                str(figure.repeats),
                figure.beside,
            )
            print("| " + " | ".join(cells) + " |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])

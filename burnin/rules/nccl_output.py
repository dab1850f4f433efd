"""What a program of nccl-tests prints: the table, size by size, and on which GPUs.

Its last lines hold a mean over all sizes, which is no figure of anything: it changes with the range.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

OUT_OF_PLACE, IN_PLACE = "out of place", "in place"
_DEVICE = re.compile(r"^#\s+Rank\s+\d+\b.*\[(?:0x)?([0-9a-fA-F:]+)\]", re.MULTILINE)
_WRONG = re.compile(r"^#\s*Out of bounds values\s*:\s*(\d+)", re.MULTILINE)
_REDUCED = re.compile(r"Reducing maxBytes to (\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One size, in one of the two ways."""

    busbw_gbps: float
    wrong: float | None  # elements; None: results were not checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One size."""

    size_bytes: int
    out_of_place: Cell | None  # None: this collective has no such way, or it was not measured
    in_place: Cell | None

    def cells(self) -> dict[str, Cell]:
        """Return what was measured, by way."""
        both = {OUT_OF_PLACE: self.out_of_place, IN_PLACE: self.in_place}
        return {way: cell for way, cell in both.items() if cell is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """All sizes of one program."""

    rows: tuple[Row, ...]
    devices: tuple[str, ...]  # where they sit on the bus, as printed
    counts_wrong: bool  # older versions print an error where newer ones count wrong elements
    wrong_in_all: int | None  # the count at the end; None: it did not come to that
    reduced_to: int | None  # the program's own, smaller limit; None: as asked


def read_sweep(text: str) -> Sweep:
    """Read the table, as far as it goes.

    Raises:
        ValueError: there is none.
    """
    if not text.strip():
        raise ValueError("it printed nothing")
    rows = [row for line in text.splitlines() if (row := _row(line)) is not None]
    if not rows:
        raise ValueError(f"no table: {text.strip().splitlines()[-1]:.160}")
    wrong, reduced = _WRONG.search(text), _REDUCED.search(text)
    return Sweep(
        rows=tuple(rows),
        devices=tuple(_DEVICE.findall(text)),
        counts_wrong="#wrong" in text,
        wrong_in_all=int(wrong[1]) if wrong else None,
        reduced_to=int(reduced[1]) if reduced else None,
    )


def _row(line: str) -> Row | None:
    """Read a line of the table: size and what is reduced on the left, twice four figures on the right."""
    parts = line.split()
    if len(parts) not in (12, 13) or not (parts[0].isdigit() and parts[1].isdigit()):
        return None
    try:
        return Row(size_bytes=int(parts[0]), out_of_place=_cell(parts[-8:-4]), in_place=_cell(parts[-4:]))
    except ValueError:
        return None  # torn, or the line of something else


def _cell(parts: list[str]) -> Cell | None:
    if parts[2] == "N/A":
        return None
    return Cell(busbw_gbps=float(parts[2]), wrong=None if parts[3] == "N/A" else float(parts[3]))

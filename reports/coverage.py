"""How much of what really breaks can be found, can be brought about, and was shown to be found or healed.

Pure: declarations and what runs have shown go in, shares of each published table come out. Strict where it
has to decide: a cause that may be one of several categories counts only when all of them are covered, one
that its source does not break down never does, and a synthetic signal shows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from probes.detectors import IN_SERVICE, Detects
from probes.failure_categories import FailureCategories, Row, Table

# How near to the real thing, the weakest first; only what comes after the first shows anything.
LADDER = {
    "S": "synthetic signal",
    "P": "process",
    "N": "network",
    "K": "Kubernetes",
    "H": "hardware knob",
}
SYNTHETIC = "S"


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """A way to bring a category about."""

    category: str
    fault: str
    fidelity: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A fault of a category that was there in a run, and was found there, or healed."""

    category: str
    fault: str
    fidelity: str
    how: str  # "found by detection", "healed by the lab's supervisor"
    run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryCoverage:
    """What there is for one category."""

    id: str
    title: str
    detectors: tuple[Detects, ...]
    injections: tuple[Injection, ...]
    shown: tuple[Shown, ...]  # above S only

    @property
    def is_found_in_service(self) -> bool:
        """Whether something finds it while it does work."""
        return any(found.when == IN_SERVICE for found in self.detectors)

    @property
    def fidelities(self) -> str:
        """The rungs of the ladder on which it can be brought about, such as ``SP``."""
        return "".join(rung for rung in LADDER if any(i.fidelity == rung for i in self.injections))

    @property
    def shown_at(self) -> str:
        """The rungs on which it was shown."""
        return "".join(rung for rung in LADDER if any(s.fidelity == rung for s in self.shown))


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCoverage:
    """One published cause."""

    row: Row
    categories: tuple[CategoryCoverage, ...]

    def all_have(self, has: Callable[[CategoryCoverage], object]) -> bool:
        """Say whether it is broken down, and each category that it may be has something."""
        return bool(self.categories) and all(has(category) for category in self.categories)

    @property
    def is_detectable(self) -> bool:
        """Whether each of its categories can be found by something."""
        return self.all_have(lambda category: category.detectors)

    @property
    def is_detectable_in_service(self) -> bool:
        """Whether each of its categories can be found while it does work."""
        return self.all_have(lambda category: category.is_found_in_service)

    @property
    def is_injectable(self) -> bool:
        """Whether each of its categories can be brought about."""
        return self.all_have(lambda category: category.fidelities)

    def is_injectable_at(self, rung: str) -> bool:
        """Say whether each of its categories can be brought about at this fidelity."""
        return self.all_have(lambda category: rung in category.fidelities)

    @property
    def is_injectable_above_s(self) -> bool:
        """Whether each of its categories can be brought about by more than a synthetic signal."""
        return self.all_have(lambda category: category.fidelities.replace(SYNTHETIC, ""))

    @property
    def is_shown(self) -> bool:
        """Whether each of its categories was found or healed in the runs."""
        return self.all_have(lambda category: category.shown)

    @property
    def fidelities(self) -> str:
        """The rungs on which all of its categories can be brought about."""
        return "".join(rung for rung in LADDER if self.is_injectable_at(rung))


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCoverage:
    """One published table, the gaps first."""

    table: Table
    rows: tuple[RowCoverage, ...]

    def count(self, has: Callable[[RowCoverage], bool]) -> float:
        """Return how many of the table's incidents are in rows that have something."""
        return sum(row.row.count for row in self.rows if has(row))

    def share(self, has: Callable[[RowCoverage], bool]) -> float:
        """Return the same as a share of all."""
        return self.count(has) / self.table.total

    def injectable_by_rung(self) -> dict[str, float]:
        """Return the share that can be brought about at each fidelity."""
        return {rung: self.share(partial(RowCoverage.is_injectable_at, rung=rung)) for rung in LADDER}

    @property
    def shown_share(self) -> float:
        """The headline: what was found or healed in the runs, above S."""
        return self.share(lambda row: row.is_shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """All of it."""

    tables: tuple[TableCoverage, ...]
    categories: tuple[CategoryCoverage, ...]  # the gaps first
    runs: tuple[str, ...]  # that count
    not_counted: tuple[str, ...]  # runs that do not, each with the reason


def compute_coverage(
    known: FailureCategories,
    *,
    detects: Iterable[Detects],
    injections: Iterable[Injection],
    shown: Iterable[Shown] = (),
    runs: Sequence[str] = (),
    not_counted: Sequence[str] = (),
) -> Coverage:
    """Return the coverage of every table, and of every category."""
    found, ways = list(detects), [i for i in injections if i.fidelity in LADDER]
    seen = [s for s in shown if s.fidelity in LADDER and s.fidelity != SYNTHETIC]
    categories = {
        name: CategoryCoverage(
            id=name,
            title=title,
            detectors=tuple(d for d in found if d.category == name),
            injections=tuple(i for i in ways if i.category == name),
            shown=tuple(s for s in seen if s.category == name),
        )
        for name, title in known.titles.items()
    }
    return Coverage(
        tables=tuple(_of_table(table, categories) for table in known.tables),
        categories=tuple(sorted(categories.values(), key=_gap)),
        runs=tuple(runs),
        not_counted=tuple(not_counted),
    )


def _of_table(table: Table, categories: dict[str, CategoryCoverage]) -> TableCoverage:
    rows = [
        RowCoverage(row=row, categories=tuple(categories[c] for c in row.categories)) for row in table.rows
    ]
    return TableCoverage(table=table, rows=tuple(sorted(rows, key=_row_gap)))


def _gap(category: CategoryCoverage) -> int:
    """Return how much there is of a category: what there is nothing for comes first."""
    return 4 * bool(category.shown) + 2 * bool(category.detectors) + bool(category.injections)


def _row_gap(row: RowCoverage) -> tuple[int, float]:
    return 4 * row.is_shown + 2 * row.is_detectable + row.is_injectable, -row.row.count

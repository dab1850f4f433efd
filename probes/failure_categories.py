"""Categories of what breaks in AI clusters, and the published tables of how often each does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from pydantic import Field, model_validator

from probes.errors import ConfigError
from probes.spec import Spec, load_spec

FILE = Path(__file__).parent / "failure_categories.yaml"
ROUNDING = 0.5  # by which shares that were rounded by their source may miss the total


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One published cause; without categories nobody has said what is in it."""

    cause: str
    count: float
    categories: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What one source has counted."""

    id: str
    title: str
    source: str
    unit: str
    total: float
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureCategories:
    """The categories by id, in words, and the tables."""

    titles: dict[str, str]
    tables: tuple[Table, ...]

    def unknown(self, ids: tuple[str, ...]) -> list[str]:
        """Return those ids that are no category."""
        return [name for name in ids if name not in self.titles]

    def only(self, name: str) -> FailureCategories:
        """Return the same with one table.

        Raises:
            ConfigError: there is no such table.
        """
        tables = tuple(table for table in self.tables if table.id == name)
        if not tables:
            raise ConfigError(f"table {name!r} is unknown; one of {', '.join(t.id for t in self.tables)}")
        return replace(self, tables=tables)


class RowSpec(Spec):
    """One row of a table in the file."""

    cause: str = Field(min_length=1)
    count: float = Field(gt=0)
    categories: tuple[str, ...]


class TableSpec(Spec):
    """One table in the file."""

    title: str = Field(min_length=1)
    source: str = Field(min_length=1, description="Where it was published.")
    unit: str = Field(min_length=1)
    total: float = Field(gt=0)
    exact: bool = Field(description="Whether the counts add up to the total exactly.")
    rows: tuple[RowSpec, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _adds_up(self) -> TableSpec:
        told = sum(row.count for row in self.rows)
        if abs(told - self.total) > (1e-9 if self.exact else ROUNDING):
            raise ValueError(f"the rows add up to {told:g}, and the total is {self.total:g}")
        return self

    def to_table(self, name: str) -> Table:
        """Return the table."""
        rows = tuple(Row(cause=r.cause, count=r.count, categories=r.categories) for r in self.rows)
        return Table(
            id=name, title=self.title, source=self.source, unit=self.unit, total=self.total, rows=rows
        )


class FailureCategoriesSpec(Spec):
    """The whole file."""

    categories: dict[str, str]
    tables: dict[str, TableSpec]

    @model_validator(mode="after")
    def _are_known(self) -> FailureCategoriesSpec:
        for name, table in self.tables.items():
            for row in table.rows:
                if unknown := [c for c in row.categories if c not in self.categories]:
                    raise ValueError(f"{name}: {row.cause}: no such category: {', '.join(unknown)}")
                if len(set(row.categories)) < len(row.categories):
                    raise ValueError(f"{name}: {row.cause}: a category stands there twice")
        return self

    def to_categories(self) -> FailureCategories:
        """Return categories and tables."""
        tables = tuple(table.to_table(name) for name, table in self.tables.items())
        return FailureCategories(titles=dict(self.categories), tables=tables)


def load_failure_categories(path: Path) -> FailureCategories:
    """Read a file of categories and tables.

    Raises:
        ConfigError: a row names an unknown category, or counts do not add up, or a source is missing.
    """
    return load_spec(path, FailureCategoriesSpec).to_categories()


@cache
def failure_categories() -> FailureCategories:
    """Return the categories and tables that come with overproof."""
    return load_failure_categories(FILE)

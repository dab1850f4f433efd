"""The published tables add up and name their sources; a file that does not is refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from experiments.faults.fault import FAULTS, load_fault
from probes.errors import ConfigError
from probes.failure_categories import FILE, failure_categories, load_failure_categories
from probes.json_types import JsonObject


def test_llama_3s_419_interruptions_are_all_there_and_all_mapped() -> None:
    table = next(table for table in failure_categories().tables if table.id == "llama3")

    assert sum(row.count for row in table.rows) == table.total == 419
    assert [row.cause for row in table.rows if not row.categories] == []
    assert [row.count for row in table.rows if "GPU" in row.cause] == [148, 72, 19, 17, 6]


def test_what_a_source_does_not_break_down_belongs_to_no_category() -> None:
    shares = {
        table.id: sum(row.count for row in table.rows if not row.categories)
        for table in failure_categories().tables
    }

    assert shares == {"llama3": 0, "byterobust": pytest.approx(32.7), "microsoft": 76}


def test_every_table_says_where_it_comes_from() -> None:
    assert all("arXiv:" in table.source for table in failure_categories().tables)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_names_known_categories_only(name: str) -> None:
    fault = load_fault(name)

    assert failure_categories().unknown(fault.covers) == []
    assert fault.covers or name == "declared", "a fault that brings nothing about covers nothing"


def written(tmp_path: Path, change: object) -> Path:
    document: JsonObject = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    change(document["tables"]["llama3"])  # type: ignore[operator]
    path = tmp_path / "categories.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table["rows"].pop(), "add up to 417, and the total is 419"),
        (lambda table: table["rows"][0]["categories"].append("gpu-lots"), "no such category: gpu-lots"),
        (lambda table: table["rows"][1]["categories"].append("gpu-memory"), "stands there twice"),
        (lambda table: table.pop("source"), "source: this key is missing"),
        (lambda table: table["rows"][0].pop("categories"), "categories: this key is missing"),
    ],
)
def test_a_table_that_is_not_right_is_refused_with_the_reason(
    tmp_path: Path, change: object, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        load_failure_categories(written(tmp_path, change))

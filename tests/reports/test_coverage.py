"""Coverage is strict: what is not known, not all there, or only a synthetic signal never counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from probes.detectors import AT_ACCEPTANCE, IN_SERVICE, Detects
from probes.failure_categories import FailureCategories, Row, Table, failure_categories
from reports.coverage import Coverage, Injection, Shown, compute_coverage
from reports.coverage_text import LEGEND, NOTHING_RAN, WIDTH, coverage_document, render_lines

ROWS = (
    Row(cause="hangs", count=50, categories=("hang",)),
    Row(cause="GPU or link", count=30, categories=("gpu-lost", "nvlink")),
    Row(cause="nobody knows", count=20, categories=()),
)
KNOWN = FailureCategories(
    titles={"hang": "a hang", "gpu-lost": "a lost GPU", "nvlink": "a link"},
    tables=(Table(id="t", title="A table", source="s", unit="incidents", total=100, rows=ROWS),),
)
HANG = Injection(category="hang", fault="replica.hang", fidelity="P")


def found(category: str, when: str = AT_ACCEPTANCE) -> Detects:
    return Detects(category=category, detector="burnin: x", when=when, by="x")  # type: ignore[arg-type]


def shown(category: str, fidelity: str = "P", run: str = "run-1") -> Shown:
    return Shown(
        category=category, fault="replica.hang", fidelity=fidelity, how="found by detection", run=run
    )


def covered(
    detects: tuple[Detects, ...] = (), injections: tuple[Injection, ...] = (), seen: tuple[Shown, ...] = ()
) -> Coverage:
    runs = sorted({one.run for one in seen})
    return compute_coverage(KNOWN, detects=detects, injections=injections, shown=seen, runs=runs)


def test_without_anything_all_of_it_is_a_gap() -> None:
    (table,) = covered().tables

    assert table.shown_share == 0
    assert [row.row.cause for row in table.rows] == ["hangs", "GPU or link", "nobody knows"]
    assert not any(row.is_detectable or row.is_injectable or row.is_shown for row in table.rows)


def test_a_cause_that_may_be_one_of_two_counts_when_both_are_covered() -> None:
    (half,) = covered((found("gpu-lost"),)).tables
    (whole,) = covered((found("gpu-lost"), found("nvlink"))).tables

    assert half.share(lambda row: row.is_detectable) == 0
    assert whole.share(lambda row: row.is_detectable) == pytest.approx(0.3)


def test_a_cause_that_is_not_broken_down_never_counts() -> None:
    every = tuple(found(name, IN_SERVICE) for name in KNOWN.titles)
    ways = tuple(replace(HANG, category=name) for name in KNOWN.titles)
    (table,) = covered(every, ways, tuple(shown(name) for name in KNOWN.titles)).tables

    assert table.shown_share == pytest.approx(0.8)
    assert table.share(lambda row: row.is_detectable) == table.share(lambda row: row.is_injectable) == 0.8


def test_a_synthetic_signal_shows_nothing_and_so_does_a_fault_without_a_place_on_the_ladder() -> None:
    (table,) = covered(seen=(shown("hang", "S"), shown("hang", "declared"))).tables
    (real,) = covered(seen=(shown("hang", "P"),)).tables

    assert table.shown_share == 0
    assert real.shown_share == 0.5


def test_what_can_be_brought_about_is_told_by_fidelity() -> None:
    ways = (
        HANG,
        replace(HANG, category="gpu-lost", fidelity="S"),
        replace(HANG, category="nvlink", fidelity="H"),
        replace(HANG, category="hang", fidelity="declared"),
    )
    (table,) = covered(injections=ways).tables

    assert table.injectable_by_rung() == {"S": 0, "P": 0.5, "N": 0, "K": 0, "H": 0}
    assert table.count(lambda row: row.is_injectable) == 80
    assert table.count(lambda row: row.is_injectable_above_s) == 50


def test_found_in_service_is_told_apart_from_found_at_acceptance() -> None:
    (table,) = covered((found("hang", IN_SERVICE), found("gpu-lost", IN_SERVICE), found("nvlink"))).tables

    assert table.count(lambda row: row.is_detectable) == 80
    assert table.count(lambda row: row.is_detectable_in_service) == 50


def test_the_gaps_come_first() -> None:
    coverage = covered((found("hang"), found("gpu-lost")), (HANG,), (shown("hang"),))

    assert [category.id for category in coverage.categories] == ["nvlink", "gpu-lost", "hang"]
    assert [row.row.cause for row in coverage.tables[0].rows] == ["GPU or link", "nobody knows", "hangs"]


def test_the_text_names_the_rule_for_causes_that_may_be_several_and_fits_80_columns() -> None:
    coverage = compute_coverage(
        failure_categories(),
        detects=(found("hang", IN_SERVICE),),
        injections=(HANG,),
        shown=(shown("hang", run="run-1"), shown("hang", run="run-2")),
        runs=("run-1", "run-2"),
        not_counted=("run-3: " + "nobody has judged it; overproof judge runs/run-3 " * 3,),
    )
    lines = list(render_lines(coverage))

    assert max(len(line) for line in lines) <= WIDTH
    assert "counts when all of them are covered" in LEGEND
    assert "  hang: replica.hang (P): found by detection; 2 runs" in lines
    assert any(line.startswith("  not counted: run-3") for line in lines)
    assert NOTHING_RAN not in lines
    assert NOTHING_RAN in list(render_lines(covered()))


def test_the_document_says_the_same() -> None:
    document = coverage_document(covered((found("hang"),), (HANG,), (shown("hang"),)))
    (table,) = document["tables"]

    assert (table["shown_share"], table["detectable_share"], table["injectable_share"]) == (0.5, 0.5, 0.5)
    assert table["rows"][-1]["is_shown"] is True
    assert document["categories"][-1]["shown"][0]["run"] == "run-1"

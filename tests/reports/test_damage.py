"""Each table of a record cut off in turn, for each kind of run: the report shows the rest and names it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from probes.finding import Finding
from probes.outcome import Outcome
from reports.publish import publish
from reports.run import Run, load_run
from reports.session import rejudge
from reports.table import read_series, seal
from tests.reports.every_kind import KINDS, record

PARTS = ("series", "requests")


def parts_of(folder: Path) -> list[Path]:
    return sorted(path for name in PARTS for path in folder.rglob(f"{name}/*.parquet"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_that_was_cut_off_costs_a_report_that_part_alone_and_is_named(
    kind: str, tmp_path: Path
) -> None:
    folder = record(kind, tmp_path).path
    seal(folder)
    parts = parts_of(folder)

    assert parts
    for part in parts:
        whole = part.read_bytes()
        part.write_bytes(whole[: len(whole) // 2])
        publish(load_run(folder))
        page = (folder / "report.html").read_text()
        assert "cannot be read" in page, part
        assert (part.name if part.parent.name == "series" else "requests") in page, part
        assert "^^^" not in page, part
        part.write_bytes(whole)


def test_of_several_series_only_the_broken_one_is_missing_on_the_timeline(tmp_path: Path) -> None:
    folder = record("burnin", tmp_path).path
    other = next(part for part in parts_of(folder) if part.stem != "gpu")
    os.truncate(other, 10)
    publish(load_run(folder))

    assert "<b>Temperature</b>" in (folder / "report.html").read_text()


def test_a_rule_that_meets_a_part_it_cannot_read_names_the_part_and_what_to_do(tmp_path: Path) -> None:
    run = record("burnin", tmp_path)
    part = run.path / "series" / "gpu.parquet"
    os.truncate(part, 10)

    def judge(judged: Run) -> list[Finding]:
        read_series(judged, "gpu")
        return []

    [judging] = [finding for finding in rejudge(run, judge) if finding.rule == "judging"]
    assert judging.outcome is Outcome.INCONCLUSIVE
    assert judging.observed.startswith(f"{part}: cannot be read: ")
    assert "^^^" not in judging.observed
    assert judging.next_step == "put that file back from a copy of the record, or run it again"

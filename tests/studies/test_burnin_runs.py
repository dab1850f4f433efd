"""The second part of the study: what it counts, and that each part leaves the other's table alone."""

from __future__ import annotations

from pathlib import Path

from tests.studies.burnin import RUNS_HEADING, write_part
from tests.studies.burnin_runs import FAULTS, End, Tally, render


def _end(exit_code: int, *failed: str, has_happened: bool = True) -> End:
    return End(exit_code=exit_code, failed=frozenset(failed), undecided=(), has_happened=has_happened)


def test_a_run_counts_as_right_only_if_the_guilty_subject_fails_and_as_wrong_if_another_does() -> None:
    tally = Tally(name="a fault", is_real="")
    for end in (_end(1, "gpu:1"), _end(1, "gpu:1", "gpu:2"), _end(1, "gpu:2"), _end(0)):
        tally.add(end, "gpu:1")

    assert (tally.runs, tally.found, tally.right, tally.wrong) == (4, 3, 2, 2)
    assert len(tally.told) == 3
    assert not tally.holds


def test_a_fault_whose_time_did_not_come_is_neither_found_nor_missed() -> None:
    tally = Tally(name="a fault", is_real="")
    tally.add(_end(1, "gpu:1"), "gpu:1")
    tally.add(_end(0, has_happened=False), "gpu:1")

    assert (tally.runs, tally.void, tally.right, tally.told) == (2, 1, 1, [])
    assert tally.holds


def test_a_healthy_run_that_is_undecided_did_not_pass_and_is_told() -> None:
    tally = Tally(name="healthy run", is_real="")
    tally.add(_end(3), None)

    assert (tally.passed, tally.wrong, len(tally.told)) == (0, 0, 1)


def test_each_part_of_the_study_replaces_its_own_table_alone(tmp_path: Path) -> None:
    report = tmp_path / "burnin.md"
    tallies = [
        *(Tally(name=fault.name, is_real=fault.is_real) for fault in FAULTS),
        Tally(name="", is_real=""),
    ]
    write_part(report, records="# Study\n\nold\n")
    write_part(report, runs=render(tallies, command="runs", took_s=60, jobs=2))
    write_part(report, records="# Study\n\nnew\n")

    text = report.read_text()
    assert text.startswith(f"# Study\n\nnew\n\n{RUNS_HEADING}\n")
    assert text.count(RUNS_HEADING) == 1
    assert all(fault.name in text for fault in FAULTS)

"""Which kinds of failure a run looked for, and what its rules came to."""

from __future__ import annotations

from pathlib import Path

from probes.failure_categories import failure_categories
from probes.outcome import Outcome
from reports.record import create_run
from reports.run import Run, load_run
from reports.run_coverage import NO_SIGN, SIGNS_OF_IT, UNDECIDED, read_coverage
from tests.reports.recorded import finding, game_day


def burn_in(out: Path, **outcomes: Outcome | None) -> Run:
    with create_run(out, kind="burnin", spec={}, seed=0) as writer:
        writer.write_findings([finding(rule, "device:x", outcome) for rule, outcome in outcomes.items()])
    return load_run(writer.path)


def words(run: Run) -> dict[str, str]:
    coverage = read_coverage(run)
    assert coverage is not None
    titles = [row.title for row in coverage.looked_for] + list(coverage.not_looked_for)
    assert sorted(titles) == sorted(failure_categories().titles.values())
    return {row.category: row.word for row in coverage.looked_for}


def test_a_rule_that_judged_has_looked_for_what_it_declares(tmp_path: Path) -> None:
    assert words(burn_in(tmp_path, ecc=Outcome.PASS)) == {"gpu-memory": NO_SIGN}


def test_one_that_was_not_applicable_has_not(tmp_path: Path) -> None:
    assert words(burn_in(tmp_path, ecc=None)) == {}


def test_one_that_could_not_decide_leaves_it_undecided_whatever_others_saw(tmp_path: Path) -> None:
    run = burn_in(tmp_path, ecc=Outcome.INCONCLUSIVE, memory=Outcome.PASS)

    assert words(run) == {"gpu-memory": UNDECIDED}


def test_one_that_failed_has_seen_signs_of_it(tmp_path: Path) -> None:
    run = burn_in(tmp_path, ecc=Outcome.FAIL, memory=Outcome.PASS)

    assert words(run) == {"gpu-memory": SIGNS_OF_IT}


def test_a_game_day_that_was_noticed_says_nothing_of_the_other_kinds_of_failure(tmp_path: Path) -> None:
    assert read_coverage(game_day(tmp_path)) is None


def test_nothing_is_said_of_a_run_that_nobody_judged(tmp_path: Path) -> None:
    assert read_coverage(load_run(create_run(tmp_path, kind="burnin", spec={}, seed=0).path)) is None

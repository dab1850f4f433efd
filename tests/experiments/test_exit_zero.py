"""Where Chaos Toolkit exits 0 though something went wrong, and what a game day says there.

Each situation in which it was measured to exit 0 without a success is one test here, or is named with the
test that has it. Also: what an experiment becomes that was written for plain Chaos Toolkit.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from experiments.injecting.ledger import UNDONE, read_ledger
from probes.outcome import Outcome
from reports.run import load_run
from tests.experiments.test_chaos_child import activity
from tests.experiments.test_gameday import Day, end_of, write_experiment
from tests.processes import start_job

pytestmark = pytest.mark.timeout(900)  # days of half a minute, on a machine that others keep busy

# The other rows, which have no whole day of their own here:
#   fault action raised: test_gameday.test_a_fault_that_was_never_injected_is_not_a_pass
#   SIGTERM while a Python action runs: test_chaos_child.test_a_stop_inside_an_action_lets_no…
#   time-out of a Python provider ignored: test_chaos_child.test_a_python_action_that_overruns…
GATE, BREACH, ROLLBACK, PLAIN = "gate", "breach", "rollback", "plain"
PASSED = {"type": "regex", "target": "outcome", "pattern": "^pass$"}


def write_days(folders: dict[str, Path]) -> dict[str, list[str]]:
    """Write each row's experiment; return the arguments that run it."""
    paths = {name: write_experiment(folder) for name, folder in folders.items()}
    documents = {name: yaml.safe_load(path.read_text()) for name, path in paths.items()}
    never = activity("replicas_serve", type="probe", replicas_min=99) | {"tolerance": PASSED}
    documents[GATE]["steady-state-hypothesis"]["probes"] = [never]
    errors = activity("answer_with_errors", for_s=3)  # it ends by itself: afterwards all is well
    waiting = activity("replicas_recovered", type="probe", within_s=1)
    documents[BREACH]["method"] = [errors, waiting | {"pauses": {"before": 4}}]
    documents[BREACH]["runtime"] = {"hypothesis": {"strategy": "continuously"}}
    documents[ROLLBACK]["method"] = [activity("delay_requests", latency_s=0.2, for_s=30)]
    documents[ROLLBACK]["rollbacks"] = [activity("kill_replica", replica="replica-9")]
    del documents[PLAIN]["extensions"]
    for name, path in paths.items():
        path.write_text(yaml.safe_dump(documents[name]))
    return {name: ["gameday", "run", str(path)] for name, path in paths.items()}


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Day]:
    folders = {name: tmp_path_factory.mktemp(name) for name in (GATE, BREACH, ROLLBACK, PLAIN)}
    jobs = {name: start_job(words, folders[name]) for name, words in write_days(folders).items()}
    return {name: end_of(job, folders[name]) for name, job in jobs.items()}


def journal_of(day: Day) -> tuple[str, bool]:
    journal = json.loads((day.run.path / "journal.json").read_text())
    return journal["status"], journal["deviated"]


def test_gate_out_of_tolerance_so_the_method_never_ran(days: dict[str, Day]) -> None:
    day = days[GATE]

    assert journal_of(day) == ("completed", False)
    assert (day.status, day.run.outcome) == (3, Outcome.INCONCLUSIVE), day.log
    assert "the gate did not hold" in day.finding("fault").observed


def test_promises_broken_while_the_fault_lasted_and_kept_again_later(days: dict[str, Day]) -> None:
    day = days[BREACH]
    broken = {f.subject for f in day.run.findings if f.rule == "slo" and f.outcome is Outcome.FAIL}

    assert journal_of(day) == ("completed", False)
    assert (day.status, day.run.outcome) == (1, Outcome.FAIL), day.log
    assert "slo:goodput@during" in broken
    assert not any(subject.endswith("@after") for subject in broken)


def test_the_load_of_such_a_day_leaves_its_promises_to_the_phases_of_the_day(days: dict[str, Day]) -> None:
    load = load_run(days[BREACH].run.path / "load")

    assert {f.outcome for f in load.findings if f.rule in ("slo", "errors")} == {None}
    assert load.outcome is not Outcome.FAIL
    assert "of a game day" in (load.path / "summary.md").read_text().splitlines()[0]


def test_a_rollback_that_fails(days: dict[str, Day]) -> None:
    day = days[ROLLBACK]
    (entry,) = read_ledger(day.run.path)

    assert journal_of(day) == ("completed", False)
    assert day.status in (1, 3), day.log
    assert day.run.outcome is not Outcome.PASS
    assert day.finding("method").outcome is Outcome.INCONCLUSIVE
    assert (entry.state, entry.detail["by"]) == (UNDONE, "controller")


def test_an_experiment_for_plain_chaos_toolkit_runs_unchanged_and_stays_undecided(
    days: dict[str, Day],
) -> None:
    day = days[PLAIN]

    assert journal_of(day) == ("completed", False)
    assert (day.status, day.run.outcome) == (3, Outcome.INCONCLUSIVE), day.log
    assert day.finding("fault").outcome is Outcome.PASS
    assert day.finding("undo").outcome is Outcome.PASS
    assert {f.outcome for f in day.run.findings if f.rule == "traffic"} == {Outcome.INCONCLUSIVE}
    assert not [f for f in day.run.findings if f.rule == "slo"]

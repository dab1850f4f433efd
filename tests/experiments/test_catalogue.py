"""The shipped experiments: each is sound, hits what it says and puts it back; whole days of some of them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from experiments import actions
from experiments.catalogue_list import read_catalogue
from experiments.experiment import load_experiment
from experiments.faults.fault import PLATFORM
from experiments.faults.victims import SERVING_TIMEOUT_S
from experiments.lab.control import Lab
from experiments.plan import HARMLESS, resolve_plan
from probes.json_types import JsonObject
from tests.experiments.labs import running_lab
from tests.studies.gameday_days import CATALOGUE, HEALTHY, UNHEALED, drawn, healable, one_day, render

pytestmark = pytest.mark.timeout(900)  # days of half a minute, on a machine that others keep busy

LISTED = {entry.path.stem: entry for entry in read_catalogue()}
FILES = sorted(CATALOGUE.glob("*.yaml"))
STEADY_S = AFTER_S = 5


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("catalogue") / "lab") as running:
        yield running


def document_of(path: Path) -> JsonObject:
    return dict(yaml.safe_load(path.read_text()))


def breaking(document: JsonObject) -> list[str]:
    called = [a["provider"]["func"] for a in document["method"] if a["type"] == "action"]
    return [name for name in called if name not in HARMLESS]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_is_sound_guarded_and_has_one_target(path: Path, lab: Lab) -> None:
    experiment, document = load_experiment(path), document_of(path)
    (target,) = resolve_plan(experiment, lab.folder, seed=1).targets
    (rollback,) = document["rollbacks"]

    assert f"overproof gameday run experiments/catalogue/local/{path.name}" in path.read_text()
    assert [one.fault for one in LISTED[path.stem].breaks] == [target.fault]
    assert target.share <= (experiment.max_share or 0.5) or not target.victims
    assert experiment.guards or path.stem == "replica-kill"
    assert ("heals" in document["tags"]) == (target.ends_by == PLATFORM)
    assert rollback["provider"]["func"] == (
        "restore_replicas" if target.ends_by == PLATFORM else "undo_faults"
    )


@pytest.mark.parametrize("path", healable(), ids=lambda path: path.stem)
def test_undoing_waits_until_the_lab_has_had_its_time_to_heal(path: Path) -> None:
    experiment = load_experiment(path)
    action, probe = experiment.document["method"]
    took_s = {"interrupt_spot_replica": 10, "restart_all_in_turn": SERVING_TIMEOUT_S}  # before it waits

    waited_s = probe["provider"]["arguments"]["within_s"] + took_s.get(action["provider"]["func"], 0)

    assert probe["provider"]["func"] == "replicas_recovered"
    assert waited_s > experiment.recovery_s


def test_every_fault_of_the_lab_has_an_experiment_and_each_experiment_one_fault() -> None:
    functions = inspect.getmembers(actions, inspect.isfunction)
    ours = {
        name
        for name, function in functions
        if function.__module__ == actions.__name__ and not name.startswith("_") and name not in HARMLESS
    }
    used = [name for path in FILES for name in breaking(document_of(path))]

    assert sorted(used) == sorted(ours)


def test_the_study_draws_every_experiment_that_heals_and_the_same_ones_again() -> None:
    days = [(kind, number) for kind in (HEALTHY, UNHEALED) for number in range(1, 51)]

    assert {path.stem for path in healable()} >= {"replica-kill", "replica-hang"}
    assert {drawn(*day) for day in days} == set(healable())
    assert [drawn(*day) for day in days] == [drawn(*day) for day in days]


def shortened(name: str, folder: Path, *, heal_s: float | None = None) -> Path:
    """A copy with shorter times: keys of the extension, as the reference has them.

    ``heal_s`` is what the platform gets, where it will not heal however long that is.
    """
    document = document_of(CATALOGUE / f"{name}.yaml")
    if heal_s is not None:
        document["extensions"][0]["recovery_s"] = heal_s
        document["method"][1]["provider"]["arguments"]["within_s"] = heal_s + 1
    extension = document["extensions"][0]
    workload = (CATALOGUE / extension["workload"]).resolve()
    extension |= {"steady_s": STEADY_S, "after_s": AFTER_S, "workload": str(workload)}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize("name", ["replica-hang", "replicas-rolling-restart"])
def test_a_day_passes_on_a_lab_that_heals(name: str, tmp_path: Path) -> None:
    path = shortened(name, tmp_path)
    for attempt in range(3):  # on a machine that others keep busy a day is rightly undecided
        row = one_day(path, kind=HEALTHY, seed=2, out=tmp_path / str(attempt))
        if row["outcome"] != "inconclusive":
            break

    assert (row["exit_status"], row["outcome"], row["spoiled"]) == (0, "pass", []), row


@pytest.fixture(scope="module")
def bad_days(tmp_path_factory: pytest.TempPathFactory) -> dict[str, JsonObject]:
    """Three days that may not pass, at the same time: none of them rests on exact timing."""
    kinds = {"replica-hang": UNHEALED, "replica-spot": UNHEALED, "replica-wrong-answers": HEALTHY}

    def day(name: str) -> JsonObject:
        folder = tmp_path_factory.mktemp(name)
        path = shortened(name, folder, heal_s=8 if kinds[name] == UNHEALED else None)
        return one_day(path, kind=kinds[name], seed=2, out=folder / "runs")

    with ThreadPoolExecutor(len(kinds)) as pool:
        return dict(zip(kinds, pool.map(day, kinds), strict=True))


@pytest.mark.parametrize("name", ["replica-hang", "replica-spot"])
def test_a_day_fails_on_a_lab_that_does_not_heal(name: str, bad_days: dict[str, JsonObject]) -> None:
    row = bad_days[name]

    assert (row["exit_status"], row["outcome"]) == (1, "fail"), row
    assert (
        "did not come back by itself"
        in {rule: observed for rule, _, observed in row["spoiled"]}["redundancy"]
    )


def test_wrong_answers_fail_a_day(bad_days: dict[str, JsonObject]) -> None:
    row = bad_days["replica-wrong-answers"]
    failed = {rule for rule, outcome, _ in row["spoiled"] if outcome == "fail"}

    assert (row["exit_status"], row["outcome"]) == (1, "fail"), row
    assert "replica-answers" in failed, row


def test_the_studys_page_counts_the_days_and_tells_of_each_that_went_wrong() -> None:
    fine = {"kind": HEALTHY, "number": 1, "experiment": "a", "outcome": "pass", "spoiled": []}
    lazy = fine | {"number": 2, "outcome": "inconclusive", "spoiled": [["client", "inconclusive", "late"]]}
    failed = fine | {"kind": UNHEALED, "outcome": "fail", "spoiled": [["redundancy", "fail", "undo started"]]}
    rows = [row | {"t": "2026-11-21 12:00:00", "took_s": 30.0, "load": 1.5} for row in (fine, lazy, failed)]

    page = render(rows)

    assert "2 of 50 healthy days and 1 of 50 with healing switched off were run" in page
    assert "**1 of 2 healthy days PASS (wanted: 49 of 50); 0 of 1 without healing do" in page
    assert "was 1.5 in the middle and 1.5 at most" in page
    assert "In 1 of 1 the load client itself was late" in page
    assert "| a | healthy | 2 | 1 | 0 | 1 | 0 | 30 |" in page
    assert "- a, healthy, day 2: inconclusive: client inconclusive: late" in page

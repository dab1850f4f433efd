"""Plans: what would be hit is what is hit, or nothing is."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from experiments.experiment import Experiment, load_experiment
from experiments.faults.fault import FaultRefused
from experiments.faults.replica import KILL
from experiments.faults.victims import capture_victims
from experiments.injecting import permission
from experiments.injecting.bounds import PLAN_FILE, share_of
from experiments.injecting.injection import inject_fault, undo_pending
from experiments.injecting.ledger import Ledger, read_ledger
from experiments.injecting.permission import allow
from experiments.injecting.window import Window
from experiments.lab.control import Lab, read_lab
from experiments.lab.supervisor import all_serve
from experiments.plan import Plan, budget_cost, confirm_plan, look_at_conditions, render_plan, resolve_plan
from probes.child import wait_until
from probes.errors import ConfigError
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.slo import Slo
from reports.run import load_run
from tests.experiments.labs import running_lab
from tests.processes import start_job

CATALOGUE = Path(__file__).parents[2] / "experiments/catalogue"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("shared") / "lab", backoff_s=0.2, load_s=0.3) as running:
        allow(running.folder)
        yield running


def experiment(
    folder: Path, *functions: str, max_share: float | None = None, **arguments: object
) -> Experiment:
    document = yaml.safe_load((CATALOGUE / "local/replica-kill.yaml").read_text())
    document["method"] = [
        {
            "type": "action",
            "name": func,
            "provider": {
                "type": "python", "module": "experiments.actions", "func": func, "arguments": arguments,
            },
        }
        for func in functions
    ]  # fmt: skip
    document["extensions"][0]["workload"] = str(CATALOGUE / "workloads/steady-chat.yaml")
    if max_share is not None:
        document["extensions"][0]["max_share"] = max_share
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_experiment(path)


def confirm(plan: Plan, folder: Path) -> Path:
    """Put a confirmed plan where the actions of a game day find it."""
    folder.mkdir()
    (folder / PLAN_FILE).write_text(json.dumps(plan.to_json() | {"is_confirmed": True}, default=str))
    return folder


def captured(lab: Lab, plan: Plan) -> JsonObject:
    return capture_victims(lab.folder, replica=plan.targets[0].victims[0]["name"], seed=1)


def test_a_plan_names_victims_share_and_cost_and_touches_nothing(lab: Lab, tmp_path: Path) -> None:
    before = read_lab(lab.folder)
    plan = resolve_plan(experiment(tmp_path, "kill_replica"), lab.folder, seed=3)
    again = resolve_plan(experiment(tmp_path, "kill_replica"), lab.folder, seed=3)
    (target,) = plan.targets
    shown = render_plan(plan, [])

    assert plan.hash == again.hash
    assert target.victims[0]["pid"] == before.replica(target.victims[0]["name"]).pid  # type: ignore[union-attr]
    assert (target.at_once, target.replicas, target.share, target.others_serving) == (1, 3, 1 / 3, 2)
    assert plan.budget_share == pytest.approx(1 / 3 * 15 / (0.05 * 30 * 86400))
    assert f"pid {target.victims[0]['pid']}" in shown
    assert plan.hash in shown
    assert read_lab(lab.folder) == before


def test_another_seed_victim_argument_or_bound_is_another_hash(lab: Lab, tmp_path: Path) -> None:
    plans = [
        resolve_plan(experiment(tmp_path, "kill_replica"), lab.folder, seed=3),
        resolve_plan(experiment(tmp_path, "kill_replica"), lab.folder, seed=4),
        resolve_plan(experiment(tmp_path, "kill_replica", replica="replica-0"), lab.folder, seed=3),
        resolve_plan(experiment(tmp_path, "hang_replica"), lab.folder, seed=3),
        resolve_plan(experiment(tmp_path, "kill_replica", max_share=0.4), lab.folder, seed=3),
    ]

    assert len({plan.hash for plan in plans}) == len(plans)
    confirm_plan(plans[0], plans[0].hash[:12])
    for wrong in (plans[1].hash, plans[0].hash[:11], ""):
        with pytest.raises(ConfigError, match="is not what would be done now"):
            confirm_plan(plans[0], wrong)


def test_what_is_too_wide_is_refused_unless_the_experiment_states_more(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="would hit 67% at once, at most 50% may be"):
        resolve_plan(experiment(tmp_path, "kill_all_replicas_but_one"), lab.folder, seed=1)
    with pytest.raises(ConfigError, match="would hit 33% at once, at most 20% may be"):
        resolve_plan(experiment(tmp_path, "kill_replica", max_share=0.2), lab.folder, seed=1)
    wide = resolve_plan(experiment(tmp_path, "kill_all_replicas_but_one", max_share=0.7), lab.folder, seed=1)
    rolling = resolve_plan(experiment(tmp_path, "restart_all_in_turn"), lab.folder, seed=1)

    assert (wide.targets[0].share, wide.targets[0].at_once) == (2 / 3, 2)
    assert (rolling.targets[0].share, len(rolling.targets[0].victims)) == (1 / 3, 3)


def test_an_empty_selection_is_refused_at_the_moment_of_injection(lab: Lab, tmp_path: Path) -> None:
    plan = resolve_plan(experiment(tmp_path, "kill_replica"), lab.folder, seed=1)
    folder = confirm(plan, tmp_path / "run")
    nobody = captured(lab, plan) | {"victims": []}

    with pytest.raises(FaultRefused, match="the selection is empty"):
        inject_fault(KILL, nobody, folder)
    assert share_of(nobody) == 0
    assert read_ledger(folder) == []


def test_what_the_plan_says_is_done_once_and_nothing_else_is(lab: Lab, tmp_path: Path) -> None:
    plan = resolve_plan(experiment(tmp_path, "kill_replica", replica="replica-1"), lab.folder, seed=1)
    folder = confirm(plan, tmp_path / "run")
    other = capture_victims(lab.folder, replica="replica-0", seed=1)

    with pytest.raises(FaultRefused, match=r"the plan says replica-1 .*, by now it would be replica-0"):
        inject_fault(KILL, other, folder)
    inject_fault(KILL, captured(lab, plan), folder)
    with pytest.raises(FaultRefused, match="is not what the plan says comes next"):
        inject_fault(KILL, other, folder)
    undone = undo_pending(folder, by="test")

    assert [u.entry.subject for u in undone] == ["replica:replica-1"]
    assert wait_until(lambda: all_serve(lab.folder), timeout_s=20)


def test_a_victim_that_was_replaced_since_the_plan_is_not_hit(lab: Lab, tmp_path: Path) -> None:
    plan = resolve_plan(experiment(tmp_path, "kill_replica", replica="replica-2"), lab.folder, seed=1)
    folder = confirm(plan, tmp_path / "run")
    process = read_lab(lab.folder).replica("replica-2").process  # type: ignore[union-attr]
    assert process is not None
    process.send(9)
    assert wait_until(lambda: not process.is_alive, timeout_s=5)
    assert wait_until(lambda: all_serve(lab.folder), timeout_s=20)
    after = read_lab(lab.folder)

    with pytest.raises(
        FaultRefused, match=r"the plan says replica-2 \(pid \d+\), by now it would be replica-2"
    ):
        inject_fault(KILL, captured(lab, plan), folder)
    assert read_lab(lab.folder) == after
    assert read_ledger(folder) == []


def test_fewer_others_that_serve_than_planned_stop_an_injection(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", is_restarting=False) as lab:
        plan = resolve_plan(experiment(tmp_path, "kill_replica", replica="replica-0"), lab.folder, seed=1)
        folder = confirm(plan, tmp_path / "run")
        process = read_lab(lab.folder).replica("replica-1").process  # type: ignore[union-attr]
        assert process is not None
        process.send(9)
        assert wait_until(lambda: len(read_lab(lab.folder).serving) == 2, timeout_s=5)

        with pytest.raises(FaultRefused, match="1 others serve, the plan says 2"):
            inject_fault(KILL, captured(lab, plan), folder)


def test_a_condition_that_is_not_met_is_named(lab: Lab, tmp_path: Path) -> None:
    loaded = experiment(tmp_path, "kill_replica")
    never = Window(days=("mon",), hours="00:00-00:01", timezone="UTC")
    saturday = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)
    plan = resolve_plan(loaded, lab.folder, seed=1)
    fine = look_at_conditions(loaded, plan, lab.folder, tmp_path)
    (tmp_path / "old").mkdir()
    with Ledger(tmp_path / "old") as ledger:
        ledger.arm(KILL.name, "replica:replica-0", capture_victims(lab.folder, replica="replica-0", seed=1))
    left = permission.look_at_leftovers(lab.supervisor, tmp_path)
    sick = replace(lab, replicas=(replace(lab.replicas[0], is_serving=False), *lab.replicas[1:]))

    assert [condition.is_met for condition in fine] == [True] * 5
    assert permission.look_at_permission(tmp_path).is_met is False
    assert permission.look_at_window(never, saturday).observed == f"outside {never}"
    assert (left.is_met, left.observed) == (False, "replica:replica-0 of old: `overproof gameday undo`")
    assert permission.look_at_health(sick).observed == "replica-0 does not serve"


def test_a_lab_whose_replicas_hardly_work_is_refused_where_a_day_wants_them_to(lab: Lab) -> None:
    (idle,) = permission.look_at_work(lab, 4)
    (busy,) = permission.look_at_work(replace(lab, step_work_ms=4.0), 4)

    assert permission.look_at_work(lab, 0) == []
    assert (idle.is_met, busy.is_met) == (False, True)
    assert "`overproof lab up --step-work-ms 4`" in idle.observed


def test_the_cost_is_share_times_time_over_the_budget() -> None:
    slo = Slo(name="goodput", metric="goodput", objective=0.999)

    # 40 % of the requests for 5 minutes at 99.9 % over 30 days: 4.6 % of the budget
    assert budget_cost(0.4, 300, [slo], window_days=30) == pytest.approx(0.0463, abs=1e-4)
    assert budget_cost(0.4, 300, [], window_days=30) is None


def test_a_confirmed_plan_is_carried_out_and_an_older_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.yaml"
    document = yaml.safe_load((CATALOGUE / "local/replica-kill.yaml").read_text())
    del document["extensions"], document["steady-state-hypothesis"]
    path.write_text(yaml.safe_dump(document))
    with running_lab(tmp_path / "runs/lab") as lab:
        allow(lab.folder)
        shown = start_job(["gameday", "plan", str(path)], tmp_path)
        shown_status, text = shown.wait(timeout_s=40), shown.text()
        confirmed = text.splitlines()[-1]
        first = start_job(["gameday", "run", str(path), "--plan", confirmed], tmp_path)
        first_status, said = first.wait(timeout_s=90), first.text()
        after_first = read_lab(lab.folder)
        second = start_job(["gameday", "run", str(path), "--plan", confirmed], tmp_path)
        second_status = second.wait(timeout_s=40)
        after_second = read_lab(lab.folder)
    run = next(path.parent for path in (tmp_path / "runs").glob("*-gameday-*/undo.ndjson"))
    found = {f.rule: f for f in load_run(run).findings}
    (entry,) = read_ledger(run)

    assert shown_status == 0, text
    assert "1 of 3 replicas at once (33%)" in text
    assert first_status == 3, said  # no promises, so no verdict
    assert found["fault"].outcome is Outcome.PASS
    assert f"(pid {entry.captured['victims'][0]['pid']}," in text
    assert after_first != lab
    assert second_status == 2
    assert "is not what would be done now" in second.text()
    assert after_second == after_first

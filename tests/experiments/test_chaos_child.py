"""Chaos Toolkit in its child: stops are heard, deadlines hold, rollbacks always run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from experiments.actions import LAB_VARIABLE, RUN_VARIABLE, SEED_VARIABLE
from experiments.injecting.ledger import UNDONE, read_ledger
from experiments.lab.control import Lab, read_lab
from experiments.lab.supervisor import all_serve
from probes.child import end_child, python_module, start_child, wait_until
from probes.json_types import JsonObject
from reports.run import read_ndjson
from tests.experiments.labs import running_lab

CATALOGUE = Path(__file__).parents[2] / "experiments/catalogue"


def activity(func: str, *, type: str = "action", timeout: float = 20, **arguments: object) -> JsonObject:
    provider = {"type": "python", "module": "experiments.actions", "func": func, "arguments": arguments}
    return {"type": type, "name": func, "timeout": timeout, "provider": provider}


WAIT = {"within_s": 30, "replicas_min": 99}  # waits for what never comes
KILL = activity("kill_replica")
RESTORE = activity("restore_replicas", timeout=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A chaos child under way, with what it wrote."""

    process: subprocess.Popen[str]
    folder: Path

    def events(self, kind: str) -> list[JsonObject]:
        return [row["data"] for row in read_ndjson(self.folder / "events.ndjson") if row["kind"] == kind]

    def completed(self) -> dict[str, str]:
        return {row["name"]: row["status"] for row in self.events("chaos.activity.completed")}

    def journal(self) -> JsonObject:
        journal = json.loads((self.folder / "journal.json").read_text())
        assert isinstance(journal, dict)
        return journal

    def has_started(self, name: str) -> bool:
        return wait_until(
            lambda: any(row["name"] == name for row in self.events("chaos.activity.started")), timeout_s=60
        )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("shared") / "lab", backoff_s=0.2, load_s=0.5) as running:
        yield running


def start(folder: Path, lab: Lab, method: list[JsonObject], **more: object) -> Child:
    document = yaml.safe_load((CATALOGUE / "local/replica-kill.yaml").read_text())
    del document["steady-state-hypothesis"]
    document["extensions"][0]["workload"] = str(CATALOGUE / "workloads/steady-chat.yaml")
    document |= {"method": method, "rollbacks": [RESTORE]} | more
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(document))
    ours = {RUN_VARIABLE: str(folder), LAB_VARIABLE: str(lab.folder), SEED_VARIABLE: "1"}
    with (folder / "chaos.log").open("w") as log:
        process = start_child(
            python_module("experiments.chaos.child", "--experiment", str(path), "--run", str(folder)),
            stdout=log,
            stderr=log,
            env=os.environ | ours,
        )
    return Child(process=process, folder=folder)


def test_each_step_is_on_the_timeline_and_in_the_journal(lab: Lab, tmp_path: Path) -> None:
    child = start(tmp_path, lab, [KILL, activity("replicas_recovered", type="probe", within_s=20)])
    status = child.process.wait(timeout=90)
    end_child(child.process)

    assert status == 0
    assert child.completed() == {
        "kill_replica": "succeeded", "replicas_recovered": "succeeded", "restore_replicas": "succeeded",
    }  # fmt: skip
    assert [row["status"] for row in child.events("chaos.finished")] == ["completed"]
    assert [run["status"] for run in child.journal()["run"]] == ["succeeded", "succeeded"]
    assert [entry.state for entry in read_ledger(tmp_path)] == [UNDONE]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_inside_an_action_lets_no_other_fault_follow_and_rolls_back(
    number: signal.Signals, lab: Lab, tmp_path: Path
) -> None:
    before = read_lab(lab.folder)
    child = start(tmp_path, lab, [activity("replicas_recovered", timeout=60, **WAIT), KILL])
    assert child.has_started("replicas_recovered")

    child.process.send_signal(number)
    child.process.send_signal(number)  # a second one changes nothing
    status = child.process.wait(timeout=90)
    end_child(child.process)

    assert status == 0
    assert child.completed() == {"replicas_recovered": "interrupted", "restore_replicas": "succeeded"}
    assert child.journal()["status"] == "interrupted"
    assert child.journal()["stopped_by"] == number.name
    assert read_lab(lab.folder) == before


def test_a_stop_does_not_sit_out_a_pause(lab: Lab, tmp_path: Path) -> None:
    slow = activity("replicas_recovered", timeout=60, **WAIT) | {"pauses": {"after": 60}}
    child = start(tmp_path, lab, [slow, KILL])
    assert child.has_started("replicas_recovered")

    child.process.send_signal(signal.SIGTERM)
    status = child.process.wait(timeout=50)
    end_child(child.process)

    assert status == 0
    assert "kill_replica" not in child.completed()


def test_a_python_action_that_overruns_its_deadline_is_cut_and_nothing_follows(
    lab: Lab, tmp_path: Path
) -> None:
    child = start(tmp_path, lab, [activity("replicas_recovered", timeout=0.5, **WAIT), KILL])
    status = child.process.wait(timeout=90)
    end_child(child.process)

    assert status == 0
    assert child.completed() == {"replicas_recovered": "interrupted", "restore_replicas": "succeeded"}
    assert len(child.events("chaos.activity.overran")) == 1
    assert child.journal()["stopped_by"] == "an activity overran its deadline"


def test_a_gate_probe_that_hangs_fails_the_gate_and_nothing_is_injected(lab: Lab, tmp_path: Path) -> None:
    probe = activity("replicas_recovered", type="probe", timeout=0.5, **WAIT)
    gate = {"title": "never", "probes": [probe | {"tolerance": True}]}
    child = start(tmp_path, lab, [KILL], **{"steady-state-hypothesis": gate})
    child.process.wait(timeout=90)
    end_child(child.process)

    assert child.events("chaos.hypothesis") == [{"when": "before", "is_met": False}]
    assert "kill_replica" not in child.completed()
    assert read_ledger(tmp_path) == []


def test_a_background_action_that_hangs_cannot_hold_the_child(lab: Lab, tmp_path: Path) -> None:
    hanging = activity("replicas_recovered", timeout=0.5, **WAIT) | {"background": True}
    child = start(tmp_path, lab, [hanging, activity("replicas_recovered", timeout=60, **WAIT), KILL])
    assert child.has_started("replicas_recovered")

    overran = wait_until(lambda: bool(child.events("chaos.activity.overran")), timeout_s=60)
    interrupted = wait_until(lambda: "interrupted" in child.completed().values(), timeout_s=60)
    end_child(child.process)  # as the controller does

    assert overran
    assert interrupted
    assert "kill_replica" not in child.completed()


def test_when_its_parent_is_gone_the_child_rolls_back_and_leaves(lab: Lab, tmp_path: Path) -> None:
    child = start(tmp_path, lab, [KILL, activity("replicas_recovered", timeout=60, **WAIT)])
    assert child.has_started("replicas_recovered")
    assert wait_until(
        lambda: all_serve(lab.folder), timeout_s=25
    )  # its rollback has no time to wait for that
    assert child.process.stdin is not None

    child.process.stdin.close()
    child.process.wait(timeout=15)
    end_child(child.process)

    assert "restore_replicas" in {row["name"] for row in child.events("chaos.activity.started")}
    assert child.completed()["replicas_recovered"] == "interrupted"
    assert [entry.state for entry in read_ledger(tmp_path)] == [UNDONE]


def test_an_action_that_is_refused_injects_nothing_though_chaos_toolkit_completes(
    lab: Lab, tmp_path: Path
) -> None:
    before = read_lab(lab.folder)
    child = start(tmp_path, lab, [activity("kill_replica", replica="replica-9")])
    status = child.process.wait(timeout=90)
    end_child(child.process)

    assert status == 0
    assert child.journal()["status"] == "completed"
    assert child.completed()["kill_replica"] == "failed"
    assert child.events("fault.injected") == []
    assert read_lab(lab.folder) == before


def test_an_unsound_file_exits_2(lab: Lab, tmp_path: Path) -> None:
    child = start(tmp_path, lab, [activity("kill_everything")])
    status = child.process.wait(timeout=90)
    end_child(child.process)

    assert status == 2
    assert "Chaos Toolkit refuses it" in (tmp_path / "chaos.log").read_text()

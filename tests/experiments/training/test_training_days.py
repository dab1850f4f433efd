"""Whole game days on a real training job: one that heals, one that nobody heals, one of the user's own.

The day that heals and the day on a log share a job's start; a drill needs a job of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from experiments.experiment import load_experiment
from experiments.injecting.permission import ALLOWED_FILE, allow
from experiments.plan import look_at_conditions, render_plan, resolve_plan
from experiments.training.job_folder import FOLDER_NAME, Job, last_row
from probes.child import wait_until
from probes.errors import ConfigError
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.run import Run, load_run
from tests.experiments.training.jobs import PLAN, running_job

pytestmark = pytest.mark.timeout(300)  # each process of a job imports torch first

CATALOGUE = Path("experiments/catalogue/training")
FILES = sorted(CATALOGUE.glob("*.yaml"))
DAY_TIMEOUT_S = 300.0


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def job(out: Path) -> Iterator[Job]:
    """A job as `lab train up` leaves it under the folder of the runs."""
    # Storage that is cut between two ranks' questions has one wait for the other: longer than it is cut.
    clocks = replace(PLAN.clocks, collective_timeout_s=30.0)
    with running_job(out / FOLDER_NAME, replace(PLAN, clocks=clocks)) as running:
        allow(running.folder)
        assert wait_until(lambda: (last_row(running.folder, 0) or {"step": 0})["step"] >= 30, timeout_s=30)
        yield running


def _extension(document: JsonObject) -> JsonObject:
    return next(dict(entry) for entry in document["extensions"] if entry["name"] == "overproof")


def _shortened(name: str, folder: Path, **changes: object) -> Path:
    """Write a shipped experiment with other words in its extension; the rate of a few seconds says little."""
    document = yaml.safe_load((CATALOGUE / f"{name}.yaml").read_text())
    extension = _extension(document) | {"steady_s": 5, "after_s": 6} | changes
    extension["training"] |= {"rate_share_min": 0.3}
    document["extensions"] = [extension]
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def _run(path: Path, out: Path, *options: str) -> tuple[int, Run]:
    command = [
        sys.executable,
        "-P",
        "-m",
        "overproof",
        "gameday",
        "run",
        str(path),
        "--out",
        str(out),
        *options,
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=DAY_TIMEOUT_S, check=False)
    assert ran.returncode in (0, 1, 3), ran.stdout + ran.stderr
    return ran.returncode, load_run(Path(ran.stdout.strip().splitlines()[-1]))


def _by_rule(run: Run) -> dict[str, Finding]:
    return {f.rule + (f"@{f.subject.partition('@')[2]}" if "@" in f.subject else ""): f for f in run.findings}


def _told(run: Run) -> str:
    return json.dumps([[f.rule, f.subject, str(f.outcome), f.observed] for f in run.findings], indent=1)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_experiment_is_sound_and_its_plan_names_who_is_hit(path: Path, job: Job, out: Path) -> None:
    experiment = load_experiment(path)

    plan = resolve_plan(experiment, job.folder, seed=1)

    (target,) = plan.targets
    (victim,) = target.victims
    assert f"overproof gameday run experiments/catalogue/training/{path.name}" in path.read_text()
    assert (victim["name"], victim["pid"]) in {
        *((rank.name, rank.process.pid) for rank in job.ranks),
        *((node.name, node.agent and node.agent.pid) for node in job.nodes),
        ("storage", job.storage and job.storage.pid),
    }
    assert ("heals" in yaml.safe_load(path.read_text())["tags"]) == (target.ends_by == "platform")
    assert all(c.is_met for c in look_at_conditions(experiment, plan, job.folder, out))
    assert f"{target.fault} on {victim['name']} (pid {victim['pid']}" in render_plan(plan, [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"training": None}, "training: this key is missing"),
        ({"workload": "../workloads/steady-chat.yaml"}, "a training job is watched in its place"),
        ({"target": "lab"}, "only of a training job"),
        ({"training": {"steady_stepps": 4}}, "did you mean 'steady_steps'"),
        ({"target": {"name": "training", "job": {"log": "x"}}}, "is our own"),
    ],
)
def test_an_extension_that_is_half_about_training_is_refused(
    tmp_path: Path, change: JsonObject, said: str
) -> None:
    document = yaml.safe_load((CATALOGUE / "rank-kill.yaml").read_text())
    extension = {k: v for k, v in (_extension(document) | change).items() if v is not None}
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(document | {"extensions": [extension]}))

    with pytest.raises(ConfigError, match=said):
        load_experiment(path)


def test_the_job_outlives_a_rank_and_the_day_says_what_that_cost(job: Job, out: Path, tmp_path: Path) -> None:
    status, run = _run(_shortened("rank-kill", tmp_path), out)

    found = _by_rule(run)
    assert status == 0, _told(run)
    assert run.outcome is Outcome.PASS
    assert 0 <= found["lost-steps"].evidence["lost_steps"] <= (job.checkpoint_every_steps or 0)
    assert found["lost-steps"].evidence["restarts"] == 1
    assert 0 < found["recovery"].evidence["t_recover_s"] <= 60
    assert 0 < found["ettr"].evidence["ettr"] < 1
    assert found["ettr"].evidence["expected_ettr"] > 0
    summary, page = (run.path / "summary.md").read_text(), (run.path / "report.html").read_text()
    assert "Steps lost" in summary
    assert "Time to resume" in summary
    assert "Steps of each rank" in page
    assert f"restarts began after step {found['checkpoints'].evidence['resumes'][0]['from_step']}" in summary


def test_a_job_of_the_users_own_is_judged_by_its_log_alone(job: Job, out: Path, tmp_path: Path) -> None:
    """A program that is not ours stops the storage; the log is that of one rank, under other names."""
    assert job.storage is not None
    (out / "targets" / "my-job").mkdir(parents=True)
    (out / "targets" / "my-job" / ALLOWED_FILE).touch()
    log = {"log": str(job.folder / "progress" / "rank-0.ndjson"), "keys": {"time": "t_ns"}}
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(_on_own_job(log, job.storage.pid), sort_keys=False))

    status, run = _run(path, out)

    found = _by_rule(run)
    assert status == 0, _told(run)
    assert found["detection"].observed.endswith("by steps that do not come")
    assert found["lost-steps"].observed == "none: the job never began again"
    assert found["checkpoints"].outcome is None
    assert found["target"].outcome is Outcome.PASS


def _on_own_job(log: JsonObject, pid: int) -> JsonObject:
    def kill(name: str, signal: str, **other: object) -> JsonObject:
        provider = {"type": "process", "path": "kill", "arguments": f"-{signal} {pid}"}
        return {"type": "action", "name": name, "provider": provider} | other

    seen = {"type": "process", "path": "ps", "arguments": f"-o state= -p {pid}", "timeout": 5}
    return {
        "title": "My job waits for its storage",
        "description": "and loses nothing",
        "method": [kill("stop it", "STOP", pauses={"after": 3})],
        "rollbacks": [kill("let it go on", "CONT")],
        "runtime": {"rollbacks": {"strategy": "always"}},
        "extensions": [
            {
                "name": "overproof",
                "target": {"name": "my-job", "job": log},
                "recovery_s": 20,
                "steady_s": 5,
                "after_s": 6,
                "training": {"steady_steps": 20, "rate_share_min": 0.3, "lost_steps_max": 0},
                "faults": [
                    {
                        "action": "stop it",
                        "subject": "process:storage",
                        "undo": "let it go on",
                        "verify": {
                            "provider": seen,
                            "tolerance": {"type": "regex", "pattern": "^T", "target": "stdout"},
                        },
                    }
                ],
            }
        ],
    }


def test_a_starved_job_is_named_so_and_nothing_is_broken(tmp_path: Path) -> None:
    """Its log says that it waits most of the time; that of a job that feeds well would let the day go on."""
    out, log = tmp_path / "runs", tmp_path / "train.log"
    (out / "targets" / "my-job").mkdir(parents=True)
    (out / "targets" / "my-job" / ALLOWED_FILE).touch()
    document = _on_own_job(
        {"log": str(log), "pattern": r"step (?P<step>\d+) data (?P<data_wait_ms>\d+)ms"}, 0
    )
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    writer = subprocess.Popen([sys.executable, "-c", STARVED, str(log)], stdin=subprocess.PIPE)
    try:
        status, run = _run(path, out)
    finally:
        writer.kill()
        writer.communicate()

    found = _by_rule(run)["input@before"]
    assert status == 1, _told(run)
    assert found.outcome is Outcome.FAIL
    assert found.observed.startswith("starving input: waits for data")
    assert not run.events_of("fault.injected")


STARVED = """
import sys, time
for step in range(100000):
    time.sleep(0.05)
    with open(sys.argv[1], "a") as log:
        log.write(f"step {step} data 45ms\\n")
"""


def test_a_job_that_makes_no_checkpoints_fails_although_it_comes_back(tmp_path: Path) -> None:
    status, run = _run(_shortened("rank-kill", tmp_path), tmp_path / "runs", "--lab-no-checkpoints")

    found = _by_rule(run)
    assert status == 1, _told(run)
    assert found["lost-steps"].outcome is Outcome.FAIL
    assert "makes no checkpoints: a restart loses all" in found["lost-steps"].observed
    assert found["checkpoints"].outcome is Outcome.FAIL
    assert found["checkpoints"].observed.startswith("the job makes none")

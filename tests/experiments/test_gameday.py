"""Whole game days on this machine, and what is left of those that end badly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from experiments.injecting.ledger import UNDONE, read_ledger
from experiments.lab.control import Lab, read_lab, stop_lab
from experiments.lab.supervisor import LabPlan, start_detached
from probes.child import wait_until
from probes.finding import Finding
from probes.outcome import Outcome
from reports.run import Run, load_run
from tests.processes import Job, processes_with, start_job, wait_for

pytestmark = pytest.mark.timeout(900)  # days of half a minute, on a machine that others keep busy

# Other programs delay the client, or leave too few independent values; neither touches what was broken.
BY_A_BUSY_MACHINE = {("client", Outcome.INCONCLUSIVE), ("slo", Outcome.INCONCLUSIVE)}
GONE_TIMEOUT_S = 20  # of whatever a day that has ended has started
END_TIMEOUT_S = 300  # of a day of half a minute, on a machine that others keep busy
CATALOGUE = Path(__file__).parents[2] / "experiments/catalogue"


def write_experiment(
    folder: Path, *, rate_per_s: float = 20, within_s: float = 12, recovery_s: float = 12
) -> Path:
    """The shipped experiment with shorter waits."""
    workload = yaml.safe_load((CATALOGUE / "workloads/steady-chat.yaml").read_text())
    workload["arrivals"]["rate_per_s"] = rate_per_s
    (folder / "workload.yaml").write_text(yaml.safe_dump(workload))
    document = yaml.safe_load((CATALOGUE / "local/replica-kill.yaml").read_text())
    document["method"][1]["provider"]["arguments"]["within_s"] = within_s
    document["method"][1]["timeout"] = within_s + 20
    for slo in (slo for slos in document["extensions"][0]["slos"].values() for slo in slos):
        if slo["metric"] == "ttft_ms":  # what these days show are errors and replicas, on busy machines too
            slo["bound"] = 5000
    document["extensions"][0] |= {
        "workload": "workload.yaml",
        "steady_s": 4,
        "recovery_s": recovery_s,
        "after_s": 4,
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """A game day that has ended."""

    status: int
    run: Run
    log: str

    def finding(self, rule: str) -> Finding:
        (found,) = [f for f in self.run.findings if f.rule == rule]
        return found

    def spoiled(self) -> set[tuple[str, Outcome]]:
        return {(f.rule, f.outcome) for f in self.run.findings if f.outcome not in (Outcome.PASS, None)}


def run_of(folder: Path) -> Run | None:
    found = [path.parent for path in (folder / "runs").glob("*-gameday-*/run.json")]
    return load_run(found[0]) if found else None


def game_day(folder: Path, *arguments: str) -> Day:
    return end_of(start_job(["gameday", "run", *arguments], folder), folder)


def end_of(job: Job, folder: Path) -> Day:
    status = job.wait(timeout_s=END_TIMEOUT_S)
    assert wait_until(lambda: not job.descendants(), timeout_s=GONE_TIMEOUT_S), job.descendants()
    run = run_of(folder)
    assert run is not None, job.text()
    return Day(status=status, run=run, log=job.text())


def until(job: Job, folder: Path, kind: str) -> None:
    def has_come() -> bool:
        run = run_of(folder)
        return run is not None and bool(run.events_of(kind))

    wait_for(has_come, job, timeout_s=180, what=f"the game day reaches {kind}")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab that restarts nothing, as ``lab up --no-restart`` leaves it."""
    folder = tmp_path / "runs/lab"
    start_detached(LabPlan(folder=folder, is_restarting=False, load_s=0.5), timeout_s=20)
    running = read_lab(folder)
    yield running
    stop_lab(folder)
    os.waitpid(running.supervisor.pid, 0)


def test_a_service_that_heals_passes_with_every_moment_and_the_undo_shown(tmp_path: Path) -> None:
    experiment = str(write_experiment(tmp_path))
    for attempt in range(3):  # a client that other programs kept from sending in time is rightly undecided
        folder = tmp_path / str(attempt)
        folder.mkdir()
        day = game_day(folder, experiment, "--seed", "3")
        if not day.spoiled() or not day.spoiled() <= BY_A_BUSY_MACHINE:
            break
    moments = day.finding("redundancy").evidence

    assert (day.status, day.run.outcome, day.spoiled()) == (0, Outcome.PASS, set()), day.log
    assert day.log.splitlines()[-1].endswith(day.run.path.name)
    assert 0 <= moments["t_detect_s"] <= moments["t_redundant_s"] <= 12
    assert 0 <= moments["t_recover_s"] <= 12
    assert day.finding("undo").observed.startswith(
        f"{day.finding('redundancy').subject}: nothing to do: the lab restarted"
    )
    order = ["fault.armed", "fault.injected", "fault.verified", "undo.verified"]
    assert [event.kind for event in day.run.events_of(*order)] == order
    assert {e.kind for e in day.run.events_of("t_detect", "t_mitigate", "t_recover", "t_redundant")} == {
        "t_detect", "t_mitigate", "t_recover", "t_redundant",
    }  # fmt: skip
    assert json.loads((day.run.path / "journal.json").read_text())["status"] == "completed"


@pytest.fixture(scope="module")
def bad_days(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Day]:
    """Three game days that cannot pass, at the same time: none of them rests on exact timing."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("unhealed", "little", "refused")}
    paths = {
        "unhealed": write_experiment(folders["unhealed"], within_s=8, recovery_s=7),
        "little": write_experiment(folders["little"], rate_per_s=1, recovery_s=8),
        "refused": write_experiment(folders["refused"]),
    }
    document = yaml.safe_load(paths["refused"].read_text())
    document["method"][0]["provider"]["arguments"] = {"replica": "replica-9"}
    paths["refused"].write_text(yaml.safe_dump(document))
    more = {"unhealed": ["--lab-no-restart"]}
    jobs = {
        name: start_job(["gameday", "run", str(path), *more.get(name, [])], folders[name])
        for name, path in paths.items()
    }
    return {name: end_of(job, folders[name]) for name, job in jobs.items()}


def test_a_service_that_does_not_heal_fails_though_undo_put_it_back(bad_days: dict[str, Day]) -> None:
    day = bad_days["unhealed"]

    assert (day.status, day.run.outcome) == (1, Outcome.FAIL), day.log
    assert ("redundancy", Outcome.FAIL) in day.spoiled()
    assert "did not come back by itself; undo started" in day.finding("redundancy").observed
    assert day.finding("redundancy").next_step
    assert day.finding("undo").outcome is Outcome.PASS


def test_a_load_too_small_to_say_is_inconclusive(bad_days: dict[str, Day]) -> None:
    day = bad_days["little"]

    assert (day.status, day.run.outcome) == (3, Outcome.INCONCLUSIVE), day.log
    assert ("traffic", Outcome.INCONCLUSIVE) in day.spoiled()
    assert day.finding("fault").outcome is Outcome.PASS
    assert day.finding("undo").outcome is Outcome.PASS


def test_a_fault_that_was_never_injected_is_not_a_pass(bad_days: dict[str, Day]) -> None:
    day = bad_days["refused"]

    assert (day.status, day.run.outcome) == (3, Outcome.INCONCLUSIVE), day.log
    assert "'replica-9' does not serve" in day.finding("fault").observed
    assert json.loads((day.run.path / "journal.json").read_text())["status"] == "completed"


def test_a_workload_with_a_typo_exits_2_before_anything_is_broken(tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    (tmp_path / "workload.yaml").write_text("name: x\narivals: {kind: constant, rate_per_s: 1}\n")

    job = start_job(["gameday", "run", str(path)], tmp_path)

    assert job.wait(timeout_s=60) == 2, job.text()
    assert "arivals: unknown key; did you mean 'arrivals'?" in job.text()
    assert not job.descendants()


def test_kill_9_in_the_middle_leaves_nothing_running_and_undo_restores_the_lab(
    lab: Lab, tmp_path: Path
) -> None:
    path = write_experiment(tmp_path, within_s=25)
    job = start_job(["gameday", "run", str(path), "--lab-no-restart"], tmp_path)
    until(job, tmp_path, "fault.verified")
    run = run_of(tmp_path)
    assert run is not None
    (chaos,) = [p for p in _pids(job) if "experiments.chaos.child" in p[1]]

    # So that nobody but ``gameday undo`` can put it back: each of the two would, once it saw the other's end.
    job.signal(signal.SIGSTOP)
    os.kill(chaos[0], signal.SIGKILL)
    job.signal(signal.SIGKILL)
    job.wait(timeout_s=5)
    is_gone = wait_until(lambda: not job.descendants(), timeout_s=GONE_TIMEOUT_S)
    broken = len(read_lab(lab.folder).serving)
    undo = start_job(["gameday", "undo"], tmp_path)
    undo_status, said = undo.wait(timeout_s=60), undo.text()
    restored = len(read_lab(lab.folder).serving)
    again = start_job(["gameday", "undo"], tmp_path)
    again_status = again.wait(timeout_s=30)

    assert is_gone, job.descendants()
    assert (broken, restored) == (2, 3)
    assert (undo_status, again_status) == (0, 0)
    assert "restored: started replica" in said
    assert "nothing left to undo" in again.text()
    assert run_of(tmp_path).state == "interrupted"  # type: ignore[union-attr]
    assert [entry.state for entry in read_ledger(run.path)] == [UNDONE]


def _pids(job: Job) -> list[tuple[int, str]]:
    return processes_with(f"OVERPROOF_TEST_JOB={job.mark}")


def test_sigterm_in_the_middle_of_a_fault_puts_everything_back_and_exits_130(
    lab: Lab, tmp_path: Path
) -> None:
    # It waits for what nobody restarts until it is interrupted, however long the second one takes to start.
    words = ["gameday", "run", str(write_experiment(tmp_path, within_s=120)), "--lab-no-restart"]
    job = start_job(words, tmp_path)
    until(job, tmp_path, "fault.injected")

    second_folder = tmp_path / "second"
    second_folder.mkdir()
    second = start_job([*words, "--out", str(tmp_path / "runs")], second_folder)
    second_status = second.wait(timeout_s=60)
    job.signal(signal.SIGTERM)
    job.signal(signal.SIGTERM)
    status = job.wait(timeout_s=120)
    is_gone = wait_until(lambda: not job.descendants(), timeout_s=GONE_TIMEOUT_S)
    runs = [load_run(path.parent) for path in (tmp_path / "runs").glob("*-gameday-*/undo.ndjson")]
    after = read_lab(lab.folder)

    assert status == 130, job.text()
    assert second_status == 2, second.text()
    assert is_gone, job.descendants()
    assert len(after.serving) == 3
    assert [run.state for run in runs] == ["interrupted"]
    assert runs[0].outcome is not Outcome.PASS
    assert [entry.state for entry in read_ledger(runs[0].path)] == [UNDONE]


def test_plain_chaos_run_arms_a_ledger_of_its_own_and_puts_the_lab_back(lab: Lab, tmp_path: Path) -> None:
    experiment = CATALOGUE / "local/replica-kill.yaml"
    text = experiment.read_text().replace("within_s: 20", "within_s: 1")
    (tmp_path / "plain.yaml").write_text(text)
    chaos = [sys.executable, "-P", "-W", "ignore", "-m", "chaostoolkit", "--no-version-check", "run"]

    done = subprocess.run(
        [*chaos, "plain.yaml"],
        cwd=tmp_path,
        env=os.environ | {"OVERPROOF_ENDPOINT": lab.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    (folder,) = [path.parent for path in (tmp_path / "runs").glob("*-chaos-*/undo.ndjson")]
    (entry,) = read_ledger(folder)

    assert done.returncode in (0, 1), done.stderr
    assert entry.state == UNDONE
    assert entry.detail["did"].startswith("started replica")
    assert len(read_lab(lab.folder).serving) == 3
    assert (
        sum(new.pid != old.pid for new, old in zip(read_lab(lab.folder).replicas, lab.replicas, strict=True))
        == 1
    )


def test_plain_chaos_run_without_a_lab_injects_nothing(tmp_path: Path) -> None:
    text = (CATALOGUE / "local/replica-kill.yaml").read_text()
    (tmp_path / "plain.yaml").write_text(text)
    chaos = [sys.executable, "-P", "-W", "ignore", "-m", "chaostoolkit", "--no-version-check", "run"]

    subprocess.run([*chaos, "plain.yaml"], cwd=tmp_path, capture_output=True, timeout=60, check=False)
    journal = json.loads((tmp_path / "journal.json").read_text())

    assert journal["run"] == []
    assert not list(tmp_path.glob("runs/*/undo.ndjson"))

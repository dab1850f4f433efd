"""What stops a game day: its guards, a person elsewhere, code that hears nothing; and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from experiments.injecting.ledger import UNDONE, read_ledger
from experiments.lab.control import read_lab, stop_lab
from experiments.lab.supervisor import LabPlan, start_detached
from experiments.processes.doctor import find_leftovers
from probes.child import process_state, wait_until
from probes.outcome import Outcome
from reports.run import load_run
from tests.experiments.labs import running_lab
from tests.experiments.test_chaos_child import WAIT, activity
from tests.experiments.test_gameday import Day, end_of, until, write_experiment
from tests.processes import start_job

pytestmark = pytest.mark.timeout(900)  # days of half a minute, on a machine that others keep busy

STUCK = """
import ctypes, signal

def sleep():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    ctypes.PyDLL(None).sleep(90)  # holds the interpreter's lock, so that no thread runs either
"""
# Goes on once somebody has undone what was injected, however long that takes.
UNTIL_UNDONE = """
import os, time
from pathlib import Path
from experiments.injecting.ledger import read_ledger

def until_undone():
    while any(entry.is_pending for entry in read_ledger(Path(os.environ["OVERPROOF_RUN"]))):
        time.sleep(0.2)
"""
GUARDS = [
    {"kind": "errors", "share_max": 0.5, "window_s": 3, "requests_min": 20},
    {"kind": "burn", "objective": 0.9, "burn_max": 9.9, "window_s": 60, "requests_min": 20},
    {
        "kind": "probe",
        "probe": activity("replicas_serve", type="probe", replicas_min=2)
        | {"name": "two serve", "tolerance": {"type": "regex", "target": "outcome", "pattern": "^pass$"}},
    },
]


def write_day(folder: Path, method: list[dict[str, object]], **extension: object) -> str:
    path = write_experiment(folder)
    document = yaml.safe_load(path.read_text())
    document["method"] = method
    document["extensions"][0] |= extension
    path.write_text(yaml.safe_dump(document))
    return str(path)


def importing_from(folder: Path) -> dict[str, str]:
    """Return the environment in which an experiment finds its own modules."""
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Day]:
    """Four game days, at the same time, each stopped by something else."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("guarded", "pressed", "stuck", "blind")}
    waiting = activity("replicas_recovered", timeout=60, **WAIT)
    errors, hang = activity("answer_with_errors", for_s=60), activity("hang_replica")
    (folders["stuck"] / "stuck.py").write_text(STUCK)
    stuck = {"type": "probe", "name": "stuck", "timeout": 1}
    stuck |= {"provider": {"type": "python", "module": "stuck", "func": "sleep"}}
    broken = activity("replicas_serve", type="probe", lab="/nowhere") | {"tolerance": True, "name": "blind"}
    paths = {
        "blind": write_day(
            folders["blind"], [activity("kill_replica")], guards=[{"kind": "probe", "probe": broken}]
        ),
        "guarded": write_day(folders["guarded"], [errors, waiting], guards=GUARDS),
        "pressed": write_day(folders["pressed"], [errors, waiting]),
        "stuck": write_day(folders["stuck"], [hang, stuck, waiting], recovery_s=8),
    }
    env = importing_from(folders["stuck"])
    jobs = {name: start_job(["gameday", "run", path], folders[name], env=env) for name, path in paths.items()}
    until(jobs["pressed"], folders["pressed"], "fault.verified")
    command = [sys.executable, "-P", "-m", "overproof", "gameday", "stop"]
    pressed = subprocess.run(
        command, cwd=folders["pressed"], capture_output=True, text=True, timeout=100, check=False
    )
    (folders["pressed"] / "said").write_text(f"{pressed.returncode}: {pressed.stdout}{pressed.stderr}")
    return {name: end_of(job, folders[name]) for name, job in jobs.items()}


def test_a_tripped_guard_interrupts_the_action_within_2_s_and_fails_the_day(days: dict[str, Day]) -> None:
    day = days["guarded"]
    (tripped,) = day.run.events_of("guard.tripped")
    (rolling_back,) = day.run.events_of("chaos.rollbacks.started")
    (undone,) = day.run.events_of("undo.verified")
    completed = {e.data["name"]: e.data["status"] for e in day.run.events_of("chaos.activity.completed")}
    guards = {f.subject: f for f in day.run.findings if f.rule == "guard"}

    assert (day.status, day.run.outcome) == (1, Outcome.FAIL), day.log
    assert completed["replicas_recovered"] == "interrupted"
    assert (rolling_back.t_ns - tripped.t_ns) / 1e9 < 2
    assert (undone.t_ns - tripped.t_ns) / 1e9 < 4  # undoing and seeing it is over, on a busy machine
    assert [entry.state for entry in read_ledger(day.run.path)] == [UNDONE]
    assert guards["slo:errors"].outcome is Outcome.FAIL
    assert "stopped the game day" in guards["slo:errors"].observed
    assert guards["slo:two serve"].outcome is Outcome.PASS
    assert guards["slo:burn"].outcome is Outcome.PASS


def test_anyone_who_reaches_the_folder_can_stop_a_game_day(days: dict[str, Day]) -> None:
    day = days["pressed"]
    said = (day.run.path.parents[1] / "said").read_text()
    (asked,) = day.run.events_of("stop.requested")

    assert day.status == 130, day.log
    assert said.startswith("0: "), said
    assert "it stopped; nothing is left of it" in said
    assert os.uname().nodename in asked.data["by"]
    assert day.run.state == "interrupted"
    assert [entry.state for entry in read_ledger(day.run.path)] == [UNDONE]


def test_code_that_hears_no_signal_is_killed_and_the_controller_undoes(days: dict[str, Day]) -> None:
    day = days["stuck"]
    (stuck,) = day.run.events_of("chaos.stuck")
    (entry,) = read_ledger(day.run.path)

    assert day.status in (1, 3), day.log
    assert day.run.outcome is not Outcome.PASS
    assert stuck.data["activity"] == "stuck"
    assert (entry.state, entry.detail["by"]) == (UNDONE, "controller")
    assert day.finding("method").outcome is Outcome.INCONCLUSIVE
    assert not (day.run.path / "journal.json").exists()


def test_a_guard_that_cannot_see_before_the_fault_keeps_it_from_being_injected(days: dict[str, Day]) -> None:
    day = days["blind"]

    assert (day.status, day.run.outcome) == (3, Outcome.INCONCLUSIVE), day.log
    assert read_ledger(day.run.path) == []
    assert "the probe broke" in day.finding("guard").observed
    assert things_started(day) == []


def things_started(day: Day) -> list[str]:
    return [event.kind for event in day.run.events_of("chaos.started", "fault.armed")]


def test_a_lab_that_nobody_has_marked_as_allowed_is_left_alone(tmp_path: Path) -> None:
    with running_lab(tmp_path / "runs/lab") as lab:
        job = start_job(["gameday", "run", str(write_experiment(tmp_path))], tmp_path)
        status = job.wait(timeout_s=60)
        after = read_lab(lab.folder)

    assert status == 2, job.text()
    assert "target allowed: no .gameday-allowed in" in job.text()
    assert after == lab


def test_the_doctor_finds_what_is_left_until_it_is_undone(tmp_path: Path) -> None:
    folder = tmp_path / "runs/lab"
    start_detached(LabPlan(folder=folder, liveness_s=0, load_s=0.3), timeout_s=20)
    supervisor = read_lab(folder).supervisor
    code = (
        "import os, signal; from experiments import actions; from experiments.chaos import run_context\n"
        "run_context.start_timer = lambda folder: None\n"  # as if it had been killed as well
        "actions.hang_replica(replica='replica-1'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    try:
        clean = find_leftovers(tmp_path / "runs")
        subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, timeout=60, check=False)
        doctor_status, said = doctor(tmp_path, "--json")
        undo = start_job(["gameday", "undo"], tmp_path)
        undo_status = undo.wait(timeout_s=60)
        again_status, again = doctor(tmp_path)
    finally:
        stop_lab(folder)
        os.waitpid(supervisor.pid, 0)
    kinds = {row["kind"] for row in json.loads(said)["leftovers"] if str(tmp_path) in str(row)}

    assert [left for left in clean if str(tmp_path) in str(left)] == []
    assert (doctor_status, kinds) == (1, {"fault", "trouble"}), said
    assert undo_status == 0, undo.text()
    assert str(tmp_path) not in again
    assert (again_status == 0) is ("nothing is left over" in again), again


def doctor(folder: Path, *more: str) -> tuple[int, str]:
    """Ask the doctor; it looks at every process, also at those of days that end beside these tests."""
    job = start_job(["gameday", "doctor", "--out", str(folder / "runs"), *more], folder)
    return job.wait(timeout_s=60), job.text()


HANG = "from experiments.actions import hang_replica; hang_replica(lab=sys.argv[1], replica='replica-1')"


@pytest.mark.parametrize(
    ("then", "limit_s"),
    [("os.kill(os.getpid(), signal.SIGKILL)", "600"), ("print('lives', flush=True); time.sleep(60)", "1")],
    ids=["killed", "forgotten"],
)
def test_under_plain_chaos_run_a_fault_is_undone_though_nobody_rolls_back(
    then: str, limit_s: str, tmp_path: Path
) -> None:
    with running_lab(tmp_path / "lab", liveness_s=0) as lab:
        pid = lab.replicas[1].pid
        assert pid is not None
        injector = subprocess.Popen(
            [sys.executable, "-P", "-c", f"import os, signal, sys, time; {HANG}; {then}", str(lab.folder)],
            cwd=tmp_path,
            env=os.environ | {"OVERPROOF_UNDO_AFTER_S": limit_s},
        )
        ledgers = tmp_path / "runs"
        was_injected = wait_until(lambda: bool(list(ledgers.glob("*/undo.ndjson"))), timeout_s=30)
        (folder,) = [path.parent for path in ledgers.glob("*/undo.ndjson")]
        # Both: a fault that lasts for a second may be undone once before it is injected, and then again.
        is_undone = wait_until(
            lambda: [e.state for e in read_ledger(folder)] == [UNDONE] and process_state(pid) != "T",
            timeout_s=60,
        )
        state, was_alive = process_state(pid), injector.poll() is None
        injector.send_signal(signal.SIGKILL)
        injector.wait(timeout=10)
        left = wait_until(lambda: not _timers(folder), timeout_s=20)

    assert was_injected
    assert is_undone, (folder / "undo-timer.log").read_text()
    assert read_ledger(folder)[0].detail["by"] == "undo timer"
    assert state in ("S", "R", "D")
    assert was_alive is ("sleep" in then)
    assert left


def _timers(folder: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        found += [command] if "experiments.injecting.undo_timer" in command and str(folder) in command else []
    return found


def test_stop_says_so_when_no_game_day_runs(tmp_path: Path) -> None:
    job = start_job(["gameday", "stop"], tmp_path)

    assert job.wait(timeout_s=30) == 0
    assert "no game day runs" in job.text()


def test_undo_beside_a_running_game_day_undoes_and_lets_it_end(tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(UNTIL_UNDONE)
    waiting = {"type": "probe", "name": "undone", "timeout": 120}
    waiting |= {"provider": {"type": "python", "module": "waiting", "func": "until_undone"}}
    path = write_day(tmp_path, [activity("answer_with_errors", for_s=120), waiting], recovery_s=8)
    job = start_job(["gameday", "run", path], tmp_path, env=importing_from(tmp_path))
    until(job, tmp_path, "fault.verified")

    undo = subprocess.run(
        [sys.executable, "-P", "-m", "overproof", "gameday", "undo"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    day = end_of(job, tmp_path)
    (entry,) = read_ledger(day.run.path)

    assert (undo.returncode, "restored" in undo.stdout) == (0, True), undo.stdout
    assert (entry.state, entry.detail["by"]) == (UNDONE, "gameday undo")
    assert load_run(day.run.path).state == "finished"

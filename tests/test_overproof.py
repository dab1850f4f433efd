"""The command line as its user meets it: in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "torch",
    "locust",
    "gevent",
    "kubernetes",
    "chaoslib",
    "duckdb",
    "plotly",
    "pydantic",
    "paramiko",
    "rich",
)


def run_overproof(
    *arguments: str, cwd: Path | None = None, timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "overproof", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False)


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    probe = (
        "import sys, overproof\n"
        "code = overproof.run_command(['--help'])\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", probe], capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode == 0
    assert "heavy: []" in done.stderr
    for command in ("demo", "judge", "report", "schema", "burnin", "load", "gameday", "lab"):
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["burn"], "No such command 'burn'"),
        (["judge"], "Missing argument"),
        (["judge", "nowhere"], "not a run folder"),
        (["schema", "cable"], "'cable' is unknown; one of workload"),
        (["load", "run", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["gameday", "run", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["burnin", "run", "--profil", "gate"], "No such option: --profil"),
    ],
)
def test_a_wrong_call_exits_2_with_one_clear_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = run_overproof(*arguments, cwd=tmp_path)

    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_uncaught_error_exits_4_with_the_path_to_its_trace(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    probe = (
        "import overproof, reports.run, sys\n"
        "def broken(path): raise ZeroDivisionError('a bug of ours')\n"
        "reports.run.load_run = broken\n"
        f"sys.exit(overproof.run_command(['judge', {str(run)!r}]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", probe], capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert "ZeroDivisionError: a bug of ours" in done.stderr
    trace = Path(done.stderr.rpartition("trace: ")[2].strip())
    assert "in broken" in trace.read_text()
    trace.unlink()


def test_a_full_disk_is_no_crash_of_ours() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-P", "-m", "overproof", "version"]
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False
        )

    assert (done.returncode, done.stderr) == (3, "overproof: no room left on the disk\n")


@pytest.mark.parametrize("kind", ["workload", "plan", "slo", "experiment"])
def test_schema_prints_a_json_schema_that_forbids_unknown_keys(kind: str) -> None:
    done = run_overproof("schema", kind)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["additionalProperties"] is False


@pytest.fixture
def folder_of_look_alikes(tmp_path: Path) -> Path:
    (tmp_path / "reports").mkdir()
    (tmp_path / "burnin").mkdir()
    for name in (
        "reports/__init__.py",
        "burnin/__init__.py",
        "probes.py",
        "statistics.py",
        "loadtests.py",
        "json.py",
    ):
        (tmp_path / name).write_text("raise RuntimeError('someone else’s file was imported')\n")
    return tmp_path


@pytest.mark.parametrize(
    "command", [["--help"], ["schema", "workload"], ["judge", "nowhere"], ["lab", "status"]]
)
def test_commands_work_in_a_folder_full_of_look_alikes(
    folder_of_look_alikes: Path, command: list[str]
) -> None:
    done = run_overproof(*command, cwd=folder_of_look_alikes)

    assert "someone else" not in done.stderr + done.stdout
    assert done.returncode != 4, done.stderr

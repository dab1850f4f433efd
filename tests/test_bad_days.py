"""Ctrl-C and a full disk in the middle of each job: nothing lost, nothing left running."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from probes.child import wait_until
from reports.run import Run, load_run
from tests.processes import Job, start_job, wait_for

ROOT = Path(__file__).parent.parent
COMMANDS = {
    "burnin": ["burnin", "run", "--profile", "quick", "--duration-s", "25"],
    "load": ["load", "run", str(ROOT / "loadtests/workloads/demo.yaml"), "--duration-s", "15"],
    "gameday": ["gameday", "run", str(ROOT / "experiments/catalogue/local/replica-kill.yaml")],
}
# Each job with the event after which it is hit. More moments, and kill -9, are in the tests of each job.
PHASES = [("burnin", "stage.started:matmul"), ("load", "load.started"), ("gameday", "fault.injected")]


def _run_of(job: Job, out: Path) -> Run | None:
    del job
    folders = [path for path in out.glob("*Z-*") if (path / "run.json").exists()]
    return load_run(folders[0]) if folders else None


def _has(out: Path, job: Job, wanted: str) -> bool:
    run = _run_of(job, out)
    if run is None:
        return False
    kind, _, stage = wanted.partition(":")
    return not kind or any(e.kind == kind and stage in ("", e.data.get("stage")) for e in run.events)


def _start(job_name: str, out: Path, folder: Path) -> Job:
    return start_job([*COMMANDS[job_name], "--out", str(out), "--seed", "7"], folder)


def _assert_nothing_left(job: Job, *, within_s: float) -> None:
    assert wait_until(lambda: not job.descendants(), timeout_s=within_s), job.descendants()


@pytest.mark.parametrize(("job_name", "phase"), PHASES)
def test_ctrl_c_ends_a_job_with_130_a_readable_record_and_nothing_running(
    job_name: str, phase: str, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    job = _start(job_name, out, tmp_path)
    wait_for(lambda: _has(out, job, phase), job, timeout_s=60, what=f"{job_name} reaches {phase!r}")

    job.signal(signal.SIGINT)

    assert job.wait(timeout_s=30) == 130, job.text()
    _assert_nothing_left(job, within_s=5)
    run = _run_of(job, out)
    assert run is not None
    assert run.state == "interrupted"
    assert run.outcome.name != "PASS"
    assert "interrupted" in (run.path / "report.html").read_text().lower()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB of our own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "overproof-test", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.needs("root")
@pytest.mark.parametrize(("job_name", "phase"), [PHASES[0], PHASES[2]])
def test_a_disk_that_fills_ends_a_job_with_3_a_clear_line_and_nothing_running(
    job_name: str, phase: str, small_disk: Path, tmp_path: Path
) -> None:
    out = small_disk / "runs"
    job = _start(job_name, out, tmp_path)
    wait_for(lambda: _has(out, job, phase), job, timeout_s=60, what=f"{job_name} reaches {phase!r}")

    _fill(small_disk / "ballast")

    assert job.wait(timeout_s=90) == 3, job.text()
    assert "No space left on device" in job.text()
    _assert_nothing_left(job, within_s=5)
    run = _run_of(job, out)
    assert run is not None
    assert run.outcome.name != "PASS"
    if job_name == "gameday":
        undo = start_job(["gameday", "undo", "--out", str(out)], tmp_path)
        assert undo.wait(timeout_s=30) == 0, undo.text()


def _fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                if file.write(b"\0" * 4096) < 4096:
                    return
            except OSError:
                return

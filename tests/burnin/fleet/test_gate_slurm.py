"""The gate as prolog and epilog of a real Slurm."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from probes.child import wait_until
from reports.run import load_run
from tests.slurm import Slurm, running_slurm

pytestmark = pytest.mark.needs("slurmctld", "slurmd", "munged")
GATE = Path(__file__).parents[3] / "burnin" / "slurm" / "gate.sh"
LIMIT_S = 8  # the gate takes a minute, and this is not about its verdict


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with running_slurm(nodes=1, scripts=("Prolog", "Epilog")) as running:
        yield running


def _set_gate(slurm: Slurm, name: str, overproof: str, out: Path, *, enforce: str = "") -> None:
    tool = slurm.folder / f"{name}-overproof"
    tool.write_text(f"#!/bin/sh\n{overproof}\n")
    tool.chmod(0o755)
    settings = {
        "OVERPROOF": tool,
        "OVERPROOF_OUT": out,
        "OVERPROOF_LIMIT_S": LIMIT_S,
        "OVERPROOF_ENFORCE": enforce,
    }
    words = " ".join(f"{key}={shlex.quote(str(value))}" for key, value in settings.items())
    slurm.write_script(name, f"{words} exec sh {shlex.quote(str(GATE))}")


def test_a_job_starts_behind_the_gate_whose_report_lies_in_its_record_and_the_log_names_the_job(
    slurm: Slurm, tmp_path: Path
) -> None:
    real = f'exec {sys.executable} -P -m overproof "$@"'
    _set_gate(slurm, "Prolog", real, tmp_path / "runs")
    _set_gate(slurm, "Epilog", f"touch {tmp_path}/epilog; exit 1", tmp_path)

    said = slurm.ask("srun", "--chdir=/", "sh", "-c", "echo the job runs").strip()

    assert said == "the job runs"
    run = load_run(next((tmp_path / "runs").glob("*-burnin-*")))
    assert (run.path / "report.html").exists()
    assert run.header.spec["profile"] == "gate"
    assert run.findings
    assert wait_until((tmp_path / "epilog").exists, timeout_s=10)
    assert wait_until(lambda: slurm.state("node1") == "idle", timeout_s=10)
    log = (tmp_path / "runs" / "gate.log").read_text()
    assert log.startswith("job 1: ")
    assert f"overproof gate: late: no verdict within {LIMIT_S} s" in log


def test_a_fail_drains_the_node_and_keeps_the_job_back_only_where_that_was_asked_for(
    slurm: Slurm, tmp_path: Path
) -> None:
    _set_gate(slurm, "Epilog", "exit 0", tmp_path)
    _set_gate(slurm, "Prolog", "exit 1", tmp_path)
    assert slurm.ask("srun", "--chdir=/", "echo", "runs").strip() == "runs"

    _set_gate(slurm, "Prolog", "exit 1", tmp_path, enforce="1")
    number = slurm.ask("sbatch", "--parsable", "--chdir=/", "--output=/dev/null", "--wrap", "true").strip()

    assert wait_until(lambda: slurm.state("node1").startswith("drain"), timeout_s=20)
    assert any(line.startswith(number) for line in slurm.jobs())
    assert "Prolog error" in slurm.ask("sinfo", "-h", "-n", "node1", "-o", "%E")

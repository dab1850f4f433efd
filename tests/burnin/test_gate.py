"""The gate lets every job pass, whatever happens to the burn-in, unless it was told to enforce a FAIL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from burnin.gate import exit_code, pass_gate

SCRIPT = Path(__file__).parent.parent.parent / "burnin" / "slurm" / "gate.sh"


def _says(outcome: str) -> tuple[str, ...]:
    finding = {"rule": "ecc", "subject": "gpu:X", "observed": "2 errors", "outcome": outcome, "waiver": None}
    document = json.dumps({"outcome": outcome, "run": "runs/x", "findings": [finding]})
    return sys.executable, "-c", f"import sys; sys.stdout.write({document!r})"


@pytest.mark.parametrize(
    ("program", "outcome"),
    [
        (_says("pass"), "pass"),
        (_says("fail"), "fail"),
        (_says("inconclusive"), "inconclusive"),
        ((sys.executable, "-c", "import sys; sys.exit(4)"), "broken"),
        ((sys.executable, "-c", "print('{\"outcome\": ')"), "broken"),
        ((sys.executable, "-c", "print('[]')"), "broken"),
        (("/nowhere/overproof",), "broken"),
        ((sys.executable, "-c", "import os; os.abort()"), "broken"),
    ],
)
def test_only_a_fail_that_is_to_be_enforced_fails_the_prolog(
    tmp_path: Path, program: tuple[str, ...], outcome: str
) -> None:
    passage = pass_gate(tmp_path, within_s=60, device="cpu", program=program)

    assert passage.outcome == outcome
    assert exit_code(passage, is_enforced=False) == 0
    assert exit_code(passage, is_enforced=True) == (1 if outcome == "fail" else 0)


def test_a_burn_in_that_hangs_is_ended_in_time_and_lets_the_job_pass(tmp_path: Path) -> None:
    program = (
        sys.executable,
        "-c",
        "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)",
    )
    began = time.monotonic()

    passage = pass_gate(tmp_path, within_s=1.5, device="cpu", program=program)

    assert passage.outcome == "late"
    assert time.monotonic() - began < 30
    assert exit_code(passage, is_enforced=True) == 0


def _run_script(folder: Path, overproof: str, **environment: str) -> int:
    tool = folder / "overproof"
    tool.write_text(overproof)
    tool.chmod(0o755)
    done = subprocess.run(
        ["sh", str(SCRIPT)],
        env=os.environ | {"OVERPROOF": str(tool), "OVERPROOF_OUT": str(folder)} | environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode


@pytest.mark.parametrize(
    ("overproof", "enforce", "code"),
    [
        ("#!/bin/sh\nexit 1\n", "", 0),
        ("#!/bin/sh\nexit 1\n", "1", 1),
        ("#!/bin/sh\nexit 4\n", "1", 0),
        ("#!/bin/sh\nkill -9 $$\n", "1", 0),
        ("no program at all", "1", 0),
    ],
    ids=["a FAIL", "a FAIL, enforced", "a crash, enforced", "killed, enforced", "not executable, enforced"],
)
def test_the_script_for_slurm_fails_for_an_enforced_fail_alone(
    tmp_path: Path, overproof: str, enforce: str, code: int
) -> None:
    assert _run_script(tmp_path, overproof, OVERPROOF_ENFORCE=enforce) == code


def test_the_command_exits_with_0_where_the_folder_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "overproof",
            "burnin",
            "gate",
            "--device",
            "cpu",
            "--out",
            str(blocked),
            "--enforce",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0
    assert "overproof gate: broken" in done.stderr

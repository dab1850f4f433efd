"""The pytest plugin as its users meet it: in a pytest of its own, with real loads, and unwanted."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import overproof_pytest
from overproof_pytest import InconclusiveError, _read_result
from reports.run import load_run
from tests.loadtests.noise import TRIES, is_left_open_by_noise

ROOT = Path(__file__).parents[1]
WORKLOAD = """
name: {name}
arrivals: {{kind: constant, rate_per_s: 60}}
duration_s: 1.5
prompt: {{input_tokens: {{kind: constant, value: 8}}, output_tokens: {{kind: constant, value: 4}}}}
calibrate_prompts: false
calibration: {{is_skipped: true}}
slos:
  - {{metric: goodput, objective: {objective}}}
  {more}
"""


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "-p", "overproof_pytest"]
    return subprocess.run(
        [*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=90, check=False
    )


def write(folder: Path, name: str, *, objective: float = 0.5, more: str = "") -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"{name}.yaml"
    path.write_text(WORKLOAD.format(name=name, objective=objective, more=more))
    return path


def test_fail_is_a_failure_inconclusive_an_error_and_a_fixture_gives_the_run(tmp_path: Path) -> None:
    for number in range(TRIES):
        done = run_three_workloads(folder := tmp_path / str(number))
        runs = [load_run(path) for path in (folder / "runs").glob("2*")]
        if not any(run.header.spec["name"] == "gate" and is_left_open_by_noise(run) for run in runs):
            break
    suite = next(ElementTree.parse(folder / "junit.xml").iter("testsuite"))

    assert done.returncode == 1
    assert {n: suite.get(n) for n in ("tests", "failures", "errors")} == {
        "tests": "3",
        "failures": "1",
        "errors": "1",
    }, done.stdout
    assert "slo slo:goodput" in done.stdout
    assert "PASSED loadtests/workloads/test_own.py" in done.stdout
    assert len(runs) == 3


def run_three_workloads(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run pytest over one that cannot be decided, one that fails, and a test of one that passes."""
    loads = folder / "loadtests" / "workloads"
    write(loads, "undecided", objective=0.9999)
    (loads / "compose.yaml").write_text("services: {}\n")
    good = write(folder / "workloads", "gate")
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "ci.md").read_text(), re.DOTALL)
    (loads / "test_own.py").write_text(
        example.replace("workloads/gate.yaml", str(good)).replace('"5"', '"1"')
    )
    impossible = "- {metric: ttft_ms, statistic: p50, bound: 0.001}"
    write(loads, "broken", objective=0.9, more=impossible)
    return run_pytest(folder, "loadtests/workloads", "--junitxml=junit.xml", "-rA")


def test_nothing_is_collected_where_nobody_asked(tmp_path: Path) -> None:
    write(tmp_path / "loadtests" / "workloads", "chat")
    (tmp_path / "test_mine.py").write_text(
        "import sys\n\n"
        "def test_no_package_of_overproof_is_imported():\n"
        "    ours = {'loadtests', 'reports', 'probes', 'burnin', 'experiments', 'overproof'}\n"
        "    assert not ours & set(sys.modules)\n"
    )

    for arguments in ((), (".",), ("loadtests",)):
        done = run_pytest(tmp_path, "-q", *arguments)
        assert "yaml" not in done.stdout, arguments
        assert done.returncode == (5 if arguments == ("loadtests",) else 0), done.stdout


@pytest.mark.parametrize("by", ["option", "ini", "file"])
def test_globs_and_names_ask_for_workloads(by: str, tmp_path: Path) -> None:
    write(tmp_path / "perf", "chat")
    write(tmp_path / "perf", "other")
    if by == "ini":
        (tmp_path / "pytest.ini").write_text("[pytest]\noverproof_workloads = perf/chat.yaml\n")
    arguments = {"option": ["--overproof", "perf/ch*.yaml"], "ini": [], "file": ["perf/chat.yaml"]}[by]
    done = run_pytest(tmp_path, "--collect-only", "-q", *arguments)

    assert [line for line in done.stdout.splitlines() if "::" in line] == ["perf/chat.yaml::load"]


def test_a_workload_with_a_typo_is_an_error_that_names_it(tmp_path: Path) -> None:
    write(tmp_path, "chat").write_text("name: x\narivals: {}\nduration_s: 1\n")
    done = run_pytest(tmp_path, "chat.yaml", "-q")

    assert "1 error" in done.stdout
    assert "the workload cannot be run (exit code 2)" in done.stdout
    assert "arivals" in done.stdout


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, ""),
        (4, "{}"),
        (0, '{"run": "r", "outcome": "inconclusive", "findings": []}'),
        (3, '{"run": "r", "outcome": "pass", "findings": []}'),
        (0, "[1]"),
    ],
)
def test_whatever_is_not_a_verdict_is_an_error(code: int, said: str) -> None:
    with pytest.raises(InconclusiveError):
        _read_result(code, said, "overproof: something")


def test_pytest_finds_the_plugin_in_an_installed_overproof() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]

    assert project["project"]["entry-points"]["pytest11"] == {
        overproof_pytest.__name__: overproof_pytest.__name__
    }
    assert Path(overproof_pytest.__file__).name in shipped

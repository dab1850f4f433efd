"""Pytest plugin: ``pytest loadtests/workloads`` runs workload files as tests; a fixture gives a test its run.

It is loaded into every pytest of the environment that has overproof, so it imports nothing but pytest and the
standard library, does nothing until it is asked to, and lives in a module with a name of its own: importing
it must not occupy names such as ``reports`` in somebody else's project. The load runs in a process of its
own, started as a user would. It is asked by

- naming a workload file, or the folder that it lies in, on pytest's command line;
- the option ``--overproof GLOB`` or the ini setting ``overproof_workloads``, from pytest's root folder.

FAIL is a failed test. INCONCLUSIVE is an error of the test's set-up: neither passed nor failed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_EXIT_WORDS = {2: "the workload cannot be run", 3: "it could not be decided", 4: "overproof crashed"}
_LOOKS_LIKE_WORKLOAD = re.compile(r"^(arrivals|duration_s)[ \t]*:", re.MULTILINE)
_HEAD_CHARS = 65_536
_ENDING_S = 30.0


@dataclass(frozen=True)
class LoadRun:
    """A load run that has ended, as its ``--json`` tells it."""

    path: Path
    outcome: str  # "pass", "fail" or "inconclusive"
    findings: list[dict[str, Any]] = field(repr=False)

    def said(self, *outcomes: str) -> str:
        """Return the findings of these outcomes that count, as lines of text."""
        return "\n".join(
            f"{found['rule']} {found['subject']}: {found['observed']}; expected: {found['expected']}"
            + (f"; next: {found['next_step']}" if found.get("next_step") else "")
            for found in self.findings
            if found["outcome"] in outcomes and not found.get("waiver")
        )


class InconclusiveError(Exception):
    """The run ended without a verdict: an error, so that nobody takes it for a pass."""


class LoadFailedError(Exception):
    """A promise of the workload was broken."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; without them only what is named on the command line is collected."""
    group = parser.getgroup("overproof", "load tests by overproof")
    group.addoption("--overproof", action="append", default=[], metavar="GLOB", help="workload files to run")
    group.addoption("--overproof-endpoint", metavar="URL", help="address to load, instead of the files' own")
    group.addoption("--overproof-out", metavar="DIR", default="runs", help="folder that receives the runs")
    group.addoption("--overproof-seed", type=int, default=1, metavar="N", help="seed of arrivals and prompts")
    parser.addini("overproof_workloads", "globs of workload files that pytest collects", type="args")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a workload file that somebody asked for."""
    if file_path.suffix not in (".yaml", ".yml") or not _is_asked_for(file_path, parent.config):
        return None
    collector: pytest.Collector = WorkloadFile.from_parent(parent, path=file_path)
    return collector


def _is_asked_for(path: Path, config: pytest.Config) -> bool:
    if config.args_source is config.ArgsSource.ARGS:
        named = {Path(config.invocation_params.dir, arg.partition("::")[0]).resolve() for arg in config.args}
        if path in named or (path.parent in named and _looks_like_workload(path)):
            return True
    globs = [*config.getoption("--overproof"), *config.getini("overproof_workloads")]
    return any(path in config.rootpath.glob(glob) for glob in globs)


def _looks_like_workload(path: Path) -> bool:
    """Whether a file has a key that only workloads have: its folder may hold other YAML files."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return _LOOKS_LIKE_WORKLOAD.search(file.read(_HEAD_CHARS)) is not None


class WorkloadFile(pytest.File):
    """A workload file: one test."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield the test that runs it."""
        yield WorkloadItem.from_parent(self, name="load")


class WorkloadItem(pytest.Item):
    """Runs one workload; its set-up is the run, its call the verdict."""

    run: LoadRun | None = None

    def setup(self) -> None:
        """Run the load; without a verdict this raises, which pytest reports as an error."""
        self.run = run_workload(self.path, self.config)
        self.user_properties.append(("overproof_run", str(self.run.path)))

    def runtest(self) -> None:
        """Fail where a promise was broken."""
        assert self.run is not None
        if self.run.outcome == "fail":
            raise LoadFailedError(f"{self.run.said('fail')}\nreport: {self.run.path / 'report.html'}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the findings, not our own stack."""
        if isinstance(excinfo.value, (LoadFailedError, InconclusiveError)):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Name the test by its file."""
        return self.path, None, f"load: {self.path.name}"


def run_workload(path: Path, config: pytest.Config, *options: str) -> LoadRun:
    """Run a workload by ``overproof load run`` and return what came of it.

    Raises:
        InconclusiveError: it could not be decided, or not even begun.
    """
    out = Path(config.invocation_params.dir, config.getoption("--overproof-out"))
    endpoint = config.getoption("--overproof-endpoint")
    arguments = ["--out", str(out), "--seed", str(config.getoption("--overproof-seed")), "--json"]
    arguments += ["--endpoint", endpoint] if endpoint else []
    command = [sys.executable, "-P", "-m", "overproof", "load", "run", str(path), *arguments, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said, complaint = process.communicate()
    except BaseException:  # Ctrl-C reaches the load too, which puts its record in order
        process.terminate()
        process.wait(_ENDING_S)
        raise
    return _read_result(process.returncode, said, complaint)


def _read_result(code: int, said: str, complaint: str) -> LoadRun:
    try:
        document = json.loads(said)
        run = LoadRun(path=Path(document["run"]), outcome=document["outcome"], findings=document["findings"])
    except (ValueError, KeyError, TypeError):
        words = _EXIT_WORDS.get(code, "it ended without a result")
        raise InconclusiveError(f"{words} (exit code {code}): {complaint.strip()[-2000:]}") from None
    if code not in (0, 1) or run.outcome not in ("pass", "fail"):
        raise InconclusiveError(
            f"INCONCLUSIVE\n{run.said('inconclusive')}\nreport: {run.path / 'report.html'}"
        )
    return run


@pytest.fixture
def overproof_run(request: pytest.FixtureRequest) -> Callable[..., LoadRun]:
    """Run a workload file, named from the folder of the test; returns a ``LoadRun`` that passed or failed.

    Without a verdict it raises, so that a test cannot go on by mistake. More words become options of
    ``overproof load run``: ``overproof_run("chat.yaml", "--duration-s", "30")``.
    """

    def start(workload: str | Path, *options: str) -> LoadRun:
        return run_workload(request.path.parent / workload, request.config, *options)

    return start

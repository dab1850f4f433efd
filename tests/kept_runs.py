"""Keeps what coverage reads of the runs that tests made: ``pytest -p tests.kept_runs --keep-runs FOLDER``.

Only runs of processes that a test has started. A record that a test wrote itself, to spoil or to judge it, is
made up: it has shown nothing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from reports.record import EVENTS_FILE, FINDINGS_FILE, RUN_FILE

_READ = (RUN_FILE, EVENTS_FILE, FINDINGS_FILE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--keep-runs", type=Path, help="Folder that receives the runs that tests made.")


@pytest.fixture(scope="session", autouse=True)
def _keep_runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    yield
    if folder := request.config.getoption("--keep-runs"):
        keep_runs(tmp_path_factory.getbasetemp(), folder)


def keep_runs(made_under: Path, folder: Path) -> list[Path]:
    """Copy the runs below a folder into another one, and return where they lie there."""
    kept = []
    for run in _real_runs(made_under):
        target = folder / run.name
        for path in [run, *(run / "hosts").glob("*")]:
            _copy(path, target / path.relative_to(run))
        kept.append(target)
    return kept


def _real_runs(made_under: Path) -> Iterator[Path]:
    for path in sorted(made_under.rglob(RUN_FILE)):
        run = path.parent
        above = [parent for parent in run.parents if parent.is_relative_to(made_under)]
        is_inside = any((parent / RUN_FILE).exists() for parent in above)
        if not is_inside and not run.is_symlink() and _pid_of(path) not in (None, os.getpid()):
            yield run


def _pid_of(path: Path) -> int | None:
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["pid"])
    except (ValueError, KeyError, TypeError, OSError):
        return None  # a test has spoilt it


def _copy(run: Path, target: Path) -> None:
    for name in _READ:
        if (run / name).is_file():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(run / name, target / name)

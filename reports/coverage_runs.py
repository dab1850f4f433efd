"""Which recorded runs say something about coverage, and what; which do not, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from probes.errors import ConfigError
from reports.coverage import Shown
from reports.record import RUN_FILE
from reports.run import Run, load_run

ShownBy = Callable[[Run], Iterable[Shown]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What a set of runs has shown."""

    shown: tuple[Shown, ...]
    runs: tuple[str, ...]  # that count
    not_counted: tuple[str, ...]  # each with the reason


def open_runs(paths: Sequence[Path]) -> list[Run]:
    """Open run folders, and every run of folders of runs, each once.

    Raises:
        ConfigError: one is neither, or a run in one of them cannot be opened.
    """
    folders = [folder.resolve() for path in paths for folder in _folders_of(path)]
    return [load_run(folder) for folder in dict.fromkeys(folders)]


def _folders_of(path: Path) -> list[Path]:
    if (path / RUN_FILE).exists():
        return [path]
    if not path.is_dir():
        raise ConfigError(f"{path}: no such folder; give runs, or the folder that `--out` named")
    found = [child for child in sorted(path.iterdir()) if (child / RUN_FILE).exists()]
    if not found:
        raise ConfigError(f"{path}: neither a run nor a folder that holds one")
    return found


def gather(runs: Iterable[Run], shown_by: Mapping[str, ShownBy]) -> Gathered:
    """Return what runs have shown; ``shown_by`` has a reader for each kind that breaks something."""
    shown: list[Shown] = []
    counted, reasons = [], []
    for run in runs:
        reason = "; ".join(_why_not(run, shown_by))
        if reason:
            reasons.append(f"{run.path.name}: {reason}")
            continue
        counted.append(run.header.id)
        shown += shown_by[run.header.kind](run)
    return Gathered(shown=tuple(shown), runs=tuple(counted), not_counted=tuple(reasons))


def _why_not(run: Run, shown_by: Mapping[str, ShownBy]) -> Iterator[str]:
    if run.header.kind not in shown_by:
        yield f"a {run.header.kind} run breaks nothing"
    elif not run.findings:
        yield f"nobody has judged it; overproof judge {run.path}"
    elif run.state != "finished":
        yield f"it did not reach its end: {run.state}"

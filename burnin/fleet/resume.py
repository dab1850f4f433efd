"""What of a fleet's run is kept when it is taken up again, and where the rest of it goes."""

from __future__ import annotations

from pathlib import Path

from burnin.fleet.host import Fleet
from burnin.fleet.host_run import FINISHED_STATE, HostResult
from probes.errors import ConfigError, RecordError
from reports.record import SERIES_FOLDER
from reports.run import Run, load_run

ATTEMPTS = "attempts"


def set_aside(run: Run, fleet: Fleet) -> dict[str, HostResult]:
    """Return the hosts that finished; move everything else of earlier attempts into a folder of its own.

    The fleet's tables go there as well: they are made anew from the records of the hosts, since what kill -9
    left of them may lack rows.

    Raises:
        RecordError: the folder cannot be written.
    """
    kept = {host.name: result for host in fleet.hosts if (result := _finished(run, host.name, fleet))}
    attempts = run.path / ATTEMPTS
    try:
        attempts.mkdir(exist_ok=True)
        aside = attempts / str(1 + sum(1 for _ in attempts.iterdir()))
        (aside / "hosts").mkdir(parents=True)
        if (run.path / SERIES_FOLDER).exists():
            (run.path / SERIES_FOLDER).rename(aside / SERIES_FOLDER)
        (run.path / SERIES_FOLDER).mkdir()
        for folder in (run.path / "hosts").glob("*"):
            if folder.name not in kept:
                folder.rename(aside / "hosts" / folder.name)
    except OSError as error:
        raise RecordError(f"{run.path}: cannot be written: {error.strerror}") from error
    return kept


def _finished(run: Run, name: str, fleet: Fleet) -> HostResult | None:
    """Return what became of a host that came to its end; None: it did not."""
    folder: Path = run.path / "hosts" / name
    try:
        own = load_run(folder)
    except ConfigError:
        return None
    if own.state != "finished" or not own.events_of("agent.finished") or own.events_of("agent.lost"):
        return None
    return HostResult(
        host=next(host for host in fleet.hosts if host.name == name),
        state=FINISHED_STATE,
        seconds=(own.events[-1].t_ns - own.header.started_ns) / 1e9,
        clock_offset_s=own.clock_offset_s.get(name),
        path=folder,
    )

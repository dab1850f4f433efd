"""Commands of ``overproof gameday``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from probes.errors import ConfigError
from probes.outcome import Outcome

app = typer.Typer(
    help="Break the service on purpose while traffic flows, and put everything back.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    experiment: Annotated[Path, typer.Argument(help="Chaos Toolkit file with an overproof extension.")],
    out: Annotated[Path, typer.Option(help="Folder that receives the run.")] = Path("runs"),
    seed: Annotated[int, typer.Option(help="Seed of every random choice, the victim's too.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    lab_no_restart: Annotated[
        bool, typer.Option("--lab-no-restart", hidden=True, help="Drill: a lab that restarts no replica.")
    ] = False,
) -> Outcome:
    """Run an experiment on the lab: the one that `lab up` started under --out, else one of its own."""
    from experiments.experiment import load_experiment
    from experiments.gameday import LabChoice, run_gameday
    from reports.run import load_run
    from reports.terminal import print_result

    loaded = load_experiment(experiment)
    lab = LabChoice(is_restarting=not lab_no_restart, seed=seed)
    recorded = load_run(run_gameday(loaded, out=out, seed=seed, lab=lab, quiet=as_json))
    print_result(recorded, as_json=as_json)
    return recorded.outcome


@app.command()
def undo(
    run: Annotated[Path | None, typer.Argument(help="Folder of one run; else all under --out.")] = None,
    out: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> Outcome:
    """Put back whatever a game day has left, also after kill -9; harmless when there is nothing."""
    from experiments.injection import undo_pending
    from experiments.ledger import ledger_folders

    if run is not None and not run.is_dir():
        raise ConfigError(f"{run}: not a run folder")
    folders = [run] if run is not None else ledger_folders(out)
    rows = [
        {"run": str(folder), "fault": u.entry.fault, "subject": u.entry.subject, "did": u.did}
        | {"is_restored": u.is_restored}
        for folder in reversed(folders)  # the last fault first
        for u in undo_pending(folder, by="gameday undo")
    ]
    if as_json:
        sys.stdout.write(json.dumps({"ledgers": len(folders), "undone": rows}) + "\n")
    else:
        for row in rows:
            state = "restored" if row["is_restored"] else "NOT RESTORED"
            sys.stdout.write(f"{row['run']}: {row['subject']}: {state}: {row['did']}\n")
        if not rows:
            sys.stdout.write(f"nothing left to undo ({len(folders)} ledgers)\n")
    return Outcome.PASS if all(row["is_restored"] for row in rows) else Outcome.FAIL

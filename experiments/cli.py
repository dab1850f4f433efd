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
    experiment: Annotated[Path, typer.Argument(help="Chaos Toolkit file, best with an overproof extension.")],
    out: Annotated[Path, typer.Option(help="Folder that receives the run.")] = Path("runs"),
    seed: Annotated[int, typer.Option(help="Seed of every random choice, the victim's too.")] = 1,
    plan: Annotated[str, typer.Option(help="Hash that `gameday plan` gave: do just that, or nothing.")] = "",
    workload: Annotated[
        Path | None, typer.Option(help="Traffic and promises for an experiment without our extension.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve this day's figures to Prometheus on loopback; 0: any."),
    ] = None,
    metrics_listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where --metrics-port is served, instead of loopback.")
    ] = "127.0.0.1",
    lab_no_restart: Annotated[
        bool, typer.Option("--lab-no-restart", help="Drill: on a lab that restarts nothing that dies.")
    ] = False,
    lab_no_checkpoints: Annotated[
        bool, typer.Option("--lab-no-checkpoints", help="Drill: on a training job that makes none.")
    ] = False,
) -> Outcome:
    """Run an experiment on the lab: the one that `lab up` started under --out, else one of its own."""
    from experiments.day import LabChoice
    from experiments.experiment import load_experiment
    from experiments.gameday import run_gameday
    from reports.exporter import MetricsPage
    from reports.run import load_run
    from reports.terminal import print_result

    loaded = load_experiment(experiment, workload=workload)
    lab = LabChoice(is_restarting=not lab_no_restart, has_checkpoints=not lab_no_checkpoints, seed=seed)
    metrics = MetricsPage(port=metrics_port, listen=metrics_listen)
    recorded = load_run(
        run_gameday(loaded, out=out, seed=seed, lab=lab, plan_hash=plan, quiet=as_json, metrics=metrics)
    )
    print_result(recorded, as_json=as_json)
    return recorded.outcome


@app.command("plan")
def show_plan(
    experiment: Annotated[Path, typer.Argument(help="Chaos Toolkit file with an overproof extension.")],
    out: Annotated[Path, typer.Option(help="Folder whose lab it is about.")] = Path("runs"),
    seed: Annotated[int, typer.Option(help="Seed that the run will have.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> Outcome:
    """Show what a run would hit, what it may cost, whether it may run now, and the hash for `run --plan`."""
    from dataclasses import asdict

    from experiments.declared.inline_secrets import warnings_about
    from experiments.experiment import load_experiment
    from experiments.plan import look_at_conditions, render_plan, resolve_plan
    from experiments.targets.all import load_kind

    loaded = load_experiment(experiment)
    folder = load_kind(loaded.target.kind).folder(loaded, out)
    resolved = resolve_plan(loaded, folder, seed=seed)
    conditions = look_at_conditions(loaded, resolved, folder, out)
    warnings = warnings_about(experiment, loaded.document.get("secrets"))
    if as_json:
        document = resolved.to_json() | {"conditions": [asdict(condition) for condition in conditions]}
        document["warnings"] = warnings
        sys.stdout.write(json.dumps(document, default=str) + "\n")
    else:
        sys.stdout.write(render_plan(resolved, conditions, warnings) + "\n")
    return Outcome.PASS if all(condition.is_met for condition in conditions) else Outcome.INCONCLUSIVE


@app.command("catalogue")
def show_catalogue(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """List the experiments that come with overproof: what each brings about, its risk, and who heals it."""
    from experiments.catalogue_list import catalogue_document, read_catalogue, render_lines

    entries = read_catalogue()
    text = (
        json.dumps(catalogue_document(entries))
        if as_json
        else "\n".join(render_lines(entries, root=Path.cwd()))
    )
    sys.stdout.write(text + "\n")


@app.command()
def stop(
    run: Annotated[Path | None, typer.Argument(help="Folder of one run; else all under --out.")] = None,
    out: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("runs"),
    timeout_s: Annotated[
        float, typer.Option(min=1, help="Seconds until a controller that does not stop is killed.")
    ] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> Outcome:
    """Stop a game day from anywhere that its folder can be reached from, and see everything put back."""
    from experiments.processes.stop import running_gamedays, stop_gameday

    stopped = [stop_gameday(path, timeout_s=timeout_s) for path in ([run] if run else running_gamedays(out))]
    rows = [{"run": str(s.run), "how": s.how, "is_restored": s.is_restored} for s in stopped]
    if as_json:
        sys.stdout.write(json.dumps({"stopped": rows}) + "\n")
    for row in [] if as_json else rows:
        state = "nothing is left of it" if row["is_restored"] else "NOT RESTORED: overproof gameday undo"
        sys.stdout.write(f"{row['run']}: {row['how']}; {state}\n")
    if not rows and not as_json:
        sys.stdout.write("no game day runs\n")
    return Outcome.PASS if all(s.is_restored for s in stopped) else Outcome.FAIL


@app.command()
def doctor(
    out: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> Outcome:
    """List what game days have left behind, and what to do about it; exit 1 if there is anything."""
    from dataclasses import asdict

    from experiments.processes.doctor import find_leftovers

    found = find_leftovers(out)
    if as_json:
        sys.stdout.write(json.dumps({"leftovers": [asdict(leftover) for leftover in found]}) + "\n")
    for left in [] if as_json else found:
        sys.stdout.write(f"{left.kind}: {left.subject}: {left.observed}\n  {left.next_step}\n")
    if not found and not as_json:
        sys.stdout.write("nothing is left over\n")
    return Outcome.FAIL if found else Outcome.PASS


@app.command()
def undo(
    run: Annotated[Path | None, typer.Argument(help="Folder of one run; else all under --out.")] = None,
    out: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("runs"),
    from_cluster: Annotated[
        str | None,
        typer.Option(metavar="CONTEXT", help="By the mirrors in this cluster; no folder is needed."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> Outcome:
    """Put back whatever a game day has left, also after kill -9; harmless when there is nothing."""
    from experiments.injecting.injection import undo_pending
    from experiments.injecting.ledger import ledger_folders

    if from_cluster is not None and run is not None:
        raise ConfigError(
            f"{run}: a run folder and --from-cluster are two ways to say what to undo; name one"
        )
    if from_cluster is not None:
        return _undo_from_cluster(from_cluster, as_json=as_json)
    if run is not None and not run.is_dir():
        raise ConfigError(f"{run}: not a run folder")
    folders = [run] if run is not None else ledger_folders(out)
    rows: list[dict[str, object]] = [
        {"run": str(folder), "fault": u.entry.fault, "subject": u.entry.subject, "did": u.did}
        | {"is_restored": u.is_restored}
        for folder in reversed(folders)  # the last fault first
        for u in undo_pending(folder, by="gameday undo")
    ]
    return _print_undone(rows, ledgers=len(folders), as_json=as_json)


def _undo_from_cluster(context: str, *, as_json: bool) -> Outcome:
    from experiments.kube.deadman.from_cluster import undo_from_cluster

    mirrors, found = undo_from_cluster(context)
    rows: list[dict[str, object]] = [
        {"run": f.run, "fault": f.entry.fault, "subject": f.entry.subject, "did": f.did}
        | {"is_restored": f.is_restored}
        for f in found
    ]
    return _print_undone(rows, ledgers=mirrors, as_json=as_json)


def _print_undone(rows: list[dict[str, object]], *, ledgers: int, as_json: bool) -> Outcome:
    if as_json:
        sys.stdout.write(json.dumps({"ledgers": ledgers, "undone": rows}) + "\n")
    else:
        for row in rows:
            state = "restored" if row["is_restored"] else "NOT RESTORED"
            sys.stdout.write(f"{row['run']}: {row['subject']}: {state}: {row['did']}\n")
        if not rows:
            sys.stdout.write(f"nothing left to undo ({ledgers} ledgers)\n")
    return Outcome.PASS if all(row["is_restored"] for row in rows) else Outcome.FAIL

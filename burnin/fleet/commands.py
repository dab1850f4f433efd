"""``overproof burnin act | campaign | gate``: what comes after a verdict, and the gate of a node."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from probes.errors import ConfigError
from probes.outcome import Outcome

LOG = Path("~/.local/state/overproof/acting.ndjson")


class ManagerChoice(StrEnum):
    """Who takes a node out of service."""

    SLURM = "slurm"
    KUBERNETES = "kubernetes"
    COMMAND = "command"


def act(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a fleet's run that is finished.")],
    drain: Annotated[
        ManagerChoice,
        typer.Option(help="slurm: scontrol update; kubernetes: a taint; command: your own, see --command."),
    ],
    command: Annotated[
        str, typer.Option(help="Words that drain a node, with {host} and {reason}; no shell reads them.")
    ] = "",
    undo_command: Annotated[
        str, typer.Option(help="Words that give a node back; without it that is left to you.")
    ] = "",
    log: Annotated[
        Path, typer.Option(help="What was done so far; all who act on a cluster must share it.")
    ] = LOG,
    age_hours_max: Annotated[
        float, typer.Option(min=0, help="Hours; nothing is done on an older run.")
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> Outcome:
    """Drain the nodes that failed, give back those of ours that pass again. Never for what is undecided."""
    import shlex

    from burnin.fleet.acting_run import ActRequest, outcome_of, render_acted
    from burnin.fleet.acting_run import act as act_on
    from reports.run import load_run

    try:
        words, undo_words = shlex.split(command), shlex.split(undo_command)
    except ValueError as error:
        raise ConfigError(f"--command, --undo-command: cannot be split into words: {error}") from error
    request = ActRequest(
        manager=drain.value,
        command=tuple(words),
        undo_command=tuple(undo_words),
        log=log.expanduser(),
        is_dry_run=dry_run,
        age_hours_max=age_hours_max,
    )
    acted = act_on(load_run(run), request)
    typer.echo(render_acted(acted, as_json=as_json), nl=False)
    return outcome_of(acted)


def campaign(
    runs: Annotated[Path, typer.Argument(metavar="[RUNS]", help="Folder that holds runs.")] = Path("runs"),
    file: Annotated[
        Path | None,
        typer.Option("--campaign", help="The campaign's memory; RUNS/campaign.ndjson without it."),
    ] = None,
    log: Annotated[Path, typer.Option(help="What was drained so far, see act.")] = LOG,
    most: Annotated[int, typer.Option(min=1, help="How many nodes are shown.")] = 40,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Say where each node stands in acceptance, what moved, what was swapped, and who keeps coming back."""
    import sys
    import time

    from burnin.fleet.campaign import campaign_state, read_drains, render_campaign, update_campaign

    if not runs.is_dir():
        raise ConfigError(f"{runs}: no folder of runs; name one, or make a run first")
    entries, problems = update_campaign(runs, file or runs / "campaign.ndjson")
    for problem in problems:
        sys.stderr.write(f"overproof: not read: {problem}\n")
    states = campaign_state(entries, read_drains(log.expanduser()), now_ns=time.time_ns())
    typer.echo(render_campaign(states, as_json=as_json, most=most), nl=False)


def gate(
    out: Annotated[Path, typer.Option(help="Folder that receives the run.")] = Path("/var/tmp/overproof"),  # noqa: S108
    within_s: Annotated[float, typer.Option(min=1, help="Seconds, at most, until the job goes on.")] = 180.0,
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    duration_s: Annotated[
        float | None, typer.Option(min=4, help="Seconds of load, instead of the profile's 45.")
    ] = None,
    enforce: Annotated[
        bool, typer.Option("--enforce", help="Exit with 1 on a FAIL; without it always with 0.")
    ] = False,
    seed_fault: Annotated[
        list[str] | None, typer.Option(hidden=True, help="STAGE:KIND@DEVICE, to see the gate closed.")
    ] = None,
) -> int:
    """For a prolog, an epilog or an init container: a burn-in of a minute that reports and lets jobs pass."""
    from burnin.gate import Passage, exit_code, pass_gate, tell

    try:
        passage = pass_gate(
            out, within_s=within_s, device=device, duration_s=duration_s, seeded=tuple(seed_fault or ())
        )
    except Exception as error:  # a bug of ours must not keep a job from its node
        passage = Passage(outcome="broken", said=f"{type(error).__name__}: {error}")
    tell(passage)
    return exit_code(passage, is_enforced=enforce)


def add_commands(app: typer.Typer) -> None:
    """Put these commands beside the others of the burn-in."""
    for command in (act, campaign, gate):
        app.command()(command)

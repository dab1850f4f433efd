"""Acts on the recorded run of a fleet, in Slurm, by a taint or by a command of the user; or says how."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from burnin.fleet.acting import Basis, Node, Step, plan_steps
from burnin.fleet.acting_log import BEGUN, DONE, DRAIN, FAILED, ActingLog, Entry, acting_log
from burnin.fleet.cluster import cluster_of
from burnin.fleet.judging import judge_fleet
from burnin.fleet.permission import slurm_says
from burnin.fleet.taints import EFFECT, TAINT, read_cluster_nodes, remove_taint, set_taint
from probes.errors import ConfigError, TargetError
from probes.kubernetes_api import connect_api
from probes.outcome import Outcome
from reports.fleet_sheet import is_simulated
from reports.fleet_tables import FleetTables
from reports.fleet_verdicts import HostVerdict, read_verdicts
from reports.run import Run
from reports.session import judge_completeness

AGE_HOURS_MAX = 24.0
COMMAND_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ActRequest:
    """What the command line asks for."""

    manager: str  # "slurm", "kubernetes" or "command"
    command: tuple[str, ...] = ()  # words, with {host} and {reason}
    undo_command: tuple[str, ...] = ()  # empty: nothing is given back
    log: Path
    is_dry_run: bool
    age_hours_max: float = AGE_HOURS_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted:
    """A step and what came of it."""

    step: Step
    state: str  # "done", "failed", "planned" (dry run), "held" or "nothing"
    detail: str = ""


def act(run: Run, request: ActRequest, *, now_ns: int | None = None) -> list[Acted]:
    """Do what the verdict of a run asks for, within the limits.

    Raises:
        ConfigError: this run may not be acted on.
        TargetError: Slurm or the cluster does not answer.
        RecordError: the log cannot be written; nothing is done then.
    """
    now_ns = time.time_ns() if now_ns is None else now_ns
    _refuse(run, request, now_ns)
    findings = [*judge_fleet(run), judge_completeness(run)]
    with FleetTables(run) as tables:
        recorded = {v.host: v.outcome for v in read_verdicts(run, tables)}
        verdicts = [v for v in read_verdicts(run, tables, findings) if recorded.get(v.host) is v.outcome]
    profile = str(run.header.spec.get("profile", ""))
    basis = Basis(run=run.header.id, started_ns=run.header.started_ns, profile=profile)
    with acting_log(request.log) as log:
        nodes = _read_nodes(request, verdicts, log, run)
        steps = plan_steps(verdicts, findings, nodes, log, basis, now_ns=now_ns)
        return [_do(step, request, log, basis) for step in steps]


def _refuse(run: Run, request: ActRequest, now_ns: int) -> None:
    """Refuse a run that nobody may act on."""
    age_h = (now_ns - run.header.started_ns) / 3.6e12
    if run.header.kind != "fleet":
        raise ConfigError(
            f"{run.path}: a {run.header.kind} run; act on that of a fleet (of one host, if need be)"
        )
    if is_simulated(run):
        raise ConfigError(f"{run.path}: is simulated; nothing is done on it")
    if run.state != "finished" or not run.findings:
        raise ConfigError(
            f"{run.path}: is {run.state}; nothing is done on a run that did not come to its end"
        )
    if age_h > request.age_hours_max:
        raise ConfigError(
            f"{run.path}: is {age_h:.0f} h old; --age-hours-max is {request.age_hours_max:g}; run it again"
        )
    if request.manager == "command" and not any("{host}" in word for word in request.command):
        raise ConfigError("--command: names no {host}; for example: --command 'kubectl cordon {host}'")


def _read_nodes(
    request: ActRequest, verdicts: Sequence[HostVerdict], log: ActingLog, run: Run
) -> dict[str, Node]:
    if request.manager == "slurm":
        return read_slurm_nodes()
    if request.manager == "kubernetes":
        return read_cluster_nodes(cluster_of(run))
    # A command cannot be asked: a node is as we left it, and the fleet is the partition.
    name, size = f"fleet {run.header.spec.get('fleet', {}).get('name', '')}", len(verdicts)
    found = {}
    for verdict in verdicts:
        last = log.last_of(verdict.host)
        is_ours = last is not None and last.action == DRAIN
        reason = last.reason if last is not None and is_ours else ""
        found[verdict.host] = Node(partitions={name: size}, is_drained=is_ours, reason=reason)
    return found


def read_slurm_nodes(environment: Mapping[str, str] | None = None) -> dict[str, Node]:
    """Ask Slurm for its nodes.

    Raises:
        TargetError: it does not answer.
    """
    said = slurm_says(
        ["scontrol", "show", "node", "-o"], os.environ if environment is None else environment, within_s=60
    )
    rows = [_fields(line) for line in said.splitlines() if "NodeName=" in line]
    sizes: dict[str, int] = {}
    for row in rows:
        for partition in _partitions(row):
            sizes[partition] = sizes.get(partition, 0) + 1
    return {
        row["NodeName"]: Node(
            partitions={name: sizes[name] for name in _partitions(row)},
            is_drained="DRAIN" in row.get("State", ""),
            reason=row.get("Reason", ""),
        )
        for row in rows
    }


def _partitions(row: Mapping[str, str]) -> list[str]:
    return [name for name in row.get("Partitions", "").split(",") if name] or ["no partition"]


def _fields(line: str) -> dict[str, str]:
    """Return the fields of one node; the reason may hold spaces and ends with who set it."""
    head, _, rest = line.partition(" Reason=")
    fields = dict(word.split("=", 1) for word in head.split() if "=" in word)
    return fields | {"Reason": rest.strip()} if rest else fields


def _do(step: Step, request: ActRequest, log: ActingLog, basis: Basis) -> Acted:
    if step.action is None:
        return Acted(step=step, state="held" if step.is_held else "nothing")
    command = _command(step, request)
    if command is None:
        return Acted(step=step, state="held", detail="no --undo-command was given")
    if request.is_dry_run:
        return Acted(step=step, state="planned", detail=json.dumps(list(command)))
    last = log.last_of(step.host)
    log.add(_entry(step, basis, BEGUN, ""))
    try:
        if request.manager == "kubernetes":
            _change_taint(step, basis, last)
        else:
            _call(command)
    except TargetError as error:
        log.add(_entry(step, basis, FAILED, str(error)))
        return Acted(step=step, state="failed", detail=str(error))
    log.add(_entry(step, basis, DONE, ""))
    return Acted(step=step, state="done")


def _change_taint(step: Step, basis: Basis, last: Entry | None) -> None:
    client = connect_api()
    if step.action == DRAIN:
        set_taint(client, step.host, run=basis.run, reason=step.reason)
    else:
        assert last is not None
        remove_taint(client, step.host, reason=last.reason)


def _entry(step: Step, basis: Basis, state: str, detail: str) -> Entry:
    return Entry(
        t_ns=time.time_ns(),
        action=str(step.action),
        state=state,
        host=step.host,
        partitions=step.partitions,
        run=basis.run,
        profile=basis.profile,
        reason=step.reason,
        detail=detail,
    )


def _command(step: Step, request: ActRequest) -> tuple[str, ...] | None:
    """Return the words that do it; no shell sees them. None: nobody said how."""
    if request.manager == "slurm":
        if step.action == DRAIN:
            return ("scontrol", "update", f"nodename={step.host}", "state=drain", f"reason={step.reason}")
        return ("scontrol", "update", f"nodename={step.host}", "state=resume")
    if request.manager == "kubernetes":  # shown as what it would be by hand; done over the API
        taint = f"{TAINT}=:{EFFECT}" if step.action == DRAIN else f"{TAINT}-"
        return ("kubectl", "taint", "node", step.host, taint)
    words = request.command if step.action == DRAIN else request.undo_command
    return _filled(words, step) or None


def _filled(words: Iterable[str], step: Step) -> tuple[str, ...]:
    return tuple(word.replace("{host}", step.host).replace("{reason}", step.reason) for word in words)


def _call(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_WITHIN_S,
            check=False,
        )
    except OSError as error:
        raise TargetError(f"{command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise TargetError(f"{command[0]}: not done within {COMMAND_WITHIN_S:.0f} s") from error
    if done.returncode != 0:
        raise TargetError(f"{command[0]}: exit code {done.returncode}: {done.stderr.strip()[-200:]}")


def outcome_of(acted: Sequence[Acted]) -> Outcome:
    """Return PASS where all that should be done is done or planned, else INCONCLUSIVE."""
    is_open = any(each.state in ("held", "failed") for each in acted)
    return Outcome.INCONCLUSIVE if is_open else Outcome.PASS


def render_acted(acted: Sequence[Acted], *, as_json: bool) -> str:
    """Return what goes to standard output."""
    if as_json:
        steps = [asdict(each.step) | {"state": each.state, "detail": each.detail} for each in acted]
        return json.dumps({"outcome": outcome_of(acted).value, "steps": steps}) + "\n"
    lines = [
        f"{each.state:<8} {each.step.action or '-':<8} {each.step.host}: {each.step.reason}"
        + (f" ({each.detail})" if each.detail else "")
        for each in acted
    ]
    return (
        "".join(f"{line}\n" for line in lines)
        or "nothing to do: no host failed, and none of ours is drained\n"
    )

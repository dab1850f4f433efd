"""What an experiment would hit, exactly, and a hash of it: ``gameday run --plan HASH`` does just that."""

from __future__ import annotations

import datetime
import hashlib
import importlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from experiments.actions import LAB_VARIABLE
from experiments.alerts.watch import look_at_alerts
from experiments.chaos.run_context import RUN_VARIABLE, SEED_VARIABLE
from experiments.declared.fault import HOSTS, KUBERNETES, OUR_MODULES, TRAINING, foreign_actions, module_of
from experiments.declared.fault import NAME as DECLARED
from experiments.experiment import Experiment
from experiments.faults.fault import PLATFORM, Fault
from experiments.injecting import permission
from experiments.injecting.bounds import MAX_SHARE, planning, refusal_of, share_of
from experiments.injecting.permission import Condition
from experiments.kube.samples import OF_API
from experiments.lab.control import Lab, process_to_json, read_lab
from experiments.training.actions import JOB_VARIABLE
from experiments.training.job_folder import Job, read_job
from probes.errors import ConfigError, SuiteError
from probes.json_types import JsonObject
from probes.slo import GOODPUT, Slo
from reports.record import mask_secrets

# What a method may call too, and what breaks nothing: it is not carried out to find out what it would hit.
HARMLESS = frozenset(
    {"undo_faults", "restore_replicas", "replicas_serve", "replicas_recovered"}
    | {"hosts_answer", "process_runs", "faults_healed"}
    | {"replicas_ready", "service_serves", "nodes_schedulable", "no_pods_wait"}
)
OF_NODES = ("node.", "zone.", "device-plugin.")  # begins the faults of a cluster whose victims are nodes
REACCEPT = "reaccept"  # as the owner of a host names the burn-in after a fault
HASH_CHARS_MIN = 12  # of a hash that somebody types


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What one action would hit."""

    action: str
    selector: JsonObject  # the action's arguments
    fault: str
    subject: str
    ends_by: str
    victims: list[JsonObject]  # name, pid and start time of each; of a host, what is hit there
    at_once: int  # victims at any one time
    replicas: int  # or hosts of the target
    share: float | None  # of them; of the requests, at the gateway; None: nobody can know
    others_serving: int
    in_flight: int  # requests that the victims carry at this moment; not in the hash
    undo_after_s: float | None = None  # then the host undoes it without us; None: it is not on a host
    carries: list[str] = field(
        default_factory=list
    )  # what else the host does, as far as seen; not in the hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A resolved experiment."""

    title: str
    seed: int
    lab: JsonObject  # folder and supervisor
    targets: list[Target]
    max_share: float | None
    document_sha256: str
    workload_sha256: str
    budget_share: float | None  # of the error budget that it may cost; None: nothing promises goodput

    @property
    def hash(self) -> str:
        """Return the SHA-256 of all that has to stay as it was shown."""
        whole = asdict(self)
        for target in whole["targets"]:
            del target["in_flight"], target["carries"]
        return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()

    def to_json(self) -> JsonObject:
        """Return the plan with its hash as plain JSON."""
        return asdict(self) | {"hash": self.hash}


def resolve_plan(experiment: Experiment, lab_folder: Path, *, seed: int) -> Plan:
    """Find out what each action would hit now; nothing is touched.

    Of an action that is not ours only what the experiment declares is known: it chooses its victims itself.

    Raises:
        ConfigError: a selection is empty or too wide, or the experiment breaks nothing of the lab.
        TargetError: a target is not there, or not one that may be hit.
    """
    if experiment.target.is_lab:
        lab = read_lab(lab_folder)
        where = {"folder": str(lab.folder), "supervisor": process_to_json(lab.supervisor)}
        targets = [
            target
            for activity in _actions(experiment)
            for target in _resolve(activity, experiment, lab, seed)
        ]
    elif experiment.target.kind == HOSTS:
        names = [host.name for host in experiment.target.hosts]
        where = {"target": experiment.target.name, "folder": ", ".join(names)}
        where["url"] = experiment.target.endpoint
        if experiment.reaccept is not None:
            where[REACCEPT] = experiment.reaccept.profile
        targets = [
            target
            for activity in _actions(experiment)
            for target in _resolve_on_hosts(activity, experiment, seed)
        ]
        targets += [_declared(action, experiment) for action in foreign_actions(experiment.document)]
    elif experiment.target.kind == KUBERNETES:
        where, targets = _resolve_on_cluster(experiment, seed)
    elif experiment.target.kind == TRAINING:
        job = read_job(lab_folder)
        where = {"target": TRAINING, "folder": str(job.folder), "supervisor": process_to_json(job.supervisor)}
        targets = [
            target
            for activity in _actions(experiment)
            for target in _resolve_on_job(activity, experiment, job, seed)
        ]
    else:
        where = {
            "target": experiment.target.name,
            "folder": str(lab_folder),
            "url": experiment.target.endpoint,
        }
        targets = [_declared(action, experiment) for action in foreign_actions(experiment.document)]
    shares = [1.0 if target.share is None else target.share for target in targets]
    share = max(shares, default=0.0)
    return Plan(
        title=experiment.title,
        seed=seed,
        lab=where,
        targets=targets,
        max_share=experiment.max_share,
        document_sha256=_digest(json.dumps(experiment.document, sort_keys=True, default=str).encode()),
        workload_sha256=_digest(experiment.workload.read_bytes()) if experiment.workload else "",
        budget_share=budget_cost(
            share, experiment.recovery_s, experiment.slos["after"], window_days=experiment.budget_window_days
        ),
    )


def _declared(activity: JsonObject, experiment: Experiment) -> Target:
    """Say of somebody else's action what the experiment declares."""
    name = str(activity["name"])
    fault = next((fault for fault in experiment.faults if fault.action == name), None)
    unknown = "harmless, as declared" if name in experiment.harmless else "unknown: nothing is declared of it"
    return Target(
        action=name,
        selector=mask_secrets(dict(activity["provider"])),  # the whole is in document_sha256
        fault=DECLARED,
        subject=unknown if fault is None else fault.subject,
        ends_by=unknown if fault is None else fault.ends_by,
        victims=[],
        at_once=0,
        replicas=0,
        share=0.0 if name in experiment.harmless else None,
        others_serving=0,
        in_flight=0,
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _actions(experiment: Experiment) -> Iterator[JsonObject]:
    for activity in experiment.document["method"]:
        provider = activity.get("provider") or {}
        is_ours = activity.get("type") == "action" and module_of(activity) in OUR_MODULES
        if is_ours and provider["func"] not in HARMLESS:
            yield activity


def _resolve(activity: JsonObject, experiment: Experiment, lab: Lab, seed: int) -> list[Target]:
    with tempfile.TemporaryDirectory() as nowhere:
        where = _environment({LAB_VARIABLE: str(lab.folder)}, seed, nowhere)
        arguments, found = _what_it_hits(activity, experiment, where)
    return [_target(str(activity["name"]), arguments, f, c, experiment.max_share, lab) for f, c in found]


def _resolve_on_job(activity: JsonObject, experiment: Experiment, job: Job, seed: int) -> list[Target]:
    with tempfile.TemporaryDirectory() as nowhere:
        where = _environment({JOB_VARIABLE: str(job.folder)}, seed, nowhere)
        arguments, found = _what_it_hits(activity, experiment, where)
    return [_on_job(str(activity["name"]), arguments, f, c, experiment.max_share) for f, c in found]


def _resolve_on_hosts(activity: JsonObject, experiment: Experiment, seed: int) -> list[Target]:
    from experiments.hosts import choice  # with paramiko, which others need not wait for

    aim = choice.Target(hosts=experiment.target.hosts, seed=seed, run="")
    arguments, found = _what_it_hits(activity, experiment, choice.aiming_at(aim))
    return [_on_host(str(activity["name"]), arguments, f, c, experiment.max_share) for f, c in found]


def _resolve_on_cluster(experiment: Experiment, seed: int) -> tuple[JsonObject, list[Target]]:
    from experiments.kube.aim import Aim, aiming_at  # with the client, which others need not wait for
    from experiments.kube.clocks import check_recovery

    cluster = experiment.target.kubernetes
    assert cluster is not None
    aim = Aim(name=experiment.target.name, cluster=cluster, seed=seed, run="")
    _, identity = aim.reach()
    where: JsonObject = {"target": experiment.target.name, "url": experiment.target.endpoint}
    where |= {"folder": f"{identity}, namespaces {', '.join(cluster.namespaces)}"}
    where["cluster"] = identity.to_json() | cluster.to_json()
    targets = []
    for activity in _actions(experiment):
        arguments, found = _what_it_hits(activity, experiment, aiming_at(aim))
        name = str(activity["name"])
        targets += [_on_cluster(name, arguments, f, c, experiment.max_share) for f, c in found]
        for _, captured in found:
            check_recovery(captured, experiment.recovery_s)
    return where, targets + [_declared(action, experiment) for action in foreign_actions(experiment.document)]


def _what_it_hits(
    activity: JsonObject, experiment: Experiment, surroundings: AbstractContextManager[None]
) -> tuple[JsonObject, list[tuple[Fault, JsonObject]]]:
    """Carry an action of ours out as far as the point at which it would break something."""
    from chaoslib import substitute
    from chaoslib.configuration import load_configuration

    provider = activity["provider"]
    configuration = load_configuration(experiment.document.get("configuration") or {})
    arguments = substitute(provider.get("arguments") or {}, configuration, {})
    module, func = importlib.import_module(provider["module"]), str(provider["func"])
    if not hasattr(module, func):
        raise ConfigError(f"action {activity.get('name')!r}: {provider['module']} has no {func!r}")
    with surroundings, planning() as found:
        getattr(module, func)(**arguments)
    return arguments, found


@contextmanager
def _environment(where: dict[str, str], seed: int, run: str) -> Iterator[None]:
    """Name target, seed and a folder without a ledger for the actions, as the game day's child has them."""
    ours = where | {SEED_VARIABLE: str(seed), RUN_VARIABLE: run}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _target(
    action: str, selector: JsonObject, fault: Fault, captured: JsonObject, max_share: float | None, lab: Lab
) -> Target:
    _refuse_too_wide(action, fault, captured, max_share)
    victims = [*captured["victims"]]
    names = {str(victim["name"]) for victim in victims}
    carried = [r.in_flight for r in lab.replicas if r.name in names or "trouble" in captured]
    return Target(
        action=action,
        selector=selector,
        fault=fault.name,
        subject=fault.subject(captured),
        ends_by=fault.ends_by,
        victims=victims,
        at_once=int(captured.get("at_once", len(victims))),
        replicas=len(lab.replicas),
        share=share_of(captured),
        others_serving=sum(replica.name not in names for replica in lab.serving),
        in_flight=sum(carried),
    )


def _on_host(
    action: str, selector: JsonObject, fault: Fault, captured: JsonObject, max_share: float | None
) -> Target:
    _refuse_too_wide(action, fault, captured, max_share)
    return Target(
        action=action,
        selector=selector,
        fault=fault.name,
        subject=fault.subject(captured),
        ends_by=fault.ends_by,
        victims=[*captured["victims"]],
        at_once=int(captured["at_once"]),
        replicas=len(captured["others"]) + 1,
        share=share_of(captured),
        others_serving=len(captured["others"]) + 1 - int(captured["at_once"]),
        in_flight=0,
        undo_after_s=captured["undo_after_s"],
        carries=[*captured["carries"]],
    )


def _on_cluster(
    action: str, selector: JsonObject, fault: Fault, captured: JsonObject, max_share: float | None
) -> Target:
    whole = len(captured["victims"]) + len(captured["others"])
    target = _on_job(action, selector, fault, captured, max_share)
    return replace(
        target,
        at_once=int(captured["at_once"]),
        others_serving=whole - int(captured["at_once"]),
        replicas=whole,
        carries=[*captured["carries"]],
    )


def _on_job(
    action: str, selector: JsonObject, fault: Fault, captured: JsonObject, max_share: float | None
) -> Target:
    _refuse_too_wide(action, fault, captured, max_share)
    victims, others = captured["victims"], len(captured["others"])
    return Target(
        action=action,
        selector=selector,
        fault=fault.name,
        subject=fault.subject(captured),
        ends_by=fault.ends_by,
        victims=[*victims],
        at_once=len(victims),
        replicas=len(victims) + others,
        share=share_of(captured),
        others_serving=others,
        in_flight=0,
    )


def _refuse_too_wide(action: str, fault: Fault, captured: JsonObject, max_share: float | None) -> None:
    if refusal := refusal_of(fault, captured, max_share):
        raise ConfigError(f"action {action!r}: {refusal}")


def budget_cost(share: float, lasts_s: float, slos: Sequence[Slo], *, window_days: float) -> float | None:
    """Return the share of the error budget that uniform traffic loses: f * D / ((1 - SLO) * W).

    The duration is the expectation for recovery: what a day may cost at most that goes as expected.
    """
    objectives = [slo.objective for slo in slos if slo.metric == GOODPUT]
    if not objectives:
        return None
    return share * lasts_s / ((1 - max(objectives)) * window_days * 86400)


def look_at_conditions(experiment: Experiment, plan: Plan, folder: Path, out: Path) -> list[Condition]:
    """Look at everything that has to be so before the plan may be carried out."""
    if experiment.target.kind == TRAINING:
        job = read_job(folder)
        return [
            permission.look_at_permission(job.folder),
            permission.look_at_window(experiment.window, datetime.datetime.now(datetime.UTC)),
            permission.look_at_others(job.folder),
            permission.look_at_leftovers(job.supervisor, out),
            permission.look_at_ranks(job),
            *([] if experiment.alerts is None else [look_at_alerts(experiment.alerts)]),
        ]
    if experiment.target.kind == HOSTS:
        from experiments.hosts.conditions import look_at_hosts

        return [
            permission.look_at_window(experiment.window, datetime.datetime.now(datetime.UTC)),
            permission.look_at_others(folder),
            *look_at_hosts(experiment.target.hosts, faults_by_host(plan)),
        ]
    if experiment.target.kubernetes is not None:
        from experiments.kube.conditions import look_at_cluster

        return [
            permission.look_at_window(experiment.window, datetime.datetime.now(datetime.UTC)),
            permission.look_at_others(folder),
            permission.look_at_declared_leftovers(experiment.target.name, out),
            *look_at_cluster(experiment.target.kubernetes, *faults_and_nodes(plan)),
            *([] if experiment.alerts is None else [look_at_alerts(experiment.alerts)]),
        ]
    if not experiment.target.is_lab:
        return [
            permission.look_at_permission(folder),
            permission.look_at_window(experiment.window, datetime.datetime.now(datetime.UTC)),
            permission.look_at_others(folder),
            permission.look_at_declared_leftovers(experiment.target.name, out),
        ]
    lab = read_lab(folder)
    return [
        permission.look_at_permission(lab.folder),
        permission.look_at_window(experiment.window, datetime.datetime.now(datetime.UTC)),
        permission.look_at_others(lab.folder),
        permission.look_at_leftovers(lab.supervisor, out),
        permission.look_at_health(lab),
        *permission.look_at_work(lab, experiment.lab_step_work_ms),
        *([] if experiment.alerts is None else [look_at_alerts(experiment.alerts)]),
    ]


def faults_by_host(plan: Plan) -> dict[str, list[str]]:
    """Return what each host would get, for its owner to allow: faults, and the burn-in afterwards."""
    found: dict[str, list[str]] = {}
    for target in plan.targets:
        if target.undo_after_s is not None:
            for victim in target.victims:
                found.setdefault(str(victim["name"]), []).append(target.fault)
    if REACCEPT in plan.lab:
        for names in found.values():
            names.append(REACCEPT)
    return found


def faults_and_nodes(plan: Plan) -> tuple[list[str], list[str]]:
    """Return the faults of a plan on a cluster, and the nodes that they would hit."""
    nodes = [str(v["name"]) for t in plan.targets if t.fault.startswith(OF_NODES) for v in t.victims]
    return [target.fault for target in plan.targets if target.fault != DECLARED], nodes


def confirm_plan(plan: Plan, wanted: str) -> None:
    """See that a plan is the one that somebody has confirmed.

    Raises:
        ConfigError: it is not.
    """
    if len(wanted) < HASH_CHARS_MIN or not plan.hash.startswith(wanted.lower()):
        raise ConfigError(
            f"--plan: {wanted!r} is not what would be done now ({plan.hash}): targets, experiment, workload, "
            f"seed or bounds are others; see `overproof gameday plan` ({HASH_CHARS_MIN} characters at least)"
        )


def try_to_resolve(experiment: Experiment, lab_folder: Path, *, seed: int) -> Plan | str:
    """Resolve a plan where nobody asked for one; what is not there is for the action to refuse.

    Raises:
        ConfigError: a selection is empty or too wide.
    """
    try:
        return resolve_plan(experiment, lab_folder, seed=seed)
    except ConfigError:
        raise
    except (SuiteError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


def render_plan(plan: Plan, conditions: Sequence[Condition], warnings: Sequence[str] = ()) -> str:
    """Return the plan for a person who has to say yes or no."""
    lines = [plan.title, f"{plan.lab.get('target', 'lab')} {plan.lab['folder']}, seed {plan.seed}"]
    for target in plan.targets:
        if target.share is None or target.fault == DECLARED:
            lines.append(f"  {target.action}: an action that is not ours, on {target.subject}")
            lines.append(f"    it chooses its victims itself: they are unknown; ended by {target.ends_by}")
            continue
        if target.undo_after_s is not None:
            lines += _host_lines(target)
            continue
        if "cluster" in plan.lab:
            lines += _cluster_lines(target)
            continue
        who = ", ".join(f"{v['name']} (pid {v['pid']}, started {v['start_time']})" for v in target.victims)
        parts = "replicas" if plan.lab.get("target") != TRAINING else "of their kind"
        of = f"{target.share:.0%} of requests" if not target.victims else (
            f"{target.at_once} of {target.replicas} {parts} at once ({target.share:.0%})"
        )  # fmt: skip
        lines.append(
            f"  {target.action}: {target.fault} on {who or target.subject}; selected by {target.selector}"
        )
        under_way = f"; {target.in_flight} requests under way there" if parts == "replicas" else ""
        lines.append(f"    {of}{under_way}; ended by {target.ends_by}")
        verb = "serve" if parts == "replicas" else "run"
        lines.append(f"    {target.others_serving} others {verb}, and have to at that moment")
    if REACCEPT in plan.lab:
        lines.append(f"  then a burn-in ({plan.lab[REACCEPT]}) of each host that was hit")
    limit = f"{MAX_SHARE:.0%} of several" if plan.max_share is None else f"{plan.max_share:.0%}"
    lines.append(f"  at most {limit} at once")
    cost = "unknown: no goodput promise" if plan.budget_share is None else f"{plan.budget_share:.4%}"
    lines.append(f"  error budget that it may cost: {cost}")
    lines += [f"  {'ok ' if c.is_met else 'NOT'} {c.name}: {c.observed}" for c in conditions]
    lines += [f"  !!  {warning}" for warning in warnings]
    return "\n".join([*lines, plan.hash])


def _cluster_lines(target: Target) -> list[str]:
    ends = "healed by the platform" if target.ends_by == PLATFORM else "undone by us"
    who = ", ".join(f"{victim['name']} ({victim['what']})" for victim in target.victims)
    kind = "nodes" if target.fault.startswith(OF_NODES) else "pods"
    lines = [f"  {target.action}: {target.fault} on {who}; selected by {target.selector}"]
    if target.fault.startswith(OF_API):
        return [*lines, f"    no pod and no node; {ends}", *(f"    {carried}" for carried in target.carries)]
    lines.append(f"    {target.at_once} of {target.replicas} {kind} at once ({target.share:.0%}); {ends}")
    return [*lines, *(f"    {carried}" for carried in target.carries)]


def _host_lines(target: Target) -> list[str]:
    ends = "healed by the platform, else undone" if target.ends_by == PLATFORM else "undone by us"
    lines = [f"  {target.action}: {target.fault} on {target.subject}; selected by {target.selector}"]
    lines.append(
        f"    {target.at_once} of {target.replicas} hosts at once ({target.share:.0%}); {ends}, and by the "
        f"host itself after {target.undo_after_s:g} s whatever becomes of us"
    )
    if target.carries:
        lines.append(f"    at stake there too: {', '.join(target.carries)}")
    return lines

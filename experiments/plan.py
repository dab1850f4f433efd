"""What an experiment would hit, exactly, and a hash of it: ``gameday run --plan HASH`` does just that."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from experiments.chaos.run_context import RUN_VARIABLE, SEED_VARIABLE
from experiments.declared.fault import NAME as DECLARED
from experiments.declared.fault import foreign_actions, module_of
from experiments.experiment import Experiment
from experiments.faults.fault import Fault
from experiments.injecting.bounds import MAX_SHARE, planning, refusal_of, share_of
from experiments.injecting.permission import Condition
from experiments.targets.all import OUR_MODULES, Kind, load_kind
from experiments.targets.kind import Asked
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
REACCEPT = "reaccept"  # as the owner of a host names the burn-in after a fault
HASH_CHARS_MIN = 12  # of a hash that somebody types


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
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
    targets: list[Hit]
    max_share: float | None
    document_sha256: str
    workload_sha256: str
    budget_share: float | None  # of the error budget that it may cost; None: nothing promises goodput
    kind: Kind  # of the target: how it is shown; follows from the document

    @property
    def hash(self) -> str:
        """Return the SHA-256 of all that has to stay as it was shown."""
        whole = self._shown()
        for target in whole["targets"]:
            del target["in_flight"], target["carries"]
        return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()

    def to_json(self) -> JsonObject:
        """Return the plan with its hash as plain JSON."""
        return self._shown() | {"hash": self.hash}

    def _shown(self) -> JsonObject:
        return {key: value for key, value in asdict(self).items() if key != "kind"}


def resolve_plan(experiment: Experiment, folder: Path, *, seed: int) -> Plan:
    """Find out what each action would hit now, on the target of this folder; nothing is touched.

    Of an action that is not ours only what the experiment declares is known: it chooses its victims itself.

    Raises:
        ConfigError: a selection is empty or too wide, or the experiment breaks nothing of the lab.
        TargetError: a target is not there, or not one that may be hit.
    """
    ground = load_kind(experiment.target.kind).ground(experiment, folder, seed)
    targets = []
    for activity in _actions(experiment):
        arguments, found = _what_it_hits(activity, experiment, ground.surroundings())
        for fault, captured in found:
            hit = _hit(str(activity["name"]), arguments, fault, captured, experiment.max_share)
            targets.append(ground.refine(hit, captured))
    targets += [_declared(action, experiment) for action in foreign_actions(experiment.document)]
    share = max((1.0 if target.share is None else target.share for target in targets), default=0.0)
    return Plan(
        title=experiment.title,
        seed=seed,
        lab=ground.where,
        targets=targets,
        max_share=experiment.max_share,
        document_sha256=_digest(json.dumps(experiment.document, sort_keys=True, default=str).encode()),
        workload_sha256=_digest(experiment.workload.read_bytes()) if experiment.workload else "",
        budget_share=budget_cost(
            share, experiment.recovery_s, experiment.slos["after"], window_days=experiment.budget_window_days
        ),
        kind=experiment.target.kind,
    )


def _declared(activity: JsonObject, experiment: Experiment) -> Hit:
    """Say of somebody else's action what the experiment declares."""
    name = str(activity["name"])
    fault = next((fault for fault in experiment.faults if fault.action == name), None)
    unknown = "harmless, as declared" if name in experiment.harmless else "unknown: nothing is declared of it"
    return Hit(
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
def in_environment(variable: str, folder: Path, seed: int) -> Iterator[None]:
    """Name target, seed and a folder without a ledger for the actions, as the game day's child has them."""
    with tempfile.TemporaryDirectory() as nowhere:
        ours = {variable: str(folder), SEED_VARIABLE: str(seed), RUN_VARIABLE: nowhere}
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


def _hit(
    action: str, selector: JsonObject, fault: Fault, captured: JsonObject, max_share: float | None
) -> Hit:
    if refusal := refusal_of(fault, captured, max_share):
        raise ConfigError(f"action {action!r}: {refusal}")
    victims = [*captured["victims"]]
    at_once, whole = int(captured.get("at_once", len(victims))), len(victims) + len(captured["others"])
    return Hit(
        action=action,
        selector=selector,
        fault=fault.name,
        subject=fault.subject(captured),
        ends_by=fault.ends_by,
        victims=victims,
        at_once=at_once,
        replicas=whole,
        share=share_of(captured),
        others_serving=whole - at_once,
        in_flight=0,
        carries=[*captured.get("carries", ())],
    )


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
    asked = Asked(experiment=experiment, plan=plan, folder=folder, out=out)
    return [*load_kind(experiment.target.kind).conditions(asked)]


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


def try_to_resolve(experiment: Experiment, folder: Path, *, seed: int) -> Plan | str:
    """Resolve a plan where nobody asked for one; what is not there is for the action to refuse.

    Raises:
        ConfigError: a selection is empty or too wide.
    """
    try:
        return resolve_plan(experiment, folder, seed=seed)
    except ConfigError:
        raise
    except (SuiteError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


def render_plan(plan: Plan, conditions: Sequence[Condition], warnings: Sequence[str] = ()) -> str:
    """Return the plan for a person who has to say yes or no."""
    lines = [plan.title, f"{plan.lab.get('target', 'lab')} {plan.lab['folder']}, seed {plan.seed}"]
    for hit in plan.targets:
        if hit.share is None or hit.fault == DECLARED:
            lines.append(f"  {hit.action}: an action that is not ours, on {hit.subject}")
            lines.append(f"    it chooses its victims itself: they are unknown; ended by {hit.ends_by}")
        else:
            lines += load_kind(plan.kind).lines(hit)
    if REACCEPT in plan.lab:
        lines.append(f"  then a burn-in ({plan.lab[REACCEPT]}) of each host that was hit")
    limit = f"{MAX_SHARE:.0%} of several" if plan.max_share is None else f"{plan.max_share:.0%}"
    lines.append(f"  at most {limit} at once")
    cost = "unknown: no goodput promise" if plan.budget_share is None else f"{plan.budget_share:.4%}"
    lines.append(f"  error budget that it may cost: {cost}")
    lines += [f"  {'ok ' if c.is_met else 'NOT'} {c.name}: {c.observed}" for c in conditions]
    lines += [f"  !!  {warning}" for warning in warnings]
    return "\n".join([*lines, plan.hash])


def process_lines(hit: Hit, *, of: str, serve: str, under_way: str = "") -> list[str]:
    """Return the lines of a fault that hits processes, or the way to them."""
    who = ", ".join(f"{v['name']} (pid {v['pid']}, started {v['start_time']})" for v in hit.victims)
    whole = f"{hit.share:.0%} of requests"
    if hit.victims:
        whole = f"{hit.at_once} of {hit.replicas} {of} at once ({hit.share:.0%})"
    return [
        f"  {hit.action}: {hit.fault} on {who or hit.subject}; selected by {hit.selector}",
        f"    {whole}{under_way}; ended by {hit.ends_by}",
        f"    {hit.others_serving} others {serve}, and have to at that moment",
    ]

"""An experiment file: a Chaos Toolkit experiment with an ``extensions`` entry named ``overproof``.

Chaos Toolkit passes over keys that it does not know: with ``rollback:`` for ``rollbacks:`` it undoes nothing.
So the shape is checked here, with lines, before Chaos Toolkit's own check is asked.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, Field, field_validator, model_validator

from experiments.alerts.noticed import Alerts
from experiments.alerts.spec import AlertsSpec
from experiments.declared.fault import Declared, foreign_actions, module_of
from experiments.declared.spec import FaultSpec, to_faults
from experiments.guards.guard import Guard
from experiments.guards.spec import GuardSpec
from experiments.hosts.reaccept_spec import Reaccept, ReacceptSpec
from experiments.injecting.window import Window, WindowSpec
from experiments.targets.all import KINDS, LAB, OUR_MODULES, OURS, TRAINING
from experiments.targets.spec import TargetSpec
from experiments.targets.target import LAB_TARGET, TRAINING_TARGET, Target
from experiments.training.expectations import Expectations
from experiments.training.expectations_spec import TrainingSpec
from probes.errors import ConfigError
from probes.json_types import JsonObject
from probes.slo import Slo
from probes.slo_spec import SloSpec, expand, known_slos, to_slos
from probes.spec import Spec, check_spec, find_line, load_yaml

NAME = "overproof"
PHASES = ("before", "during", "after")
ACTIVITY_DEADLINE_S = 60.0  # of an activity that states none
LOOK_S = 60.0  # that one look at a fault of others may take
PLAIN_RECOVERY_S = 60.0  # of an experiment without our extension
SHAPE_NOTE = "overproof schema experiment shows the extension's keys"


class PhaseSlosSpec(Spec):
    """Promises for each phase: before the fault, until everything is back, and after."""

    before: tuple[SloSpec, ...] = Field(min_length=1)
    during: tuple[SloSpec, ...] = Field(min_length=1)
    after: tuple[SloSpec, ...] = Field(min_length=1)

    @field_validator("before", "during", "after")
    @classmethod
    def _can_be_told_apart(cls, specs: tuple[SloSpec, ...]) -> tuple[SloSpec, ...]:
        known_slos(specs)
        return specs


class WorkloadSlosSpec(Spec):
    """The promises of a workload file, for an experiment that states none."""

    slos: tuple[SloSpec, ...]

    def to_slos(self, path: Path) -> tuple[Slo, ...]:
        """Return the promises."""
        return _promises(self.slos, path)


class ExtensionSpec(Spec):
    """The ``overproof`` entry under ``extensions``."""

    name: Literal["overproof"]
    target: Literal["lab", "training"] | TargetSpec = Field(
        description="What may be hit: our lab, its training job, hosts, or a target by its name, for actions"
        " that are not ours."
    )
    workload: str = Field(
        default="",
        description="Workload file, relative to the experiment's folder; absent: no traffic, which only a"
        " target of hosts and a training job may do without.",
    )
    training: TrainingSpec | None = Field(
        default=None, description="What a training job has to stand, in place of workload and slos."
    )
    slos: PhaseSlosSpec | None = Field(default=None, description="What the traffic has to keep.")
    steady_s: float = Field(
        default=10.0, gt=0, le=3600, description="Seconds of good traffic before the fault."
    )
    recovery_s: float = Field(
        gt=0, le=3600, description="Seconds within which traffic and redundancy are back."
    )
    after_s: float = Field(default=10.0, gt=0, le=3600, description="Seconds of traffic watched afterwards.")
    requests_min: int = Field(default=30, ge=1, description="Requests that each phase needs at least.")
    guards: tuple[GuardSpec, ...] = Field(default=(), description="What stops the game day at once.")
    faults: tuple[FaultSpec, ...] = Field(
        default=(), description="What actions that are not ours break, how that is seen, and what undoes it."
    )
    harmless: tuple[str, ...] = Field(
        default=(), description="Actions of the method that are not ours and break nothing, by name."
    )
    alerts: AlertsSpec | None = Field(
        default=None, description="The site's alerts that have to notice it; absent: our own probes do."
    )
    max_share: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Greatest share of the replicas that one fault may hit at once; absent: 0.5 for several.",
    )
    window: WindowSpec | None = Field(default=None, description="When it may run; absent: at any time.")
    lab_step_work_ms: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="Processor time that each step of the lab's replicas has to take.",
    )
    budget_window_days: float = Field(
        default=30.0, gt=0, le=366, description="Days over which the error budget of `after` counts."
    )
    reaccept: ReacceptSpec | None = Field(
        default=None, description="Burn-in of each host that was hit, before it is given back; absent: none."
    )

    @field_validator("target", mode="before")
    @classmethod
    def _is_the_lab_or_named(cls, target: object) -> object:
        if isinstance(target, str) and target not in OURS:
            raise ValueError(
                f"input should be {LAB!r}, {TRAINING!r}, or {{name: …, endpoint: …}} of another target"
            )
        return target

    @model_validator(mode="after")
    def _has_traffic_and_promises(self) -> ExtensionSpec:
        is_training = self.target == TRAINING or (isinstance(self.target, TargetSpec) and self.target.job)
        if bool(is_training) != (self.training is not None):
            said = "this key is missing" if is_training else "only of a training job: target: training"
            raise ValueError(f"training: {said}")
        if is_training and (self.workload or self.slos):
            raise ValueError("workload: a training job is watched in its place; write two experiments")
        is_needed = isinstance(self.target, str) or not self.target.is_judged_without_traffic
        missing = [name for name in ("workload", "slos") if not getattr(self, name) and not is_training]
        if missing and (is_needed or len(missing) == 1):
            raise ValueError(f"{missing[0]}: this key is missing")
        return self

    @model_validator(mode="after")
    def _has_hosts_to_reaccept(self) -> ExtensionSpec:
        if self.reaccept is not None and (isinstance(self.target, str) or not self.target.hosts):
            raise ValueError(
                "reaccept: is for hosts, and the target has none (target: {name: …, hosts: […]})"
            )
        return self

    @field_validator("guards")
    @classmethod
    def _have_names(cls, guards: tuple[GuardSpec, ...]) -> tuple[GuardSpec, ...]:
        names = [guard.to_guard().name for guard in guards]
        if len(set(names)) != len(names):
            raise ValueError(f"two guards have one name: {', '.join(sorted(names))}; give each a name")
        return guards


class ProviderSpec(Spec):
    """Who carries out an activity; what else it takes is checked by Chaos Toolkit."""

    model_config = ConfigDict(extra="allow", frozen=True)
    type: Literal["python", "process", "http"]


class ActivitySpec(Spec):
    """A probe or an action."""

    type: Literal["probe", "action"] | None = None
    name: str | None = None
    ref: str | None = None
    provider: ProviderSpec | None = None
    tolerance: Any = None
    timeout: float | None = Field(default=None, gt=0)
    pauses: dict[str, Any] | None = None
    background: bool | None = None
    controls: Any = None
    secrets: Any = None
    configuration: Any = None
    dry: Any = None


class HypothesisSpec(Spec):
    """What is true of the system when it is well."""

    title: str
    probes: list[ActivitySpec] = Field(default_factory=list)
    controls: Any = None


class ExperimentSpec(Spec):
    """The keys of a Chaos Toolkit experiment."""

    title: str
    description: str
    version: Any = None
    tags: list[str] | None = None
    contributions: Any = None
    configuration: dict[str, Any] | None = None
    secrets: dict[str, Any] | None = None
    controls: Any = None
    runtime: dict[str, Any] | None = None
    dry: Any = None
    hypothesis: HypothesisSpec | None = Field(default=None, alias="steady-state-hypothesis")
    method: list[ActivitySpec]
    rollbacks: list[ActivitySpec] = Field(default_factory=list)
    extensions: list[dict[str, Any]] = Field(default_factory=list)

    @field_validator("extensions")
    @classmethod
    def _are_ours_at_most_once(cls, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        names = [str(entry.get("name")) for entry in entries]
        is_mistyped = NAME not in names and bool(get_close_matches(NAME, names, cutoff=0.8))
        if names.count(NAME) > 1 or is_mistyped:
            raise ValueError(f"one entry named {NAME!r} is wanted here; {SHAPE_NOTE}")
        return entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A checked experiment file."""

    path: Path
    title: str
    document: JsonObject  # as Chaos Toolkit takes it
    workload: Path | None  # None: one for plain Chaos Toolkit, and nobody named a workload
    slos: dict[str, tuple[Slo, ...]]  # by phase
    steady_s: float
    recovery_s: float
    after_s: float
    requests_min: int
    guards: tuple[Guard, ...] = ()
    max_share: float | None = None  # of the replicas, for one fault; None: half, where it has several victims
    window: Window | None = None  # None: at any time
    budget_window_days: float = 30.0
    lab_step_work_ms: float = 0.0  # of the lab's replicas, so that they feel it when a processor is short
    alerts: Alerts | None = None  # None: noticing is up to our own probes
    target: Target = LAB_TARGET
    faults: tuple[Declared, ...] = ()  # by actions that are not ours
    harmless: tuple[str, ...] = ()  # actions that are not ours and break nothing
    reaccept: Reaccept | None = None  # None: hosts that were hit are given back as they are
    training: Expectations | None = None  # None: the service is no training job

    @property
    def chaos_deadline_s(self) -> float:
        """How long Chaos Toolkit may take when every activity uses up its own deadline."""
        hypothesis = self.document.get("steady-state-hypothesis") or {}
        probes = [*hypothesis.get("probes", ())] * 2  # before and after the method
        activities = [*probes, *self.document["method"], *self.document.get("rollbacks", ())]
        looks_s = sum(2 * (LOOK_S + fault.within_s) for fault in self.faults)
        return 30.0 + looks_s + sum(deadline_s(activity) + _pauses_s(activity) for activity in activities)

    @property
    def pauses_s(self) -> float:
        """How long the method waits on purpose."""
        return sum(_pauses_s(activity) for activity in self.document["method"])


def deadline_s(activity: JsonObject) -> float:
    """Return how long an activity may take; Chaos Toolkit itself ignores this for Python."""
    provider = activity.get("provider") or {}
    stated = activity.get("timeout") or provider.get("timeout")
    return float(stated) if isinstance(stated, (int, float)) else ACTIVITY_DEADLINE_S


def _pauses_s(activity: JsonObject) -> float:
    pauses = (activity.get("pauses") or {}).values()
    return sum(float(pause) for pause in pauses if isinstance(pause, (int, float)))


def load_experiment(path: Path, *, workload: Path | None = None) -> Experiment:
    """Read and check an experiment file, with Chaos Toolkit's own check last.

    One written for plain Chaos Toolkit, without our extension, takes its traffic and its promises for every
    phase from ``workload``; without that nothing can be promised, so its verdict stays open.

    Raises:
        ConfigError: it cannot be read or is not a sound experiment.
    """
    document = load_yaml(path)
    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    return check_experiment(path, document, root=root, workload=workload)


def check_experiment(
    path: Path, document: object, *, root: yaml.Node | None, workload: Path | None, endpoint: str = ""
) -> Experiment:
    """Check an experiment that has been read; ``root`` gives the lines of its file.

    ``endpoint`` is what the load of one without our extension asks; else the workload names it.

    Raises:
        ConfigError: it is not a sound experiment.
    """
    shape = check_spec(document, ExperimentSpec, path=path, root=root)
    assert isinstance(document, dict)
    index = next((i for i, entry in enumerate(shape.extensions) if entry.get("name") == NAME), None)
    if index is None:
        return _plain(path, shape.title, document, root, workload, endpoint)
    if workload is not None:
        raise ConfigError(f"{path}: its extension names a workload already; leave --workload out")
    extension = check_spec(
        document["extensions"][index], ExtensionSpec, path=path, root=_extension_node(root, index)
    )
    workload = _workload(path, extension, find_line(root, ("extensions", index, "workload")))
    target = LAB_TARGET
    if isinstance(extension.target, TargetSpec):
        target = reach(extension.target.to_target(path.parent), workload, document, path)
    elif extension.target == TRAINING:
        target = TRAINING_TARGET
    _refuse_other_targets(path, document, root, target)
    _check_with_chaostoolkit(path, document)
    faults = _faults(extension, document, path, find_line(root, ("extensions", index, "faults")))
    return Experiment(
        path=path,
        title=shape.title,
        document=document,
        workload=workload,
        slos={
            phase: () if extension.slos is None else _promises(getattr(extension.slos, phase), path)
            for phase in PHASES
        },
        steady_s=extension.steady_s,
        recovery_s=extension.recovery_s,
        after_s=extension.after_s,
        requests_min=extension.requests_min,
        guards=tuple(guard.to_guard() for guard in extension.guards),
        max_share=extension.max_share,
        window=None if extension.window is None else extension.window.to_window(),
        lab_step_work_ms=extension.lab_step_work_ms,
        budget_window_days=extension.budget_window_days,
        alerts=None if extension.alerts is None else extension.alerts.to_alerts(),
        target=target,
        reaccept=None if extension.reaccept is None else extension.reaccept.to_reaccept(path),
        faults=faults,
        harmless=(*extension.harmless, *(str(f.undo["name"]) for f in faults if f.undo is not None)),
        training=None
        if extension.training is None
        else extension.training.to_expectations(recovery_s=extension.recovery_s),
    )


def _promises(specs: tuple[SloSpec, ...], path: Path) -> tuple[Slo, ...]:
    """Return the promises of a file, with its presets and OpenSLO files written out."""
    try:
        return to_slos(expand(specs, folder=path.parent))
    except ValueError as error:
        raise ConfigError(f"{path}: slos: {error}") from error


def _plain(
    path: Path,
    title: str,
    document: JsonObject,
    root: yaml.Node | None,
    workload: Path | None,
    endpoint: str,
) -> Experiment:
    target = LAB_TARGET
    if any(foreign_actions(document)):  # the experiment's own affair, as under ``chaos run``; never a PASS
        target = Target(name="", endpoint=endpoint)
        _refuse_other_targets(path, document, root, target)
        target = reach(target, workload, document, path)
    _check_with_chaostoolkit(path, document)
    slos: tuple[Slo, ...] = ()
    if workload is not None:
        _refuse_several_endpoints(workload)
        slos = check_spec({"slos": _slos_of(workload)}, WorkloadSlosSpec, path=workload).to_slos(workload)
    return Experiment(
        path=path,
        title=title,
        document=document,
        workload=workload and workload.resolve(),
        slos=dict.fromkeys(PHASES, slos),
        steady_s=10.0,
        recovery_s=PLAIN_RECOVERY_S,
        after_s=10.0,
        requests_min=30,
        target=target,
    )


def _faults(
    extension: ExtensionSpec, document: JsonObject, path: Path, line: int | None
) -> tuple[Declared, ...]:
    try:
        return to_faults(extension.faults, extension.harmless, document)
    except ValueError as error:
        raise ConfigError(f"{path}:{line}: faults: {error}") from error


def reach(target: Target, workload: Path | None, document: JsonObject, path: Path) -> Target:
    """Return the target with the address that its load asks: stated, or the workload's own."""
    from chaoslib import substitute
    from chaoslib.configuration import load_configuration

    if target.endpoint:
        configuration = load_configuration(document.get("configuration") or {})
        return replace(target, endpoint=str(substitute(target.endpoint, configuration, {})))
    if workload is None:
        return target
    stated = load_yaml(workload)
    endpoint = stated.get("endpoint") if isinstance(stated, dict) else None
    url = endpoint.get("url") if isinstance(endpoint, dict) else None
    if not url:
        raise ConfigError(f"{path}: target: endpoint is missing, and {workload} names none; what is loaded?")
    return replace(target, endpoint=str(url))


def _slos_of(workload: Path) -> object:
    document = load_yaml(workload)
    slos = document.get("slos") if isinstance(document, dict) else None
    if not slos:
        raise ConfigError(
            f"{workload}: slos: none are there; without promises a game day has nothing to judge"
        )
    return slos


def _workload(path: Path, extension: ExtensionSpec, line: int | None) -> Path | None:
    if not extension.workload:
        return None
    workload = path.parent / extension.workload
    if not workload.is_file():
        raise ConfigError(f"{path}:{line}: workload: {extension.workload!r} is no file in {path.parent}")
    _refuse_several_endpoints(workload)
    return workload.resolve()


def _refuse_several_endpoints(workload: Path) -> None:
    """Refuse what the load would refuse only once it is started: a game day is about one service."""
    stated = load_yaml(workload)
    if isinstance(stated, dict) and stated.get("endpoints"):
        root = yaml.compose(workload.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        raise ConfigError(
            f"{workload}:{find_line(root, ('endpoints',))}: endpoints: a game day loads the one endpoint of "
            "its target; write a workload with endpoint, or none, instead"
        )


def _extension_node(root: yaml.Node | None, index: int) -> yaml.Node | None:
    if root is None:
        return None
    assert isinstance(root, yaml.MappingNode)
    entries = next(value for key, value in root.value if key.value == "extensions")
    assert isinstance(entries, yaml.SequenceNode)
    node = entries.value[index]
    assert isinstance(node, yaml.Node)
    return node


def _refuse_other_targets(path: Path, document: JsonObject, root: yaml.Node | None, target: Target) -> None:
    """Refuse actions that would hit something else than the target: each kind has its own."""
    for part in ("method", "rollbacks"):
        for i, activity in enumerate(document.get(part) or ()):
            if activity.get("type") != "action":
                continue
            works_on = OUR_MODULES.get(str(module_of(activity)))
            if works_on == target.kind or (works_on is None and target.kind not in OURS):
                continue
            line = find_line(root, (part, i, "provider", "module"))
            where = f"{path}:{line}: action {activity.get('name')!r}"
            if works_on is None:
                raise ConfigError(
                    f"{where}: module: got {module_of(activity)!r}, wanted "
                    f"{KINDS[target.kind].actions[0]!r}: the lab is the target; for another one write "
                    "target: {name: …}"
                )
            raise ConfigError(
                f"{where} is for {KINDS[works_on].written}, and the target, or another action, is not; "
                "write two experiments"
            )


def _check_with_chaostoolkit(path: Path, document: JsonObject) -> None:
    from chaoslib.exceptions import ChaosException
    from chaoslib.experiment import ensure_experiment_is_valid

    logging.getLogger("chaostoolkit").addHandler(logging.NullHandler())
    try:
        ensure_experiment_is_valid(document)
    except ChaosException as error:
        raise ConfigError(f"{path}: Chaos Toolkit refuses it: {error}") from error

"""All that judging a game day reads, from its record alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from experiments.alerts.noticed import AlertsSeen, find_detection, read_alerts
from experiments.hosts.judging import HOSTS_SEEN
from experiments.impact.recovery import LAB_SERIES, FaultSeen, Times, end_of, find_times
from experiments.injecting.ledger import Entry, read_ledger
from experiments.kube.api.judging import noticed_by_watch
from experiments.kube.watching.samples import API_SERIES, KUBE_SERIES
from experiments.kube.watching.seen import KUBE_SEEN
from experiments.targets.all import LAB, NAMED, Kind, load_kind
from experiments.training.evidence import TrainingSeen, read_training
from probes.errors import SuiteError
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.request import Request
from probes.slo import Slo
from reports.reacceptance import FOLDER as REACCEPT_FOLDER
from reports.reacceptance import BurnedIn, read_burned_in
from reports.run import Run, load_run
from reports.table import read_requests, read_series

LOAD_FOLDER = "load"
JOURNAL_FILE = "journal.json"
ANSWER_RULES = ("answers-right", "replica-answers")  # of the load run: they count for the game day as well


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that the rules read."""

    slos: dict[str, tuple[Slo, ...]]  # by phase
    recovery_s: float
    requests_min: int
    endpoint: str
    requests: list[Request]
    samples: list[JsonObject]
    faults: tuple[FaultSeen, ...]  # in the order of injection
    times: Times | None  # None: nothing was injected
    entries: list[Entry]
    activities: list[JsonObject]  # data of ``chaos.activity.completed``
    journal: JsonObject | None  # None: Chaos Toolkit wrote none
    client: list[Finding]  # what the load run says of its own client
    load_state: str
    guards: tuple[JsonObject, ...] = ()  # as the experiment states them
    guard_trips: tuple[JsonObject, ...] = ()
    guard_looks: JsonObject = field(default_factory=dict)  # how often each has looked
    alerts: AlertsSeen | None = None  # None: the site's alerts were not to be asked
    budget_window_days: float = 30.0
    answers: tuple[Finding, ...] = ()  # what the load run says of its checked tasks, where it has any
    was_steady: bool = True  # False: good traffic never came, so nothing was to be injected
    target: str = LAB  # else the name of another one; empty: the experiment names none
    target_kind: Kind = LAB
    has_traffic: bool = True  # False: it was to have none, and what it shows is shown otherwise
    hosts_seen: dict[str, list[JsonObject]] = field(default_factory=dict)  # before and after, one row a host
    cluster_seen: dict[str, JsonObject] = field(default_factory=dict)  # pods and nodes, before and after
    api_rows: Sequence[JsonObject] = ()  # of our own way to the API, where a fault was to be in it
    is_reaccept_asked: bool = False  # whether hosts that were hit are to pass a burn-in
    burned_in: dict[str, BurnedIn] = field(default_factory=dict)  # by host
    reaccept_folder: Path = Path(REACCEPT_FOLDER)
    training: TrainingSeen | None = None  # None: no training job is watched

    @property
    def victims_subject(self) -> str:
        """The subject of a finding about whoever was hit: the replicas, else the gateway in front of them."""
        if self.target != LAB:
            return f"target:{self.target or 'unnamed'}"
        names = sorted({str(victim["name"]) for fault in self.faults for victim in fault.victims})
        return f"replica:{'+'.join(names)}" if names else f"endpoint:{self.endpoint}"


def read_evidence(run: Run) -> Evidence:
    """Read what the rules need from the run's folder."""
    spec = run.header.spec
    slos = {p: tuple(Slo(**row) for row in rows) for p, rows in spec["slos"].items()}
    requests = _requests(run.path / LOAD_FOLDER)
    samples = read_series(run, LAB_SERIES) + read_series(run, KUBE_SERIES)
    faults = read_faults(run)
    load_state, said = _load_findings(run.path / LOAD_FOLDER)
    alerts = read_alerts(run)
    training = read_training(run, faults)
    api_rows = read_series(run, API_SERIES)
    times = _times(faults, requests, samples, slos, alerts, training, api_rows) if faults else None
    lab = next((event.data for event in run.events_of("lab.ready", "target.named")), {})
    return Evidence(
        slos=slos,
        recovery_s=float(spec["recovery_s"]),
        requests_min=int(spec["requests_min"]),
        endpoint=str(lab.get("url", "")),
        requests=requests,
        samples=samples,
        faults=faults,
        times=times,
        entries=read_ledger(run.path),
        activities=[event.data for event in run.events_of("chaos.activity.completed")],
        journal=_journal(run.path),
        client=[finding for finding in said if finding.subject.startswith("client:")],
        answers=tuple(finding for finding in said if finding.rule in ANSWER_RULES),
        load_state=load_state,
        guards=tuple(spec.get("guards", ())),
        guard_trips=tuple(event.data for event in run.events_of("guard.tripped")),
        guard_looks=next((event.data["looks"] for event in run.events_of("guards.watched")), {}),
        alerts=alerts,
        budget_window_days=float(spec.get("budget_window_days", 30.0)),
        was_steady=not run.events_of("steady.missing"),
        target=str(spec.get("target", LAB)),
        target_kind=_kind_of(spec),
        has_traffic=training is None
        and (bool(spec["workload"]) or not load_kind(_kind_of(spec)).is_seen_without_traffic),
        api_rows=api_rows,
        cluster_seen={str(e.data["when"]): e.data["cluster"] for e in run.events_of(KUBE_SEEN)},
        hosts_seen={str(e.data["when"]): e.data["hosts"] for e in run.events_of(HOSTS_SEEN)},
        is_reaccept_asked=bool(spec.get("reaccept")),
        burned_in=read_burned_in(run.path),
        reaccept_folder=run.path / REACCEPT_FOLDER,
        training=training,
    )


def _kind_of(spec: JsonObject) -> Kind:
    """Return what the target is; older records give only its name."""
    kind: Kind = spec.get("target_kind") or (LAB if spec.get("target", LAB) == LAB else NAMED)
    return kind


def read_faults(run: Run) -> tuple[FaultSeen, ...]:
    """Read every fault that was injected from the timeline."""
    captured = {event.data["id"]: event.data["captured"] for event in run.events_of("fault.armed")}
    looked = {e.data["id"]: e for e in run.events_of("fault.verified", "fault.not_verified")}
    undone = {e.data["id"]: int(e.data.get("t_undone_ns", e.t_ns)) for e in run.events_of("undo.verified")}
    healed = {event.data["id"]: event.t_ns for event in run.events_of("fault.healed")}
    return tuple(
        FaultSeen(
            data=event.data,
            captured=captured.get(event.data["id"], {}),
            is_verified=(look := looked.get(event.data["id"])) is not None and look.kind == "fault.verified",
            observed=str(look.data["observed"]) if look is not None else "nobody looked whether it took hold",
            t_undone_ns=undone.get(event.data["id"]),
            t_healed_ns=healed.get(event.data["id"]),
        )
        for event in run.events_of("fault.injected")
    )


def _times(
    faults: Sequence[FaultSeen],
    requests: list[Request],
    samples: list[JsonObject],
    slos: dict[str, tuple[Slo, ...]],
    alerts: AlertsSeen | None,
    training: TrainingSeen | None,
    api_rows: Sequence[JsonObject],
) -> Times:
    times = (training and training.times) or find_times(
        requests,
        samples,
        faults=faults,
        t_end_ns=max((end_of(request) for request in requests), default=0),
        slos=slos["after"],
    )
    times = noticed_by_watch(times, api_rows)
    if alerts is None:
        return times
    return replace(times, detection=find_detection(alerts, times.t_inject_ns), harm=times.detection)


def _requests(folder: Path) -> list[Request]:
    return read_requests(folder) if folder.is_dir() else []


def _journal(folder: Path) -> JsonObject | None:
    try:
        journal = json.loads((folder / JOURNAL_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return journal if isinstance(journal, dict) else None


def _load_findings(folder: Path) -> tuple[str, list[Finding]]:
    try:
        load = load_run(folder)
    except SuiteError:
        return "absent", []
    return load.state, load.findings

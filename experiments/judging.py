"""The verdict of a game day, from its record alone; Chaos Toolkit's own status is no more than evidence.

PASS needs all of it: steady before, the fault injected and seen on its target, noticed, enough traffic, the
promises kept during and after, traffic and redundancy back in time without our help, everything undone,
nobody else hit, and a load client that could be trusted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from experiments.alerts.noticed import AlertsSeen, find_detection, judge_alerts, read_alerts
from experiments.declared.judging import judge_bystanders, judge_ended, judge_hypothesis, judge_target
from experiments.faults.fault import FAULTS, load_fault
from experiments.guards.guard import judge_guards
from experiments.harm import find_harm
from experiments.hosts.judging import HOSTS_SEEN, judge_hosts_whole, judge_other_hosts, needed
from experiments.hosts.reaccept_judging import judge_reaccepted
from experiments.injecting.ledger import Entry, read_ledger
from experiments.kube.api_judging import judge_sight, noticed_by_watch
from experiments.kube.clocks_judging import judge_split
from experiments.kube.judging import judge_other_pods, judge_workloads_whole
from experiments.kube.samples import API_SERIES, KUBE_SERIES
from experiments.kube.seen import KUBE_SEEN
from experiments.recovery import LAB_SERIES, FaultSeen, Times, end_of, find_times, split_phases
from experiments.targets.all import HOSTS, KUBERNETES, LAB, NAMED, TRAINING
from experiments.training.evidence import TrainingSeen, read_training
from experiments.training.judging import judge_training
from probes.errors import SuiteError
from probes.finding import Finding, verdict
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.request import Request
from probes.slo import Slo, judge_slos
from reports.gameday_story import name_of
from reports.reacceptance import FOLDER as REACCEPT_FOLDER
from reports.reacceptance import BurnedIn, read_burned_in
from reports.run import Run, load_run
from reports.table import read_requests, read_series

LOAD_FOLDER = "load"
SILENCE_NS_MAX = 2_000_000_000  # of a lab that is sampled ten times a second
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
    target_kind: str = LAB
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

    @property
    def is_lab_seen_to_the_end(self) -> bool:
        """Whether the lab was sampled as long as there was traffic; its last state is known only then."""
        last_ns = max((int(row["t_ns"]) for row in self.samples), default=0)
        return last_ns >= max((end_of(r) for r in self.requests), default=0) - SILENCE_NS_MAX


def judge_run(run: Run) -> list[Finding]:
    """Judge the record of a game day."""
    return judge_evidence(read_evidence(run))


def judge_evidence(seen: Evidence) -> list[Finding]:
    """Apply every rule."""
    if seen.training is not None:
        findings = [*_of_training(seen, seen.training), *judge_faults(seen)]
    else:
        findings = [*(_phase_findings(seen) if seen.has_traffic else ()), *judge_faults(seen)]
    if seen.times is not None and seen.training is None:
        findings += [judge_detection(seen)] if seen.has_traffic or seen.alerts is not None else []
        findings += [judge_recovery(seen)] if seen.has_traffic else []
    if seen.times is not None and (seen.training is None or seen.target_kind == HOSTS):
        findings += [judge_redundancy(seen), judge_collateral(seen)]
        findings += _of_cluster(seen, seen.times) if seen.target_kind == KUBERNETES else []
    if seen.target not in (LAB, TRAINING):
        hypothesis = judge_hypothesis(seen.journal, subject=seen.victims_subject)
        is_shown = seen.has_traffic or seen.training is not None
        findings += [judge_target(seen.target), hypothesis if is_shown else needed(hypothesis)]
    findings += judge_guards(seen.guards, seen.guard_trips, seen.guard_looks)
    findings += seen.answers
    findings += [judge_undo(seen.entries), judge_method(seen)]
    findings += judge_reaccepted(
        seen.faults,
        seen.entries,
        seen.burned_in,
        is_asked=seen.is_reaccept_asked,
        recovery_s=seen.recovery_s,
        folder=seen.reaccept_folder,
    )
    return [*findings, judge_client(seen)] if seen.has_traffic else findings


def _of_cluster(seen: Evidence, times: Times) -> list[Finding]:
    """Tell the platform's time from the application's, where nodes were lost, and what was not seen."""
    subject, recovery_s = seen.victims_subject, seen.recovery_s
    split = judge_split(times, seen.samples, seen.faults, subject=subject, recovery_s=recovery_s)
    return [*split, *judge_sight(seen.faults, seen.api_rows, subject=subject, recovery_s=recovery_s)]


def _of_training(seen: Evidence, training: TrainingSeen) -> list[Finding]:
    """Judge a training job; where the site has alerts, noticing is up to them."""
    findings = judge_training(training, seen.entries)
    if seen.alerts is None or seen.times is None:
        return findings
    moments, subject = _moments(seen.times), f"alertmanager:{seen.alerts.wanted.url}"
    noticed = judge_alerts(seen.alerts, seen.times.t_inject_ns, subject=subject, moments=moments)
    return [noticed if finding.rule == noticed.rule else finding for finding in findings]


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
        and (_kind_of(spec) not in (HOSTS, KUBERNETES) or bool(spec["workload"])),
        api_rows=api_rows,
        cluster_seen={str(e.data["when"]): e.data["cluster"] for e in run.events_of(KUBE_SEEN)},
        hosts_seen={str(e.data["when"]): e.data["hosts"] for e in run.events_of(HOSTS_SEEN)},
        is_reaccept_asked=bool(spec.get("reaccept")),
        burned_in=read_burned_in(run.path),
        reaccept_folder=run.path / REACCEPT_FOLDER,
        training=training,
    )


def _kind_of(spec: JsonObject) -> str:
    """Return what the target is; older records give only its name."""
    return str(spec.get("target_kind") or (LAB if spec.get("target", LAB) == LAB else NAMED))


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


def _phase_findings(seen: Evidence) -> list[Finding]:
    if seen.times is None:
        phases = {"before": seen.requests}
    else:
        phases = split_phases(
            seen.requests, t_inject_ns=seen.times.t_inject_ns, t_back_ns=seen.times.t_back_ns
        )
    findings = []
    for phase, requests in phases.items():
        findings += judge_slos(seen.slos[phase], requests, phase=phase)
        findings.append(judge_traffic(requests, phase, seen))
    return findings


def judge_traffic(requests: Sequence[Request], phase: str, seen: Evidence) -> Finding:
    """Too little traffic shows nothing: neither that the service held nor that it broke."""
    is_enough = len(requests) >= seen.requests_min
    return Finding(
        rule="traffic",
        subject=f"endpoint:{seen.endpoint}@{phase}",
        outcome=Outcome.PASS if is_enough else Outcome.INCONCLUSIVE,
        observed=f"{len(requests)} requests {phase} the fault",
        expected=f"at least {seen.requests_min}",
        unit="requests",
        evidence={"phase": phase, "requests": len(requests)},
        next_step="" if is_enough else "raise rate_per_s of the workload, or watch longer",
    )


def judge_faults(seen: Evidence) -> list[Finding]:
    """A fault counts when it was injected and then seen on its very target."""
    if not seen.faults:
        return [
            _fault_finding("fault:none", f"no fault was injected: {_why_not(seen)}", Outcome.INCONCLUSIVE, {})
        ]
    return [
        _fault_finding(
            f"fault:{fault.data['fault']}@{name_of(str(fault.data['subject']))}",
            fault.observed,
            Outcome.PASS if fault.is_verified else Outcome.INCONCLUSIVE,
            {"fault": fault.data, "captured": fault.captured},
        )
        for fault in seen.faults
    ]


def _fault_finding(subject: str, observed: str, outcome: Outcome, evidence: JsonObject) -> Finding:
    return Finding(
        rule="fault",
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected="injected, and verified on its target",
        evidence=evidence,
        next_step=""
        if outcome is Outcome.PASS
        else "see chaos.log of the run, mend the experiment, repeat it",
    )


def _why_not(seen: Evidence) -> str:
    if not seen.was_steady:
        what = "traffic was not good" if seen.training is None else "the job was not well"
        return f"{what} enough before it to break anything"
    failed = [a for a in seen.activities if a["status"] != "succeeded" and a["phase"] in ("gate", "method")]
    if failed:
        return f"{failed[0]['type']} {failed[0]['name']!r} failed: {_last_line(failed[0])}"
    before = ((seen.journal or {}).get("steady_states") or {}).get("before")
    if before and not before["steady_state_met"]:
        return f"the gate did not hold: {before['probes'][-1]['activity']['name']!r} was out of tolerance"
    if seen.journal is None:
        return "Chaos Toolkit was not started or did not finish"
    return "the experiment has no action that injects one"


def _last_line(activity: JsonObject) -> str:
    return (str(activity.get("exception") or "").strip().splitlines() or [""])[-1]


def judge_detection(seen: Evidence) -> Finding:
    """A fault that nobody noticed has not been shown to matter; where the site has alerts, they have to."""
    assert seen.times is not None
    if seen.alerts is not None:
        moments, subject = _moments(seen.times), f"alertmanager:{seen.alerts.wanted.url}"
        return judge_alerts(seen.alerts, seen.times.t_inject_ns, subject=subject, moments=moments)
    detection = seen.times.detection
    if detection is None:
        observed = "no request and no probe showed the fault"
    else:
        observed = f"noticed after {seen.times.after_inject_s(detection.t_ns):.2f} s by {detection.by}"
    return Finding(
        rule="detection",
        subject=f"endpoint:{seen.endpoint}",
        outcome=Outcome.INCONCLUSIVE if detection is None else Outcome.PASS,
        observed=observed,
        expected="noticed by a request or a probe of ours",
        unit="s",
        evidence=_moments(seen.times),
        next_step="raise the load, so that the fault meets traffic" if detection is None else "",
    )


def _moments(times: Times) -> JsonObject:
    """Return each moment that came, as a time (``_ns``) and as seconds from the injection (``_s``)."""
    moments = {
        "t_inject": times.t_inject_ns,
        "t_harm": times.harm.t_ns if times.harm else None,
        "t_detect": times.detection.t_ns if times.detection else None,
        "t_mitigate": times.t_mitigate_ns,
        "t_recover": times.t_recover_ns,
        "t_redundant": times.t_redundant_ns,
    }
    known = {name: t_ns for name, t_ns in moments.items() if t_ns is not None}
    return {f"{name}_ns": t_ns for name, t_ns in known.items()} | {
        f"{name}_s": times.after_inject_s(t_ns) for name, t_ns in known.items()
    }


def judge_recovery(seen: Evidence) -> Finding:
    """Traffic has to keep its promises again within the expectation."""
    assert seen.times is not None
    took_s = seen.times.took_s(seen.times.t_recover_ns)
    clock_ns = seen.times.t_clock_ns or 0
    seconds_with_traffic = sum(w.total > 0 for w in seen.times.windows if w.start_ns >= clock_ns)
    next_step = ""
    if seen.times.t_clock_ns is None:
        outcome, observed = Outcome.INCONCLUSIVE, "the fault was never undone, so nothing could recover"
        next_step = "overproof gameday undo"
    elif took_s is not None:
        outcome = Outcome.PASS if took_s <= seen.recovery_s else Outcome.FAIL
        observed = f"traffic good again after {took_s:.2f} s"
    elif seconds_with_traffic > seen.recovery_s:
        outcome = Outcome.FAIL
        observed = f"traffic not good again in {seconds_with_traffic} s of watching"
    else:
        outcome = Outcome.INCONCLUSIVE
        observed = f"only {seconds_with_traffic} s with traffic after the fault, none of them decides"
        next_step = "raise rate_per_s of the workload, or watch longer"
    if outcome is Outcome.FAIL:
        next_step = (
            "see which requests failed after the fault, by replica: how does the gateway eject and retry?"
        )
    return Finding(
        rule="recovery",
        subject=f"endpoint:{seen.endpoint}",
        outcome=outcome,
        observed=observed,
        expected=f"within {seen.recovery_s:g} s",
        unit="s",
        evidence=_moments(seen.times)
        | {"harm": find_harm(seen.requests, seen.slos, seen.times, window_days=seen.budget_window_days)},
        next_step=next_step,
    )


def judge_redundancy(seen: Evidence) -> Finding:
    """Every replica has to serve again within the expectation, and without our undo having done it."""
    assert seen.times is not None
    if seen.target_kind == HOSTS:
        return judge_hosts_whole(
            seen.faults,
            seen.entries,
            subject=seen.victims_subject,
            recovery_s=seen.recovery_s,
            evidence=_moments(seen.times),
        )
    if seen.target_kind == KUBERNETES and all(fault.is_on_cluster for fault in seen.faults):
        return judge_workloads_whole(
            seen.times,
            seen.samples,
            seen.faults,
            seen.entries,
            subject=seen.victims_subject,
            recovery_s=seen.recovery_s,
            evidence=_moments(seen.times),
        )
    if seen.target != LAB:
        moments = _moments(seen.times)
        return judge_ended(seen.faults, seen.entries, subject=seen.victims_subject, evidence=moments)
    took_s = seen.times.took_s(seen.times.t_redundant_ns)
    healed = {fault.data["id"] for fault in seen.faults if fault.is_healed_by_platform}
    ours = [entry for entry in seen.entries if entry.id in healed and entry.detail.get("has_acted")]
    by_whom = ", without our help" if healed else " from the undoing"
    next_step = "look at the supervisor of the replicas: does it restart what dies, and how fast?"
    if not seen.is_lab_seen_to_the_end:
        outcome, observed = Outcome.INCONCLUSIVE, "the lab was not seen to the end"
        next_step = "see lab.log of the lab for why it fell silent"
    elif (ours or took_s is None) and (given_s := _given_s(seen)) < seen.recovery_s:
        outcome = Outcome.INCONCLUSIVE
        observed = f"had not come back {given_s:.2f} s after the fault, and was given no more time"
        next_step = "repeat the game day, to its end"
    elif ours:
        outcome, observed = Outcome.FAIL, f"did not come back by itself; undo {ours[0].detail['did']}"
    elif took_s is None:
        outcome, observed = Outcome.FAIL, "a replica was still missing at the end"
    else:
        outcome = Outcome.PASS if took_s <= seen.recovery_s else Outcome.FAIL
        observed = f"all replicas served again after {took_s:.2f} s{by_whom}"
    return Finding(
        rule="redundancy",
        subject=seen.victims_subject,
        outcome=outcome,
        observed=observed,
        expected=f"within {seen.recovery_s:g} s{by_whom}",
        unit="s",
        evidence=_moments(seen.times),
        next_step="" if outcome is Outcome.PASS else next_step,
    )


def _given_s(seen: Evidence) -> float:
    """Return how long the platform had to heal: until undoing had done it, or the lab was last seen."""
    assert seen.times is not None
    if seen.times.t_clock_ns is None:
        return math.inf
    acted = {entry.id for entry in seen.entries if entry.detail.get("has_acted")}
    ends = [f.t_undone_ns for f in seen.faults if f.data["id"] in acted and f.t_undone_ns is not None]
    ends.append(max((int(row["t_ns"]) for row in seen.samples), default=seen.times.t_clock_ns))
    return (min(ends) - seen.times.t_clock_ns) / 1e9


def judge_collateral(seen: Evidence) -> Finding:
    """Nobody but the victim may have been hit: each other replica is the same process at the end."""
    if seen.target_kind == HOSTS:
        return judge_other_hosts(seen.faults, seen.hosts_seen, subject=seen.victims_subject)
    if seen.target_kind == KUBERNETES and all(fault.is_on_cluster for fault in seen.faults):
        return judge_other_pods(seen.faults, seen.cluster_seen, subject=seen.victims_subject)
    if seen.target != LAB:
        return judge_bystanders(seen.victims_subject)
    victims = {str(victim["name"]) for fault in seen.faults for victim in fault.victims}
    others = {
        str(row["name"]): row
        for fault in seen.faults
        for row in fault.captured.get("others", ())
        if row["name"] not in victims
    }
    last = {str(row["subject"]).removeprefix("replica:"): row for row in seen.samples}
    hit = [
        f"{name} was pid {row['pid']}, is {last[name]['pid']}"
        for name, row in others.items()
        if name in last and (last[name]["pid"], last[name]["start_time"]) != (row["pid"], row["start_time"])
    ]
    is_unseen = (
        not (others or victims) or not seen.is_lab_seen_to_the_end or any(name not in last for name in others)
    )
    outcome = Outcome.FAIL if hit else Outcome.INCONCLUSIVE if is_unseen else Outcome.PASS
    fine = (
        "not every other replica was seen to the end"
        if is_unseen
        else f"{', '.join(sorted(others)) or 'nobody else there to be'} untouched"
    )
    return Finding(
        rule="collateral",
        subject=f"endpoint:{seen.endpoint}",
        outcome=outcome,
        observed="; ".join(hit) or fine,
        expected="every other replica is the same process before and after",
        evidence={"others": list(others.values())},
        next_step=""
        if outcome is Outcome.PASS
        else "see lab.log of the lab for what else died or fell silent",
    )


def judge_undo(entries: Sequence[Entry]) -> Finding:
    """Whatever was armed has to be undone, and seen to be; what nobody can undo is said, and is no pass."""
    pending = [entry for entry in entries if entry.is_pending]
    unseen = [entry for entry in entries if not entry.detail.get("is_seen", True)]
    due = [entry for entry in entries if entry.fault not in FAULTS or load_fault(entry.fault).is_undoable]
    outcome = Outcome.FAIL if pending else Outcome.PASS if due else None
    if unseen and not pending:
        outcome = Outcome.INCONCLUSIVE
    if pending:
        observed = "; ".join(f"{entry.subject}: {entry.state}" for entry in pending)
    else:
        observed = "; ".join(f"{entry.subject}: {entry.detail.get('did')}" for entry in entries)
    return Finding(
        rule="undo",
        subject="fault:" + (entries[0].fault if entries else "none"),
        outcome=outcome,
        observed=observed or "nothing was armed",
        expected="every fault undone, and seen to be",
        evidence={"entries": [{"id": entry.id, "state": entry.state} for entry in entries]},
        next_step="overproof gameday undo"
        if pending
        else "look for yourself, or declare verify of the fault"
        if unseen
        else "",
    )


def judge_method(seen: Evidence) -> Finding:
    """Chaos Toolkit has to have carried out what the experiment says; its exit code would not tell."""
    broken = [
        f"{a['type']} {a['name']!r}: {_last_line(a) or a['status']}" for a in seen.activities if _is_broken(a)
    ]
    if seen.journal is None:
        outcome, observed = Outcome.INCONCLUSIVE, "Chaos Toolkit left no journal"
    elif broken:
        outcome, observed = Outcome.INCONCLUSIVE, "; ".join(broken)
    elif seen.journal.get("stopped_by"):
        outcome, observed = Outcome.INCONCLUSIVE, f"stopped by {seen.journal['stopped_by']}"
    elif seen.journal.get("status") != "completed":
        outcome, observed = Outcome.INCONCLUSIVE, f"Chaos Toolkit says {seen.journal.get('status')!r}"
    else:
        outcome, observed = Outcome.PASS, f"{len(seen.activities)} activities carried out"
    journal = seen.journal or {}
    return Finding(
        rule="method",
        subject="fault:experiment",
        outcome=outcome,
        observed=observed,
        expected="every activity of the experiment carried out",
        evidence={"status": journal.get("status"), "deviated": journal.get("deviated")},
        next_step="" if outcome is Outcome.PASS else "see chaos.log of the run",
    )


def _is_broken(activity: JsonObject) -> bool:
    return bool(activity["status"] != "succeeded")


def judge_client(seen: Evidence) -> Finding:
    """Figures of a load client that fell behind are the client's, not the service's."""
    outcome = verdict(seen.client)
    observed = "; ".join(f.observed for f in seen.client if f.outcome is not Outcome.PASS)
    if seen.load_state != "finished":
        outcome, observed = Outcome.INCONCLUSIVE, f"the load run is {seen.load_state}"
    elif not seen.client:
        observed = "the load run says nothing of its client"
    is_valid = outcome is Outcome.PASS
    return Finding(
        rule="client",
        subject="client:load",
        outcome=Outcome.PASS if is_valid else Outcome.INCONCLUSIVE,
        observed=observed or "; ".join(f.observed for f in seen.client),
        expected="the load client ran to its end and kept up",
        evidence={"rules": [f.rule for f in seen.client]},
        next_step="" if is_valid else "see the load run's own report in load/, and load.log",
    )

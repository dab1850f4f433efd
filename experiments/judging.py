"""The verdict of a game day, from its record alone; Chaos Toolkit's own status is no more than evidence.

PASS needs all of it: steady before, the fault injected and seen on its target, noticed, enough traffic, the
promises kept during and after, traffic and redundancy back in time without our help, everything undone,
nobody else hit, and a load client that could be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments.alerts.noticed import judge_alerts
from experiments.declared.judging import judge_hypothesis, judge_target
from experiments.evidence import Evidence, read_evidence
from experiments.faults.fault import FAULTS, load_fault
from experiments.guards.guard import judge_guards
from experiments.hosts.judging import needed
from experiments.hosts.reaccept_judging import judge_reaccepted
from experiments.impact.harm import find_harm
from experiments.impact.recovery import is_bad_after, split_phases
from experiments.injecting.ledger import Entry
from experiments.targets.all import OURS, load_kind
from experiments.training.evidence import TrainingSeen
from experiments.training.judging import judge_training
from probes.finding import Finding, verdict
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.request import Request
from probes.slo import judge_slos
from reports.gameday_story import name_of
from reports.run import Run


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
    if seen.times is not None:
        findings += load_kind(seen.target_kind).judge(seen, seen.times)
    if seen.target not in OURS:
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


def _of_training(seen: Evidence, training: TrainingSeen) -> list[Finding]:
    """Judge a training job; where the site has alerts, noticing is up to them."""
    findings = judge_training(training, seen.entries)
    if seen.alerts is None or seen.times is None:
        return findings
    moments, subject = seen.times.to_json(), f"alertmanager:{seen.alerts.wanted.url}"
    noticed = judge_alerts(seen.alerts, seen.times.t_inject_ns, subject=subject, moments=moments)
    return [noticed if finding.rule == noticed.rule else finding for finding in findings]


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
        moments, subject = seen.times.to_json(), f"alertmanager:{seen.alerts.wanted.url}"
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
        evidence=seen.times.to_json(),
        next_step="raise the load, so that the fault meets traffic" if detection is None else "",
    )


def judge_recovery(seen: Evidence) -> Finding:
    """Traffic has to keep its promises again within the expectation; a second without any shows neither."""
    assert seen.times is not None
    took_s = seen.times.took_s(seen.times.t_recover_ns)
    clock_ns = seen.times.t_clock_ns or 0
    seconds_with_traffic = sum(w.total > 0 for w in seen.times.windows if w.start_ns >= clock_ns)
    next_step = ""
    if took_s is None:
        observed = f"traffic not good again in {seconds_with_traffic} s of watching"
    else:
        observed = f"traffic good again after {took_s:.2f} s"
    if seen.times.t_clock_ns is None:
        outcome, observed = Outcome.INCONCLUSIVE, "the fault was never undone, so nothing could recover"
        next_step = "overproof gameday undo"
    elif took_s is not None and took_s <= seen.recovery_s:
        outcome = Outcome.PASS
    elif is_bad_after(seen.times, seen.recovery_s):
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.INCONCLUSIVE
        observed = (
            f"{observed}: only {seconds_with_traffic} s with traffic after the fault, none of them decides"
        )
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
        evidence=seen.times.to_json()
        | {"harm": find_harm(seen.requests, seen.slos, seen.times, window_days=seen.budget_window_days)},
        next_step=next_step,
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

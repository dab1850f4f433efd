"""Rules for a game day on a target that is not our lab: only what is declared can be seen there."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.impact.recovery import FaultSeen
from experiments.injecting.ledger import Entry
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome


def judge_target(name: str) -> Finding:
    """Without a name nobody can have allowed the target, and nothing keeps a second game day off it."""
    return Finding(
        rule="target",
        subject=f"target:{name or 'unnamed'}",
        outcome=Outcome.PASS if name else Outcome.INCONCLUSIVE,
        observed="named, and marked as allowed" if name else "the experiment names no target",
        expected="a target that is named, and marked as allowed",
        next_step=""
        if name
        else "add an overproof extension with target: {name: …}, workload, slos and faults",
    )


def judge_ended(
    faults: Sequence[FaultSeen], entries: Sequence[Entry], *, subject: str, evidence: JsonObject
) -> Finding:
    """Each declared fault has to be gone, by its own probe; what the platform is to end, without our help."""
    healed = {fault.data["id"] for fault in faults if fault.is_healed_by_platform}
    known = {entry.id: entry for entry in entries}
    ours = [e for e in entries if e.id in healed and e.detail.get("has_acted")]
    unseen = [
        str(fault.data["subject"])
        for fault in faults
        if (entry := known.get(fault.data["id"])) is None
        or entry.is_pending
        or not entry.detail.get("is_seen", True)
    ]
    if ours:
        outcome, observed = Outcome.FAIL, f"did not end by itself: {ours[0].detail['did']}"
    elif unseen:
        outcome, observed = Outcome.INCONCLUSIVE, f"nobody saw it end: {', '.join(unseen)}"
    else:
        outcome = Outcome.PASS
        observed = "; ".join(
            f"{known[f.data['id']].subject}: {known[f.data['id']].detail.get('did')}" for f in faults
        )
    next_steps = {
        Outcome.FAIL: "look at what was to heal it, and how long that takes",
        Outcome.INCONCLUSIVE: "declare verify and undo of the fault in the experiment's extension",
    }
    return Finding(
        rule="redundancy",
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected="every fault is gone, as its probe has seen; one that the platform ends, without our help",
        evidence=evidence,
        next_step=next_steps.get(outcome, ""),
    )


def judge_bystanders(subject: str) -> Finding:
    """Who else is there is not known; the experiment's own hypothesis is what says that the rest is well."""
    return Finding(
        rule="collateral",
        subject=subject,
        outcome=None,
        observed="not known: nobody but the declared subject is watched",
        expected="nothing but the target changed",
    )


def judge_hypothesis(journal: JsonObject | None, *, subject: str) -> Finding:
    """What the experiment itself calls well has to hold before the method and after it."""
    states = (journal or {}).get("steady_states") or {}
    before, after = states.get("before"), states.get("after")
    if before is None and after is None:
        outcome, observed = None, "the experiment states none"
    elif after is not None and not after["steady_state_met"]:
        probe = after["probes"][-1]
        is_broken = probe.get("status") != "succeeded"
        outcome = Outcome.INCONCLUSIVE if is_broken else Outcome.FAIL
        verb = "broke" if is_broken else "was out of tolerance"
        observed = f"after the method {probe['activity']['name']!r} {verb}"
    elif before is not None and after is not None and before["steady_state_met"]:
        outcome, observed = Outcome.PASS, "held before the method and after it"
    else:
        outcome, observed = (
            Outcome.INCONCLUSIVE,
            "was not looked at, or did not hold, before or after the method",
        )
    return Finding(
        rule="hypothesis",
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected="the experiment's own steady state before the method and after it",
        next_step="" if outcome in (Outcome.PASS, None) else "see the probe in journal.json of the run",
    )

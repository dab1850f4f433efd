"""Rules for a game day on hosts: pure functions over what was seen there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from experiments.impact.recovery import FaultSeen
from experiments.injecting.ledger import Entry
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

BEFORE, AFTER = "before", "after"
HOSTS_SEEN = "hosts.seen"


def judge_hosts_whole(
    faults: Sequence[FaultSeen],
    entries: Sequence[Entry],
    *,
    subject: str,
    recovery_s: float,
    evidence: JsonObject,
) -> Finding:
    """What the platform heals has to be seen healed in time, without our help; the rest to be undone."""
    known = {entry.id: entry for entry in entries}
    rows = [_whole(fault, known.get(str(fault.data["id"])), recovery_s) for fault in faults]
    order = [Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS]
    outcome = min((row[0] for row in rows), key=order.index, default=Outcome.INCONCLUSIVE)
    next_steps = {
        Outcome.FAIL: "look at what was to start it again on that host, and how long that takes",
        Outcome.INCONCLUSIVE: "put the probe faults_healed of experiments.hosts.actions into the method",
    }
    return Finding(
        rule="redundancy",
        subject=subject,
        outcome=outcome,
        observed="; ".join(text for _, text in rows),
        expected=f"what the platform heals is back within {recovery_s:g} s without our help, the rest undone",
        unit="s",
        evidence=evidence,
        next_step=next_steps.get(outcome, ""),
    )


def _whole(fault: FaultSeen, entry: Entry | None, recovery_s: float) -> tuple[Outcome, str]:
    where = str(fault.data["subject"])
    undone_s = None if fault.t_undone_ns is None else (fault.t_undone_ns - fault.t_inject_ns) / 1e9
    if not fault.is_healed_by_platform:
        if undone_s is None:
            return Outcome.INCONCLUSIVE, f"{where}: nobody saw it undone"
        return Outcome.PASS, f"{where}: undone after {undone_s:.2f} s"
    if fault.t_healed_ns is not None:
        took_s = (fault.t_healed_ns - fault.t_inject_ns) / 1e9
        outcome = Outcome.PASS if took_s <= recovery_s else Outcome.FAIL
        return outcome, f"{where}: seen back after {took_s:.2f} s"
    if undone_s is None or entry is None:
        return Outcome.INCONCLUSIVE, f"{where}: nobody saw it back"
    if entry.detail.get("has_acted"):
        did = f"{where}: had not come back {undone_s:.2f} s after the fault; undo {entry.detail.get('did')}"
        return (Outcome.FAIL if undone_s >= recovery_s else Outcome.INCONCLUSIVE), did
    outcome = Outcome.PASS if undone_s <= recovery_s else Outcome.INCONCLUSIVE
    return outcome, f"{where}: was back when undoing looked, after {undone_s:.2f} s"


def judge_other_hosts(
    faults: Sequence[FaultSeen], seen: Mapping[str, Sequence[JsonObject]], *, subject: str
) -> Finding:
    """Every host of the target that was not hit has to answer at the end, in the same boot as before."""
    hit = {str(victim["name"]) for fault in faults for victim in fault.victims}
    before = {str(row["name"]): row for row in seen.get(BEFORE, ()) if row["name"] not in hit}
    after = {str(row["name"]): row for row in seen.get(AFTER, ())}
    bad = [
        f"{name} was booted again"
        for name, row in before.items()
        if (now := after.get(name)) and now["boot_id"] and row["boot_id"] and now["boot_id"] != row["boot_id"]
    ]
    bad += [
        f"{name} does not answer: {after[name]['observed']}"
        for name, row in before.items()
        if row["boot_id"] and name in after and not after[name]["boot_id"]
    ]
    unseen = [name for name, row in before.items() if not row["boot_id"] or name not in after]
    is_alone = not before and BEFORE in seen
    outcome = Outcome.FAIL if bad else Outcome.INCONCLUSIVE if unseen or not seen else Outcome.PASS
    fine = "the target has no other host" if is_alone else f"{', '.join(before)} answer, in the same boot"
    return Finding(
        rule="collateral",
        subject=subject,
        outcome=None if is_alone else outcome,
        observed="; ".join(bad)
        or (f"not seen: {', '.join(unseen) or 'any'}" if unseen or not seen else fine),
        expected="every host that was not hit answers at the end as before",
        evidence={"hosts": list(after.values())},
        next_step=""
        if outcome is Outcome.PASS or is_alone
        else "look at these hosts: what else has hit them?",
    )


def needed(hypothesis: Finding) -> Finding:
    """Without traffic the experiment's own hypothesis is all that says what was to hold."""
    if hypothesis.outcome is not None:
        return hypothesis
    return replace(
        hypothesis,
        outcome=Outcome.INCONCLUSIVE,
        observed="the experiment states none, and has no traffic: nothing says what was to hold",
        next_step="add a steady-state-hypothesis, or a workload with slos",
    )

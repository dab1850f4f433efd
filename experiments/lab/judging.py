"""Rules for a game day on the lab: pure functions over what was seen of its replicas."""

from __future__ import annotations

import math

from experiments.evidence import Evidence
from experiments.impact.recovery import Times, end_of
from probes.finding import Finding
from probes.outcome import Outcome

SILENCE_NS_MAX = 2_000_000_000  # of a lab that is sampled ten times a second


def judge_redundancy(seen: Evidence) -> Finding:
    """Every replica has to serve again within the expectation, and without our undo having done it."""
    assert seen.times is not None
    times = seen.times
    took_s = times.took_s(times.t_redundant_ns)
    healed = {fault.data["id"] for fault in seen.faults if fault.is_healed_by_platform}
    ours = [entry for entry in seen.entries if entry.id in healed and entry.detail.get("has_acted")]
    by_whom = ", without our help" if healed else " from the undoing"
    next_step = "look at the supervisor of the replicas: does it restart what dies, and how fast?"
    if not _is_seen_to_the_end(seen):
        outcome, observed = Outcome.INCONCLUSIVE, "the lab was not seen to the end"
        next_step = "see lab.log of the lab for why it fell silent"
    elif (ours or took_s is None) and (given_s := _given_s(seen, times)) < seen.recovery_s:
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
        evidence=times.to_json(),
        next_step="" if outcome is Outcome.PASS else next_step,
    )


def _given_s(seen: Evidence, times: Times) -> float:
    """Return how long the platform had to heal: until undoing had done it, or the lab was last seen."""
    if times.t_clock_ns is None:
        return math.inf
    acted = {entry.id for entry in seen.entries if entry.detail.get("has_acted")}
    ends = [f.t_undone_ns for f in seen.faults if f.data["id"] in acted and f.t_undone_ns is not None]
    ends.append(max((int(row["t_ns"]) for row in seen.samples), default=times.t_clock_ns))
    return (min(ends) - times.t_clock_ns) / 1e9


def _is_seen_to_the_end(seen: Evidence) -> bool:
    """Whether the lab was sampled as long as there was traffic; its last state is known only then."""
    last_ns = max((int(row["t_ns"]) for row in seen.samples), default=0)
    return last_ns >= max((end_of(r) for r in seen.requests), default=0) - SILENCE_NS_MAX


def judge_collateral(seen: Evidence) -> Finding:
    """Nobody but the victim may have been hit: each other replica is the same process at the end."""
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
        not (others or victims) or not _is_seen_to_the_end(seen) or any(name not in last for name in others)
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

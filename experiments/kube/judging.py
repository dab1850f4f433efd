"""Rules for a game day on a Kubernetes cluster: pure functions over what was seen there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.impact.recovery import FaultSeen, Times
from experiments.injecting.ledger import Entry
from experiments.kube.watching.samples import KUBE_SERIES, by_time, workload_subject
from experiments.kube.watching.seen import AFTER, BEFORE
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome


def judge_workloads_whole(
    times: Times,
    samples: Sequence[JsonObject],
    faults: Sequence[FaultSeen],
    entries: Sequence[Entry],
    *,
    subject: str,
    recovery_s: float,
    evidence: JsonObject,
) -> Finding:
    """Every workload that was hit has as many pods ready as it is to have, in time; its pods are counted."""
    took_s = times.took_s(times.t_redundant_ns)
    clock_ns = times.t_clock_ns
    last_ns = max((int(row["t_ns"]) for row in samples), default=0)
    by_whom = (
        " by its controllers" if any(fault.is_healed_by_platform for fault in faults) else " once undone"
    )
    next_step = (
        "look at the events of the pods that are missing: controller, scheduler, image, room on the nodes"
    )
    if clock_ns is None:
        outcome, observed = Outcome.INCONCLUSIVE, "the fault was never undone, so nothing could come back"
        next_step = "overproof gameday undo"
    elif mended := _mended_by_us(faults, entries):
        fault, entry = mended
        given_s = ((fault.t_undone_ns or last_ns) - clock_ns) / 1e9
        outcome = Outcome.FAIL if given_s >= recovery_s else Outcome.INCONCLUSIVE
        observed = f"had not come back {given_s:.1f} s after the fault; undo: {entry.detail.get('did')}"
    elif took_s is not None:
        outcome = Outcome.PASS if took_s <= recovery_s else Outcome.FAIL
        observed = f"all pods ready again after {took_s:.2f} s{by_whom}"
    else:
        given_s = (last_ns - clock_ns) / 1e9
        outcome = Outcome.FAIL if given_s >= recovery_s else Outcome.INCONCLUSIVE
        observed = f"{_missing(samples, faults, clock_ns)} {max(0.0, given_s):.1f} s on"
        if outcome is Outcome.INCONCLUSIVE:
            observed += ", and then it was not watched any more"
            next_step = "repeat the game day, to its end; was the API silent meanwhile?"
    return Finding(
        rule="redundancy",
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected=f"as many pods ready as are wanted, within {recovery_s:g} s{by_whom}",
        unit="s",
        evidence=evidence | {"series": KUBE_SERIES},
        next_step="" if outcome is Outcome.PASS else next_step,
    )


def _mended_by_us(faults: Sequence[FaultSeen], entries: Sequence[Entry]) -> tuple[FaultSeen, Entry] | None:
    """Return a fault that the platform was to heal, and that undoing had to, with its entry."""
    known = {entry.id: entry for entry in entries if entry.is_mended_by_us}
    healed = [fault for fault in faults if fault.is_healed_by_platform and fault.data["id"] in known]
    return (healed[0], known[str(healed[0].data["id"])]) if healed else None


def _missing(samples: Sequence[JsonObject], faults: Sequence[FaultSeen], clock_ns: int) -> str:
    """Say how the workloads that were hit looked at last."""
    last = (by_time(samples, clock_ns) or [(0, {})])[-1][1]
    said = []
    for workload in (row for fault in faults for row in fault.captured["workloads"]):
        seen = last.get(workload_subject(workload))
        name = f"{workload['namespace']}/{workload['name']}"
        if seen is None:
            said.append(f"{name}: not seen")
            continue
        waits = f", another waits: {str(seen['waits_for'])[:200]}" if seen["waits_for"] else ""
        said.append(f"{name}: {seen['ready']} of {seen['wanted']} ready{waits}")
    return "; ".join(dict.fromkeys(said)) or "a node does not take pods"


def judge_other_pods(faults: Sequence[FaultSeen], seen: Mapping[str, JsonObject], *, subject: str) -> Finding:
    """Every pod and node that was not hit is the same at the end, and as well as before."""
    before, after = seen.get(BEFORE) or {}, seen.get(AFTER) or {}
    is_seen = all(state.get(kind) is not None for state in (before, after) for kind in ("pods", "nodes"))
    bad = [*_of_pods(faults, before, after), *_of_nodes(faults, before, after)] if is_seen else []
    outcome = Outcome.INCONCLUSIVE if not is_seen else Outcome.FAIL if bad else Outcome.PASS
    unseen = "; ".join(str(s["observed"]) for s in (before, after) if s.get("pods") is None and s)
    return Finding(
        rule="collateral",
        subject=subject,
        outcome=outcome,
        observed="; ".join(bad)
        or (
            "the other pods and nodes are as they were"
            if is_seen
            else f"not seen: {unseen or 'nobody looked'}"
        ),
        expected="every pod that was not hit is the same, not restarted and ready; every node is as before",
        evidence={"before": before.get("observed"), "after": after.get("observed")},
        next_step="" if outcome is Outcome.PASS else "look at these: what else has hit them?",
    )


def _of_pods(faults: Sequence[FaultSeen], before: JsonObject, after: JsonObject) -> list[str]:
    hit = {str(pod["uid"]) for fault in faults for pod in fault.captured["hit_pods"]}
    now = {str(row["uid"]): row for row in after["pods"]}
    bad = []
    for row in before["pods"]:
        if row["uid"] in hit or row["is_leaving"]:
            continue
        found = now.get(row["uid"])
        if found is None or found["is_leaving"]:
            bad.append(f"pod {row['name']} is gone")
        elif found["restarts"] > row["restarts"]:
            bad.append(f"pod {row['name']} was restarted")
        elif row["is_ready"] and not found["is_ready"]:
            bad.append(f"pod {row['name']} is not ready any more")
    return bad


def _of_nodes(faults: Sequence[FaultSeen], before: JsonObject, after: JsonObject) -> list[str]:
    now = {str(row["uid"]): row for row in after["nodes"]}
    made_anew = {
        str(victim["name"])
        for fault in faults
        if fault.captured["kube_fault"] == "node.delete"
        for victim in fault.victims
    }
    again = {str(row["name"]): row for row in after["nodes"] if row["name"] in made_anew}
    bad = []
    for row in before["nodes"]:
        found = now.get(row["uid"]) or again.get(row["name"])
        if found is None:
            bad.append(f"node {row['name']} is gone")
            continue
        for key, words in (("is_ready", "ready"), ("is_cordoned", "cordoned"), ("taints", "tainted")):
            if found[key] != row[key] and not (key == "is_ready" and found[key]):
                bad.append(f"node {row['name']}: {words} was {row[key]}, is {found[key]}")
    return bad

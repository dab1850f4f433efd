"""Rules for the loss of nodes: what of the time it took was the platform's, and what the application's.

All moments are those at which our own watch saw them, so that clocks of other machines do not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.impact.recovery import FaultSeen, Times
from experiments.kube.nodes.clocks import SLACK_S, Clocks, clocks_from_json
from experiments.kube.watching.samples import KUBE_SERIES, NODE, by_time, pods_in, workload_subject
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """How other pods took the place of those that were lost; None: it was not seen."""

    missed_ns: int | None  # the first of the nodes was called not ready
    made_ns: int | None  # as many other pods as were lost are there
    started_ns: int | None  # and their containers run
    last_ns: int  # until when anybody watched


def find_steps(samples: Sequence[JsonObject], faults: Sequence[FaultSeen], *, since_ns: int) -> Steps:
    """Find the moments in what was watched of the workloads and nodes that were hit."""
    moments = by_time(samples, since_ns)
    lost = {str(pod["uid"]) for fault in faults for pod in fault.captured["hit_pods"]}
    wanted = {workload_subject(row): row for fault in faults for row in fault.captured["workloads"]}
    nodes = [f"{NODE}{victim['name']}" for fault in faults for victim in fault.victims]

    def whole(seen: Mapping[str, JsonObject], key: str) -> bool:
        """Say whether each workload has as many such pods as it is to have, none of the lost ones."""
        if not wanted or not wanted.keys() <= seen.keys():
            return False
        return all(len(pods_in(seen[name], key) - lost) >= int(seen[name]["wanted"]) for name in wanted)

    missed = (t for t, seen in moments if any(name in seen and not seen[name]["ready"] for name in nodes))
    return Steps(
        missed_ns=next(missed, None),
        made_ns=next((t for t, seen in moments if whole(seen, "made")), None),
        started_ns=next((t for t, seen in moments if whole(seen, "started")), None),
        last_ns=moments[-1][0] if moments else since_ns,
    )


def judge_split(
    times: Times,
    samples: Sequence[JsonObject],
    faults: Sequence[FaultSeen],
    *,
    subject: str,
    recovery_s: float,
) -> list[Finding]:
    """Judge platform and application apart, where the cluster's clocks say what either may take."""
    lost = [fault for fault in faults if fault.captured.get("clocks") and fault.captured["workloads"]]
    if not lost:
        return []
    clocks = max((clocks_from_json(f.captured["clocks"]) for f in lost), key=lambda each: each.platform_s)
    began_ns = min(fault.t_inject_ns for fault in lost)
    undone = [fault.t_undone_ns for fault in lost if fault.t_undone_ns is not None]
    steps = find_steps(samples, lost, since_ns=began_ns)
    given_ns = min([steps.last_ns, *undone])
    return [
        _platform(steps, clocks, began_ns, given_ns, subject=subject),
        _application(times, steps, clocks, subject=subject, recovery_s=recovery_s),
    ]


def _platform(steps: Steps, clocks: Clocks, began_ns: int, given_ns: int, *, subject: str) -> Finding:
    expected_s = clocks.platform_s + SLACK_S
    parts = {
        "missed": _after_s(steps.missed_ns, began_ns),
        "made": _after_s(steps.made_ns, began_ns),
        "started": _after_s(steps.started_ns, began_ns),
    }
    took_s, given_s = parts["started"], (given_ns - began_ns) / 1e9
    words = {"missed": "its loss noticed", "made": "other pods made", "started": "their containers running"}
    seen = [f"{words[name]} after {value:.1f} s" for name, value in parts.items() if value is not None]
    if took_s is not None:
        outcome = Outcome.PASS if took_s <= expected_s else Outcome.FAIL
    else:
        seen.append(f"nothing in their place {given_s:.1f} s after the fault")
        outcome = Outcome.FAIL if given_s >= expected_s else Outcome.INCONCLUSIVE
    next_step = (
        "look at controller manager and scheduler: are the node's pods evicted, and others given a node?"
    )
    if outcome is Outcome.FAIL and clocks.is_assumed:
        outcome = Outcome.INCONCLUSIVE
        next_step = "state clocks of this cluster, or publish them: the defaults may not be its own"
    return Finding(
        rule="platform-time",
        subject=subject,
        outcome=outcome,
        observed="; ".join(seen),
        expected=f"within {expected_s:g} s: {clocks.words()}, and {SLACK_S:g} s for what has no clock",
        unit="s",
        evidence={f"{name}_s": value for name, value in parts.items()}
        | {"clocks": clocks.to_json(), "platform_s": clocks.platform_s, "series": KUBE_SERIES},
        next_step="" if outcome is Outcome.PASS else next_step,
    )


def _application(times: Times, steps: Steps, clocks: Clocks, *, subject: str, recovery_s: float) -> Finding:
    allowed_s = recovery_s - clocks.platform_s
    if steps.started_ns is None:
        outcome, observed, took_s = None, "nothing was started, so nothing had to become ready", None
    elif times.t_redundant_ns is None:
        took_s = None
        outcome, observed = Outcome.INCONCLUSIVE, "what was started was not seen to be ready"
        if (waited_s := (steps.last_ns - steps.started_ns) / 1e9) > allowed_s:
            outcome, observed = Outcome.FAIL, f"what was started was not ready {waited_s:.1f} s on"
    else:
        took_s = max(0.0, (times.t_redundant_ns - steps.started_ns) / 1e9)
        outcome = Outcome.PASS if took_s <= allowed_s else Outcome.FAIL
        observed = f"ready {took_s:.1f} s after its containers ran"
    return Finding(
        rule="application-time",
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected=f"within {allowed_s:g} s: recovery_s less what the platform itself takes",
        unit="s",
        evidence={"took_s": took_s, "series": KUBE_SERIES},
        next_step="" if outcome in (Outcome.PASS, None) else "look at what the pods do until they are ready",
    )


def _after_s(t_ns: int | None, began_ns: int) -> float | None:
    return None if t_ns is None else round((t_ns - began_ns) / 1e9, 3)

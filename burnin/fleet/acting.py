"""Acting on a verdict: which nodes are drained, which are given back. What is known goes in, steps come out.

Nothing is ever done on INCONCLUSIVE or on a run that did not come to its end, nor for a common cause; at most
2 % of a partition, or one node, is drained in an hour. Only what we drained ourselves is given back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from burnin.fleet.acting_log import DRAIN, UNDRAIN, ActingLog, Entry
from probes.finding import Finding
from probes.outcome import Outcome
from reports.fleet_verdicts import HostVerdict

TAG = "overproof"
PROFILES = ("gate", "quick", "intake", "soak")  # the later ones show more
SHARE_MAX, HOUR_NS = 0.02, 3600 * 10**9
REASON_MAX = 180
# Slurm takes ``gpu[1-9]``, ``a,b`` and ALL for many nodes.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_NOT_IN_REASON = re.compile(r"[^ -~]|[\"'\\`$]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What the site's own manager says of a host."""

    partitions: Mapping[str, int]  # with how many nodes each has
    is_drained: bool
    reason: str  # of the drain; empty: none


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """The run that is acted on."""

    run: str
    started_ns: int
    profile: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is to be done with one host, or why nothing is."""

    host: str
    action: str | None  # DRAIN, UNDRAIN; None: nothing, see ``reason``
    reason: str
    is_held: bool = False  # it should have been done, and was not allowed
    partitions: tuple[str, ...] = ()


def stopping_cause(findings: Sequence[Finding]) -> Finding | None:
    """Return the common cause for which nothing may be drained at all; None: there is none."""
    return next((f for f in findings if f.counts and f.evidence.get("stops_acting")), None)


def plan_steps(
    verdicts: Sequence[HostVerdict],
    findings: Sequence[Finding],
    nodes: Mapping[str, Node],
    log: ActingLog,
    basis: Basis,
    *,
    now_ns: int,
) -> list[Step]:
    """Return a step for every host that failed, and for every one that we once drained."""
    stop = stopping_cause(findings)
    placed = {h: f for f in findings if f.rule == "common-cause" and f.counts for h in f.evidence["hosts"]}
    spent: dict[str, int] = {}
    steps = []
    for verdict in _worst_first(verdicts, findings):
        if verdict.outcome is Outcome.FAIL:
            cause = stop or placed.get(verdict.host)
            step = _drain(verdict, cause, nodes.get(verdict.host), log.last_of(verdict.host), basis)
            steps.append(_within_budget(step, nodes, log, spent, now_ns))
        elif verdict.outcome is Outcome.PASS:
            step_back = _undrain(verdict, nodes.get(verdict.host), log.last_of(verdict.host), basis)
            steps += [step_back] if step_back is not None else []
    return steps


def _worst_first(verdicts: Sequence[HostVerdict], findings: Sequence[Finding]) -> list[HostVerdict]:
    """Order hosts as the findings rank them: the budget goes to the worst."""
    rank: dict[str, int] = {}
    for number, finding in enumerate(findings):
        if finding.outcome is Outcome.FAIL and finding.counts:
            for host in finding.evidence.get("hosts", ()):
                rank.setdefault(str(host), number)
    return sorted(verdicts, key=lambda v: (rank.get(v.host, len(findings)), v.host))


def _drain(
    verdict: HostVerdict, cause: Finding | None, node: Node | None, last: Entry | None, basis: Basis
) -> Step:
    host = verdict.host
    if cause is not None:
        return _held(host, f"a common cause explains it ({cause.subject}: {cause.observed})")
    if not is_safe_name(host):
        return _held(host, "its name could stand for more than one node")
    if node is None:
        return _held(host, "the site's manager knows no such node")
    if last is not None and last.action == DRAIN and last.run == basis.run:
        return Step(
            host=host, action=None, reason="drained on this run before; if it is back, somebody wanted that"
        )
    if last is not None and last.t_ns > basis.started_ns:
        return Step(host=host, action=None, reason="the run is older than what was done with this node since")
    if node.is_drained:
        return Step(host=host, action=None, reason=f"already drained: {node.reason or 'no reason given'}")
    return Step(
        host=host, action=DRAIN, reason=reason_text(verdict, basis), partitions=tuple(node.partitions)
    )


def _held(host: str, why: str) -> Step:
    return Step(host=host, action=None, reason=why, is_held=True)


def _within_budget(
    step: Step, nodes: Mapping[str, Node], log: ActingLog, spent: dict[str, int], now_ns: int
) -> Step:
    """Hold a drain for which a partition of the node has no room left in this hour."""
    if step.action != DRAIN:
        return step
    for name, size in nodes[step.host].partitions.items():
        done, most = log.drains_since(name, now_ns - HOUR_NS) + spent.get(name, 0), budget(size)
        if done >= most:
            return _held(
                step.host, f"{done} of {name} drained within the hour, and {most} of {size} is the most"
            )
    for name in nodes[step.host].partitions:
        spent[name] = spent.get(name, 0) + 1
    return step


def budget(nodes: int) -> int:
    """Return how many nodes of a partition may be drained in an hour."""
    return max(1, int(SHARE_MAX * nodes))


def _undrain(verdict: HostVerdict, node: Node | None, last: Entry | None, basis: Basis) -> Step | None:
    """Give a node back that we drained, once it passed; None: it was not ours to give."""
    if last is None or last.action != DRAIN or node is None or not node.is_drained:
        return None
    host = verdict.host
    if not node.reason.startswith(last.reason):
        return Step(host=host, action=None, reason=f"the drain is somebody else's: {node.reason}")
    if basis.started_ns < last.t_ns:
        return Step(host=host, action=None, reason="it passed before it was drained")
    if _level(basis.profile) < _level(last.profile):
        return _held(host, f"drained after {last.profile}; passing {basis.profile} does not outweigh that")
    return Step(
        host=host,
        action=UNDRAIN,
        reason=f"passed {basis.profile} in {basis.run}",
        partitions=tuple(node.partitions),
    )


def _level(profile: str) -> int:
    return PROFILES.index(profile) if profile in PROFILES else -1


def is_safe_name(host: str) -> bool:
    """Say whether a name stands for one node and nothing else, whoever reads it."""
    return bool(_NAME.fullmatch(host)) and host.upper() != "ALL"


def reason_text(verdict: HostVerdict, basis: Basis) -> str:
    """Return the reason as the site's manager shows it: plain, on one line, with our tag."""
    first = next((f for f in verdict.because if f.outcome is Outcome.FAIL), None)
    why = f"{first.rule} {first.subject}: {first.observed}" if first is not None else "failed its burn-in"
    return _NOT_IN_REASON.sub(" ", f"{TAG} {basis.run}: {why}")[:REASON_MAX].rstrip()

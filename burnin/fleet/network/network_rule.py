"""The rules on the network: what is accused fails, what is suspected or untested leaves it undecided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from burnin.fleet.host_range import compress_hosts
from burnin.fleet.network.attribution import (
    ACCUSED,
    SUSPECTED_BEHIND,
    Attribution,
    NetworkOutcome,
    hosts_of,
)
from probes.finding import Finding
from probes.outcome import Outcome

_EXPECTED = "as fast as the like of it, with right results, beside at least two healthy partners"
_EVIDENCE_MAX = 20  # ids of trials
_NAMES_MAX = 400  # characters of ranges
_PAIRS_SHOWN = 10
_PARTS_MAX = 1000
LONE_HOSTS_MAX = 2


def judge_network(outcome: NetworkOutcome, *, fleet: str) -> list[Finding]:
    """Return what the network stage found: each accused part, who is suspected, and what was not tested."""
    behind = [a for a in outcome.attributions if a.status == SUSPECTED_BEHIND]
    others = [a for a in outcome.attributions if a.status != SUSPECTED_BEHIND]
    findings = [_judge(attribution) for attribution in others]
    findings += _judge_behind(behind, fleet)
    findings += _judge_hidden(outcome.untested_parts, fleet)
    findings += _judge_coverage(outcome, fleet)
    findings.append(_summary(outcome, fleet))
    return findings


def _judge(attribution: Attribution) -> Finding:
    is_accused = attribution.status == ACCUSED
    return Finding(
        rule="network",
        subject=attribution.subject,
        outcome=Outcome.FAIL if is_accused else Outcome.INCONCLUSIVE,
        observed=_observed(attribution),
        expected=_EXPECTED,
        evidence={
            "kind": attribution.kind,
            "status": attribution.status,
            "fault": attribution.fault,
            "slowdown": attribution.slowdown,
            "slowdown_low": attribution.slowdown_low,
            "slowdown_high": attribution.slowdown_high,
            "trials": list(attribution.evidence[:_EVIDENCE_MAX]),
            "hosts": hosts_of(attribution.subject),
            "severity": attribution.slowdown or 0.0,
        },
        next_step=attribution.next_step,
    )


def _observed(attribution: Attribution) -> str:
    words = [attribution.fault if attribution.status == ACCUSED else attribution.status]
    if attribution.slowdown is not None:
        words.append(f"takes {attribution.slowdown:.2f} times as long")
    if attribution.slowdown_low is not None and attribution.slowdown_high is not None:
        words[-1] += f" (95 %: {attribution.slowdown_low:.2f} to {attribution.slowdown_high:.2f})"
    if attribution.trials:
        words.append(f"bad in {attribution.trials_bad} of {attribution.trials} trials that tell")
    if attribution.detail:
        words.append(attribution.detail)
    return "; ".join(words)


def _judge_behind(behind: Sequence[Attribution], fleet: str) -> Iterator[Finding]:
    if behind:
        hosts = [a.subject.removeprefix("host:") for a in behind]
        yield Finding(
            rule="network-coverage",
            subject=f"fleet:{fleet}/behind",
            outcome=Outcome.INCONCLUSIVE,
            observed=f"{len(hosts)} hosts hang on an accused part, which hides the rest: {_names(hosts)}",
            expected="each host is tested through parts that are well",
            evidence={"hosts": hosts},
            next_step="repair that part, then test these hosts again",
        )


def _judge_hidden(parts: Sequence[str], fleet: str) -> Iterator[Finding]:
    if parts:
        hosts = list(dict.fromkeys(host for part in parts for host in hosts_of(part)))
        yield Finding(
            rule="network-coverage",
            subject=f"fleet:{fleet}/hidden",
            outcome=Outcome.INCONCLUSIVE,
            observed=f"{len(parts)} adapters such as {parts[0]} hang on an accused switch, which hides them; "
            f"over their other rails these hosts are well: {_names(hosts)}",
            expected="each adapter is tested through parts that are well",
            evidence={"hosts": hosts, "parts": list(parts[:_PARTS_MAX])},
            next_step="repair that switch, then test these hosts again",
        )


def _judge_coverage(outcome: NetworkOutcome, fleet: str) -> Iterator[Finding]:
    if outcome.untested_hosts:
        hosts = list(outcome.untested_hosts)
        yield Finding(
            rule="network-coverage",
            subject=f"fleet:{fleet}/hosts",
            outcome=Outcome.INCONCLUSIVE,
            observed=f"{len(hosts)} hosts were in no trial that could be judged: {_names(hosts)}",
            expected="every host of the fleet is tested",
            evidence={"hosts": hosts},
            next_step="see why they could not take part, then go on with --resume",
        )
    if outcome.uncompared_hosts:
        hosts = list(outcome.uncompared_hosts)
        yield Finding(
            rule="network-coverage",
            subject=f"fleet:{fleet}/speed",
            # Two hosts make one pair: there is nothing that it could be compared with.
            outcome=None if len(hosts) <= LONE_HOSTS_MAX else Outcome.INCONCLUSIVE,
            observed=f"{len(hosts)} hosts exchange data rightly, how fast cannot be judged: {_names(hosts)}",
            expected="at least three trials alike, or a floor",
            evidence={"hosts": hosts},
            next_step="test them together with more hosts",
        )
    if outcome.is_cut_short:
        yield Finding(
            rule="network-coverage",
            subject=f"fleet:{fleet}/rounds",
            outcome=Outcome.INCONCLUSIVE,
            observed=outcome.detail,
            expected="the search ends by itself",
            next_step="repair what is accused, then test again; or allow more rounds",
        )
    if outcome.untested_pairs_count:
        shown = ", ".join(f"{a}-{b}" for a, b in outcome.untested_pairs[:_PAIRS_SHOWN])
        yield Finding(
            rule="network-coverage",
            subject=f"fleet:{fleet}/pairs",
            outcome=None,
            observed=f"{outcome.untested_pairs_count:,} pairs of hosts never met, such as {shown}",
            expected="said; the profile soak lets every two hosts meet",
            evidence={"pairs": [list(pair) for pair in outcome.untested_pairs[:_PAIRS_SHOWN]]},
        )


def _summary(outcome: NetworkOutcome, fleet: str) -> Finding:
    cleared = [a.subject.removeprefix("host:") for a in outcome.cleared]
    trials = sum(1 for result in outcome.results if result.state != "not run")
    observed = f"{trials} trials in {outcome.rounds} rounds, {outcome.node_minutes:.0f} node-minutes"
    if cleared:
        observed += f"; in a bad trial, and cleared: {_names(cleared)}"
    return Finding(
        rule="network",
        subject=f"fleet:{fleet}",
        outcome=Outcome.PASS if trials else Outcome.INCONCLUSIVE,
        observed=observed,
        expected="hosts exchanged data",
        evidence={"rounds": outcome.rounds, "trials": trials, "cleared": cleared},
        next_step="" if trials else "see why no trial ran",
    )


def _names(hosts: Sequence[str]) -> str:
    text = compress_hosts(hosts)
    return text if len(text) <= _NAMES_MAX else text[:_NAMES_MAX] + " ..."

"""From the record of a fleet's run to the findings on its cables and on its training step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from burnin.fleet.host import Fleet
from burnin.fleet.network.cabling import CABLING, judge_cabling, links_from_json
from burnin.fleet.training import TRAINING
from burnin.fleet.training_rules import judge_training
from probes.finding import Finding
from probes.outcome import Outcome
from reports.run import Run
from reports.table import read_series


def judge_stages(run: Run, fleet: Fleet) -> list[Finding]:
    """Judge cables and training; hosts that passed a rule are one finding together."""
    return [*_together(_cabling(run, fleet), fleet), *_together(_training(run, fleet), fleet)]


def _cabling(run: Run, fleet: Fleet) -> Iterator[Finding]:
    hosts = {host.name: host for host in fleet.hosts}
    told = {str(event.data["subject"]): event.data for event in run.events_of(CABLING)}
    for name, data in told.items():
        if name in hosts:
            yield judge_cabling(hosts[name], data.get("told"), links_from_json(data.get("links") or {}))


def _training(run: Run, fleet: Fleet) -> list[Finding]:
    stages = run.events_of(TRAINING)
    if not stages:
        is_wanted = bool((run.header.spec.get("together") or {}).get("train"))
        return [_not_trained(run, fleet)] if is_wanted else []
    return judge_training(stages[-1].data, read_series(run, "train"), fleet=fleet.name)


def _not_trained(run: Run, fleet: Fleet) -> Finding:
    left_out = [e.data for e in run.events_of("stage.left-out") if e.data.get("stage") == TRAINING]
    why = f"left out: {left_out[-1]['reason']}" if left_out else "it did not come to its end"
    return Finding(
        rule="training-end",
        subject=f"fleet:{fleet.name}",
        outcome=Outcome.INCONCLUSIVE,
        observed=why,
        expected="every rank of every host does every step, as was asked for",
        next_step="go on with --resume",
    )


def _together(findings: Iterator[Finding] | Sequence[Finding], fleet: Fleet) -> list[Finding]:
    """Merge what passed, and what does not apply, by rule: nobody reads a thousand of the same line."""
    alike: dict[tuple[str, Outcome | None], list[Finding]] = defaultdict(list)
    kept: list[Finding] = []
    for finding in findings:
        if finding.outcome in (None, Outcome.PASS) and finding.subject.startswith("host:"):
            alike[finding.rule, finding.outcome].append(finding)
        else:
            kept.append(finding)
    return [*kept, *(_merged(group, fleet) for group in alike.values())]


def _merged(group: Sequence[Finding], fleet: Fleet) -> Finding:
    if len(group) == 1:
        return group[0]
    return Finding(
        rule=group[0].rule,
        subject=f"fleet:{fleet.name}",
        outcome=group[0].outcome,
        observed=f"{len(group):,} hosts alike; {group[0].subject.removeprefix('host:')}: {group[0].observed}",
        expected=group[0].expected
        if len({one.expected for one in group}) == 1
        else "as the plan says of each",
    )

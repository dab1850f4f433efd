"""Renders the study of attribution: tables of cost, of what was named, and what was not and why."""

from __future__ import annotations

import datetime
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from burnin.fleet.simulation.fault import FLAPPING, PAIR_KINDS, SLOW_NIC
from tests.studies.attribution import (
    FLAPPING_OFTEN,
    FLAPPING_RARELY,
    HEALTHY,
    HOSTS,
    MIXED,
    SICK,
    Row,
    Score,
)

KINDS_SHOWN = tuple(
    name for kind in MIXED for name in ((FLAPPING_OFTEN, FLAPPING_RARELY) if kind == FLAPPING else (kind,))
)
# What `intake` does not claim to find: it does not let every two hosts meet, nor wait for what comes rarely.
NOT_INTAKE = (*PAIR_KINDS, FLAPPING_RARELY)
Totals = Sequence[tuple[Row, Score]]

_INTRODUCTION = (
    "In each sick fleet 1 % of the parts of each of twelve kinds are bad at the same time: 10 hosts of each",
    "kind, 10 slow and 10 dead pairs, 1 % of the leaf switches and of the ways out of a fabric. Slow parts",
    "keep 30 to 88 % of their speed; a flapping link dips for half a second every 5 to 120 s on average;",
    "half of the bad pairs stand in one fabric. A trial takes 20 s to start and, for all-reduce and",
    "pairwise exchange together, 20 s of large messages and as long for small ones, half of it for one of",
    "the two; one that hangs takes 240 s. *Named* is strict: the very part, or its host for an adapter; a",
    "group or a hint does not count, but for NVCRE a pair counts when it is within the two groups that its",
    "InfrastructureFault names. The others are simulated after their sources: tests/studies/rivals.py. They",
    "run the all-reduce only; of all pairs those with nothing bad between them are counted, not simulated.",
)

_COSTS = (
    "Costs are medians, in brackets the most. *False* counts what is accused without reason, pairs included,",
    "over the hosts that are healthy. A row with fewer seeds than another was ended before it was done; the",
    "same command goes on with it.",
)

_WHY = (
    "*Hidden*: an adapter on the very rail of an accused leaf switch, or a pair across an accused way out of",
    "a fabric, that is no slower than that: no trial can tell it before the switch is repaired. Each is",
    "listed as not tested (`network-coverage`), and such adapters leave it INCONCLUSIVE. *Never met*: the",
    "pair was in no trial together; `intake` does not let every pair meet, and lists how many did not.",
    "",
    "`intake` claims neither pairs nor links that dip more rarely than every 15 s. It pays 80 s of large",
    "messages for each host (two passes, within the fabric and across): a link that dips every τ seconds",
    "shows in them with 1 − exp(−80/τ), that is 99.5 % at 15 s, 93 % at 30 s, 49 % at 120 s; then it has to",
    "show twice more in up to 16 retests of 20 s. `soak` pays 480 s in its passes and about 740 s while all",
    "pairs meet: 1 − exp(−1220/120) is 99.996 %, and each time that it shows brings new retests.",
)


def render(totals: Totals, command: str) -> str:
    """Return the report."""
    done = [(row, score) for row, score in totals if score.fleets]
    cpu_minutes = sum(score.cpu_s for _, score in done) / 60
    sick = [(row, score) for row, score in done if row.fleets == SICK]
    lines = [
        "# Attribution on simulated fleets",
        "",
        f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, `{command}`, {cpu_minutes:.0f} minutes of CPU. "
        f"{HOSTS} hosts of eight GPUs, 32 behind eight leaf switches; SIMULATED: no such fleet exists.",
        "",
        *_INTRODUCTION,
        "",
        "## What was reached",
        "",
        *_claims(sick, done),
        "",
        "## Cost and false accusations",
        "",
        "| method | fleets | seeds | named | false, of healthy hosts | rounds | minutes | node-minutes |",
        "|---|---|---|---|---|---|---|---|",
        *(_cost_row(row, score) for row, score in done),
        "",
        *_COSTS,
        "",
        "## Named, by kind of fault",
        "",
        "| kind | " + " | ".join(row.name for row, _ in sick) + " |",
        "|---|" + "---|" * len(sick),
        *(_kind_row(kind, sick) for kind in KINDS_SHOWN),
        "",
        *_WHY,
    ]
    return "\n".join(lines) + "\n"


def _claims(sick: Totals, done: Totals) -> Iterator[str]:
    for row, score in sick:
        if not row.name.startswith("overproof"):
            continue
        is_intake = row.name.endswith("intake")
        kinds = [kind for kind in KINDS_SHOWN if not (is_intake and kind in NOT_INTAKE)]
        seeded, named = _sum(score.seeded, kinds), _sum(score.named, kinds)
        hidden, unmet = _sum(score.hidden, kinds), _sum(score.unmet, kinds)
        rest = seeded - named - hidden - unmet
        healthy = next((s for r, s in done if (r.name, r.fleets) == (row.name, HEALTHY)), Score())
        what = " of the kinds that it claims" if is_intake else ""
        possible = seeded - hidden - unmet
        yield (
            f"- `{row.name}`: {_share(named, possible)} of the {possible} faults{what} that could be "
            f"identified; {_share(named, seeded)} of all {seeded}{what}. Not named: {hidden} hidden, {unmet} "
            f"pairs that never met, {rest} missed. False: {_false(score)} of healthy hosts in sick fleets, "
            f"{_false(healthy)} in healthy ones. Of the slow adapters named, "
            f"{_share(score.to_rail, score.named[SLOW_NIC])} were named to the rail; the true slowdown was "
            f"within the 95 % interval in {_share(score.in_interval, score.with_interval)} of "
            f"{score.with_interval}."
        )


def _sum(counts: Counter[str], kinds: Sequence[str]) -> int:
    return sum(counts[kind] for kind in kinds)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "–"


def _false(score: Score) -> str:
    return f"{score.false} ({score.false / score.healthy:.3%})" if score.healthy else "–"


def _cost_row(row: Row, score: Score) -> str:
    named = _share(sum(score.named.values()), sum(score.seeded.values()))
    figures = (score.rounds, score.minutes, score.node_minutes)
    costs = " | ".join(f"{statistics.median(f):,.0f} (≤ {max(f):,.0f})" for f in figures)
    return f"| {row.name} | {row.fleets} | {score.fleets} | {named} | {_false(score)} | {costs} |"


def _kind_row(kind: str, sick: Totals) -> str:
    cells = []
    for _, score in sick:
        reasons = ((score.hidden[kind], "hidden"), (score.unmet[kind], "never met"))
        why = ", ".join(f"{count} {what}" for count, what in reasons if count)
        cell = f"{_share(score.named[kind], score.seeded[kind])} of {score.seeded[kind]}"
        cells.append(cell + (f" ({why})" if why else ""))
    return f"| {kind} | " + " | ".join(cells) + " |"

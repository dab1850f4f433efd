"""Rules on the training step: pure functions of the rows ``train`` and of what is told of the stage.

Alone, every rank computes the same numbers on the same data, so whoever differs from most of its own model of
device has computed wrongly. Together, the second run must repeat the first.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

ALONE, FIRST, SECOND, COMMAND = "alone", "together", "together again", "command"
LOSS_TOLERANCE = 1e-3  # relative, where two runs need not agree in every bit
SLOW_RATIO_MAX = (
    1.15  # of a rank's median step alone to that of the median rank; healthy GPUs differ by 5 to 8 %
)
RANKS_MIN = 3
WARM_UP_STEPS = 1  # the first step of a phase sets up memory and kernels
_AGAIN = "run it again; if it stays, burn in this host by itself: overproof burnin run --profile intake"


def judge_training(stage: JsonObject, rows: Sequence[JsonObject], *, fleet: str) -> list[Finding]:
    """Judge the whole stage: did it run to its end, was every loss right, was any rank slow."""
    hosts = [str(host) for host in stage["hosts"]]
    findings = judge_training_end(stage, fleet=fleet)
    if any(row.get("phase") == COMMAND for row in rows):
        return [*findings, judge_command_loss(rows, fleet=fleet)]
    setups: Mapping[str, JsonObject] = stage.get("setups") or {}
    references, alone = find_references(setups, rows), _medians(rows, ALONE)
    by_host: dict[str, list[JsonObject]] = defaultdict(list)
    for row in rows:
        by_host[str(row["host"])].append(row)
    for host in hosts:
        findings.append(judge_training_loss(host, setups.get(host), by_host[host], references))
        findings.append(judge_training_pace(host, setups.get(host), by_host[host], alone))
    return findings


def judge_training_end(stage: JsonObject, *, fleet: str) -> list[Finding]:
    """Fail the hosts that the stage itself names; without one, a stage that broke off is undecided."""
    state, detail = str(stage["state"]), str(stage.get("detail", ""))
    expected = "every rank of every host does every step"
    if state == "done":
        observed = f"{len(stage['hosts'])} hosts trained together in {float(stage['seconds']):.0f} s"
        return [
            Finding(
                rule="training-end",
                subject=f"fleet:{fleet}",
                outcome=Outcome.PASS,
                observed=observed,
                expected=expected,
            )
        ]
    blamed = [str(host) for host in stage.get("blamed") or ()]
    subjects = [f"host:{host}" for host in blamed] or [f"fleet:{fleet}"]
    return [
        Finding(
            rule="training-end",
            subject=subject,
            outcome=Outcome.FAIL if blamed else Outcome.INCONCLUSIVE,
            observed=f"{state}: {detail}"[:400],
            expected=expected,
            next_step=_AGAIN if blamed else "see the findings of the network stage, then run it again",
        )
        for subject in subjects
    ]


def judge_training_loss(
    host: str, setup: JsonObject | None, own: Sequence[JsonObject], references: References
) -> Finding:
    """Fail a host whose losses differ from those of its like, or whose second run does not repeat the first.

    Where ranks differ and no majority says who is right, each of them is undecided.
    """
    is_exact = bool(setup and setup.get("is_deterministic"))
    how = (
        "bit for bit" if is_exact else f"within {LOSS_TOLERANCE:g}, as some operations cannot repeat exactly"
    )
    vote = _vote(setup, own, references)
    outcome, observed = _loss_outcome(own, vote, is_exact=is_exact, how=how)
    return Finding(
        rule="training-loss",
        subject=f"host:{host}",
        outcome=outcome,
        observed=observed,
        expected=f"the same losses as its like alone, and the same again together, {how}",
        evidence={"setup": setup, "voters": vote.voters},
        next_step="" if outcome is Outcome.PASS else _AGAIN,
    )


def _loss_outcome(own: Sequence[JsonObject], vote: _Vote, *, is_exact: bool, how: str) -> tuple[Outcome, str]:
    for row in own:
        if not math.isfinite(float(row["loss"])):
            return Outcome.FAIL, f"loss {row['loss']} in step {row['step']}, {row['phase']}"
    if vote.outvoted is not None:
        row = vote.outvoted
        said = f"rank {row['rank']} alone: loss {float(row['loss']):.7g} in step {row['step']}"
        return Outcome.FAIL, f"{said}, unlike most of {vote.voters} ranks"
    repeat = _repeat(own)
    if not repeat:
        return Outcome.INCONCLUSIVE, "it did not come to the end of its second run"
    different = [pair for pair in repeat if not _is_same(*pair, is_exact=is_exact)]
    if different:
        first, second = different[0]
        said = f"in step {first['step']} {float(first['loss']):.7g}, then {float(second['loss']):.7g}"
        return Outcome.FAIL, f"{len(different)} of {len(repeat)} losses not repeated {how}: {said}"
    if vote.is_tied:
        return Outcome.INCONCLUSIVE, f"{vote.voters} ranks differ alone, and no majority says who is right"
    if vote.voters < 2:
        return Outcome.INCONCLUSIVE, "no other rank has its model of device: nothing to compare it with"
    return (
        Outcome.PASS,
        f"{len(repeat)} losses repeated {how}; alone the same as the most of {vote.voters} ranks",
    )


def _repeat(own: Sequence[JsonObject]) -> list[tuple[JsonObject, JsonObject]]:
    """Return each step of the first run together with the same step of the second."""
    first = {(row["rank"], row["step"]): row for row in own if row.get("phase") == FIRST}
    second = {(row["rank"], row["step"]): row for row in own if row.get("phase") == SECOND}
    whole = first.keys() and first.keys() == second.keys()
    return [(first[key], second[key]) for key in sorted(first)] if whole else []


def _is_same(one: JsonObject, other: JsonObject, *, is_exact: bool) -> bool:
    if is_exact:
        return bool(one["loss_bits"] == other["loss_bits"])
    return math.isclose(float(one["loss"]), float(other["loss"]), rel_tol=LOSS_TOLERANCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What the ranks of one kind of device say of one step alone."""

    voters: int
    usual: JsonObject  # a row as the most have it
    is_majority: bool  # more than half of them have it


@dataclass(frozen=True, slots=True, kw_only=True)
class _Vote:
    """How a host's losses alone compare with those of its like."""

    voters: int = 0  # ranks with the same model of device and version of torch, its own among them
    outvoted: JsonObject | None = None  # its first loss that the majority does not have; None: there is none
    is_tied: bool = False


References = Mapping[tuple[tuple[str, str, bool], int], Reference]


def find_references(setups: Mapping[str, JsonObject], rows: Sequence[JsonObject]) -> References:
    """Return, for each kind of device and each step alone, what its ranks agree on."""
    told: dict[tuple[tuple[str, str, bool], int], list[JsonObject]] = defaultdict(list)
    kinds = {host: _kind(setup) for host, setup in setups.items()}
    for row in rows:
        if row.get("phase") == ALONE and row["host"] in kinds:
            told[kinds[row["host"]], int(row["step"])].append(row)
    return {key: _refer(each, is_exact=key[0][2]) for key, each in told.items()}


def _refer(told: Sequence[JsonObject], *, is_exact: bool) -> Reference:
    if is_exact:
        bits = Counter(row["loss_bits"] for row in told).most_common(1)[0][0]
        usual = next(row for row in told if row["loss_bits"] == bits)
    else:
        usual = sorted(told, key=lambda row: float(row["loss"]))[len(told) // 2]
    agreeing = sum(_is_same(row, usual, is_exact=is_exact) for row in told)
    return Reference(voters=len(told), usual=usual, is_majority=2 * agreeing > len(told))


def _vote(setup: JsonObject | None, own: Sequence[JsonObject], references: References) -> _Vote:
    if setup is None:
        return _Vote()
    kind, voters, is_tied = _kind(setup), 0, False
    for row in (row for row in own if row.get("phase") == ALONE):
        reference = references[kind, int(row["step"])]
        voters, is_tied = max(voters, reference.voters), is_tied or not reference.is_majority
        if reference.is_majority and not _is_same(row, reference.usual, is_exact=kind[2]):
            return _Vote(voters=voters, outvoted=row)
    return _Vote(voters=voters, is_tied=is_tied)


def _kind(setup: JsonObject) -> tuple[str, str, bool]:
    """Return what must be the same for two ranks to compute the same."""
    return str(setup["model"]), str(setup["torch"]), bool(setup.get("is_deterministic"))


def judge_training_pace(
    host: str, setup: JsonObject | None, own: Sequence[JsonObject], alone: Mapping[tuple[str, int], float]
) -> Finding:
    """Fail a host with a rank that alone takes much longer for the same step than the median rank.

    Together all ranks wait for the slowest, so that the spread shows alone only. On CPUs, whose cores are
    shared, it is shown and not judged.
    """
    mine = _medians(own, ALONE)
    outcome: Outcome | None = Outcome.INCONCLUSIVE
    observed = "no steps alone"
    if mine and alone:
        (_, rank), slowest = max(mine.items(), key=lambda item: item[1])
        ratio = slowest / median(alone.values())
        observed = (
            f"rank {rank} takes {slowest * 1e3:.1f} ms alone, {ratio:.2f} times the median of {len(alone)}"
        )
        observed += _together(own)
        if len(alone) >= RANKS_MIN:
            outcome = Outcome.FAIL if ratio > SLOW_RATIO_MAX else Outcome.PASS
        if (setup or {}).get("device") == "cpu":
            outcome = None
    return Finding(
        rule="training-pace",
        subject=f"host:{host}",
        outcome=outcome,
        observed=observed,
        expected=f"each rank at most {SLOW_RATIO_MAX:.2f} times the median of at least {RANKS_MIN} ranks",
        next_step=_AGAIN if outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE) else "",
    )


def _together(own: Sequence[JsonObject]) -> str:
    steps = _medians(own, FIRST, SECOND)
    told = [float(row["tflops"]) for row in own if row.get("phase") in (FIRST, SECOND)]
    return (
        f"; {median(steps.values()) * 1e3:.1f} ms together, {median(told):.3g} TFLOPS each" if steps else ""
    )


def _medians(rows: Sequence[JsonObject], *phases: str) -> dict[tuple[str, int], float]:
    """Return each rank's median step in these phases, without the steps that warm up."""
    taken: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row in rows:
        if row.get("phase") in phases and int(row["step"]) >= WARM_UP_STEPS:
            taken[str(row["host"]), int(row["rank"])].append(float(row["step_s"]))
    return {key: median(values) for key, values in taken.items()}


def judge_command_loss(rows: Sequence[JsonObject], *, fleet: str) -> Finding:
    """Fail a loss of the user's own command that is not a number; without a loss nothing is said of it."""
    losses = [(row["step"], float(row["loss"])) for row in rows if row.get("loss") is not None]
    wrong = [(step, loss) for step, loss in losses if not math.isfinite(loss)]
    steps = [float(row["step_s"]) for row in rows if row.get("step_s") is not None]
    pace = f", {median(steps):.3g} s each in the median, {max(steps):.3g} s at most" if steps else ""
    outcome = Outcome.FAIL if wrong else Outcome.PASS if losses else Outcome.INCONCLUSIVE
    what = f"loss {wrong[0][1]} in step {wrong[0][0]}" if wrong else f"{len(losses)} losses, all finite"
    return Finding(
        rule="training-loss",
        subject=f"fleet:{fleet}",
        outcome=outcome,
        observed=f"{what}; {len(rows)} lines with a step{pace}",
        expected="the user's own command prints steps with a finite loss",
        next_step="" if outcome is Outcome.PASS else "look at the command's output and at its regexes",
    )

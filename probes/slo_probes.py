"""Probes of live traffic for any Chaos Toolkit experiment, over the record of a load test that runs.

``probes.slo.slo_holds`` and the functions here take their promises in the words that workloads use. Each has
three answers: it holds, it does not, and nobody can say. The last is an error with its reason, which Chaos
Toolkit shows and takes for a probe that failed: too few requests and a dead load test are never a pass.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from probes.errors import ConfigError, TargetError
from probes.finding import Finding, finding_to_json, verdict
from probes.json_types import JsonObject
from probes.live_load import LiveLoad, Stretch, find_load
from probes.outcome import Outcome
from probes.slo import GOODPUT, Slo, judge_slos, tally_slo
from probes.slo_spec import SloSpec, expand, to_slos

POLL_S = 0.25
REQUESTS_MIN = 20  # of a plain share; a promise judged at a confidence finds out itself what it needs
_logger = logging.getLogger("chaostoolkit")  # whose lines people see under ``chaos run``


def promises(given: Sequence[JsonObject] | None, load: LiveLoad) -> tuple[Slo, ...]:
    """Return the promises that a probe was given, else those of the load test's workload.

    Raises:
        ConfigError: they are none.
    """
    rows = given if given is not None else load.header.get("spec", {}).get("slos")
    if not rows:
        raise ConfigError(f"slos: none are given, and the workload of {load.folder} has none")
    try:
        return to_slos(expand(tuple(SloSpec.model_validate(row) for row in rows), folder=Path()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"slos: {where}: {first['msg']}; got {first['input']!r:.200}") from error
    except ValueError as error:
        raise ConfigError(f"slos: {error}") from error


def look(load: LiveLoad, *, window_s: float, settle_s: float, wait_s: float) -> Stretch:
    """Return the last stretch of traffic, once there has been as much of it as is asked for.

    Raises:
        TargetError: within ``wait_s`` there was not, or the load test is over.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            stretch = load.read(window_s=window_s, settle_s=settle_s)
            reason = f"load test {load.folder}: has not run for the {window_s:g} s that are looked at"
            if load.first_ns is not None and load.first_ns <= stretch.start_ns:
                return stretch
        except TargetError as error:
            reason = str(error)
        if time.monotonic() >= deadline:
            raise TargetError(reason)
        time.sleep(POLL_S)


def slo_findings(
    slos: list[JsonObject] | None = None,
    window_s: float = 30.0,
    settle_s: float = 2.0,
    wait_s: float = 0.0,
    run: str = "",
    out: str = "runs",
) -> JsonObject:
    """Judge the promises over the last seconds of traffic; the outcome with everything it rests on.

    For a tolerance such as ``{type: regex, target: outcome, pattern: "^pass$"}``, or to keep in the journal.

    Raises:
        TargetError: no load test says anything.
    """
    findings, stretch = _judge(slos, window_s, settle_s, wait_s, run, out)
    return {
        "outcome": verdict(findings).value,
        "run": str(stretch.run),
        "requests": len(stretch.requests),
        "under_way": stretch.under_way,
        "findings": [finding_to_json(finding) for finding in findings],
    }


def answer_slo_holds(
    slos: list[JsonObject] | None, window_s: float, settle_s: float, wait_s: float, run: str, out: str
) -> bool:
    """Answer ``probes.slo.slo_holds``."""
    findings, stretch = _judge(slos, window_s, settle_s, wait_s, run, out)
    outcome = verdict(findings)
    said = "; ".join(f"{f.subject}: {f.observed}" for f in findings if f.outcome is not Outcome.PASS)
    if outcome is Outcome.INCONCLUSIVE:
        raise TargetError(f"undecided in {window_s:g} s of traffic: {said}{_note_under_way(stretch)}")
    if outcome is Outcome.FAIL:
        _logger.warning("slo_holds: %s", said)
    return outcome is Outcome.PASS


def _judge(
    slos: list[JsonObject] | None, window_s: float, settle_s: float, wait_s: float, run: str, out: str
) -> tuple[list[Finding], Stretch]:
    load = _find(run, out, wait_s)
    wanted = promises(slos, load)
    stretch = look(load, window_s=window_s, settle_s=settle_s, wait_s=wait_s)
    return judge_slos(wanted, stretch.requests), stretch


def _find(run: str, out: str, wait_s: float) -> LiveLoad:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return find_load(run, out)
        except TargetError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(POLL_S)


def _note_under_way(stretch: Stretch) -> str:
    if not stretch.under_way:
        return ""
    return f"; {stretch.under_way} requests are still under way: raise settle_s where answers take long"


def goodput_share(
    slos: list[JsonObject] | None = None,
    window_s: float = 30.0,
    settle_s: float = 2.0,
    wait_s: float = 0.0,
    requests_min: int = REQUESTS_MIN,
    run: str = "",
    out: str = "runs",
) -> float:
    """Return the share of requests that were answered whole and kept every bound, as the window has it.

    A figure for a tolerance such as ``{type: range, range: [0.95, 1.0]}``. What is under way is not good.

    Raises:
        TargetError: no load test says anything, or there were too few requests.
    """
    certain, possible, total = _count_bad(slos, window_s, settle_s, wait_s, requests_min, run, out)
    del certain
    return round(1 - possible / total, 6)


def error_budget_holds(
    objective: float,
    burn_max: float = 1.0,
    slos: list[JsonObject] | None = None,
    window_s: float = 60.0,
    settle_s: float = 2.0,
    wait_s: float = 0.0,
    requests_min: int = REQUESTS_MIN,
    run: str = "",
    out: str = "runs",
) -> bool:
    """Say whether the error budget of an objective burns at most so many times as fast as it may.

    Burn is the share of bad requests / (1 - objective), as of the guards of a game day.

    Raises:
        TargetError: nobody can say: too few requests, or too many of them still under way.
    """
    if not 0 < objective < 1 or not 0 < burn_max < 1 / (1 - objective):
        raise ConfigError(
            f"error_budget_holds: objective {objective!r} with burn_max {burn_max!r} can never be exceeded"
        )
    certain, possible, total = _count_bad(slos, window_s, settle_s, wait_s, requests_min, run, out)
    least, most = (bad / total / (1 - objective) for bad in (certain, possible))
    said = f"the budget of {objective:.2%} burns {least:.2f} to {most:.2f} times as fast as it may"
    if least <= burn_max < most:
        raise TargetError(f"{said}, at most {burn_max:g} wanted: what is under way decides")
    if least > burn_max:
        _logger.warning("error_budget_holds: %s, at most %g wanted", said, burn_max)
    return most <= burn_max


def _count_bad(
    slos: list[JsonObject] | None,
    window_s: float,
    settle_s: float,
    wait_s: float,
    requests_min: int,
    run: str,
    out: str,
) -> tuple[int, int, int]:
    """Return how many requests were bad at least and at most, and of how many."""
    load = _find(run, out, wait_s)
    wanted = promises(slos, load)
    stretch = look(load, window_s=window_s, settle_s=settle_s, wait_s=wait_s)
    tally = tally_slo(Slo(name=GOODPUT, metric=GOODPUT, objective=0.5), stretch.requests, wanted)
    if tally.total < max(1, requests_min):
        raise TargetError(
            f"load test {load.folder}: {tally.total} requests in {window_s:g} s, at least {requests_min} "
            "are wanted: raise the rate or window_s"
        )
    return tally.certain, tally.possible, tally.total

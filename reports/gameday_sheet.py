"""What the report of a game day says beside its findings, as a post-mortem uses it: facts, and no blame.

All of it is read from the record: what was to be shown, what was planned, what happened, what healed by
itself and what our undo had to do, times and budget against their bounds, and what follows.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.gameday_story import Step, injected_at, name_of, tell_story
from reports.record import UNDO_FILE
from reports.related import Related, related_runs, runs_beside
from reports.run import CRASHED, INTERRUPTED, STOPPED, Run, read_ndjson
from reports.timeline import Timeline

GAMEDAY = "gameday"  # kind of such a run
PLAN_FILE = "plan.json"
PLATFORM = "platform"
STILL_BROKEN = "still broken"
FOLLOW_UPS_MAX = 20
NEAR_BOUND = 0.8  # of a bound: passed, and worth a look


@dataclass(frozen=True, slots=True, kw_only=True)
class Healing:
    """What became of one fault."""

    subject: str
    word: str  # "by itself", "by undo, as meant", "by our undo", "still broken"
    is_well: bool  # ended as it should
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One derived figure and its bound."""

    name: str
    value: str
    bound: str  # empty: nothing bounds it
    outcome: Outcome | None  # None: nothing judges it


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUp:
    """Something to be done; who does it is for people to say."""

    what: str
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GamedaySheet:
    """The after-report."""

    hypothesis: str
    description: str
    ending: str  # who or what cut the day short, and whether all is put back; empty: nobody did
    planned: tuple[tuple[str, str], ...]
    day: str  # date of the steps
    steps: tuple[Step, ...]
    healing: tuple[Healing, ...]
    figures: tuple[Figure, ...]
    follow_ups: tuple[FollowUp, ...]
    related: tuple[Related, ...]  # runs inside it, and of the same nodes; none where nothing is drawn


def build_gameday_sheet(run: Run, timeline: Timeline, *, is_drawn: bool = True) -> GamedaySheet | None:
    """Gather the after-report; None: this is no game day. What others recorded is read only to be drawn."""
    if run.header.kind != GAMEDAY:
        return None
    document = _dict(run.header.spec.get("document"))
    plan, harm = _read_plan(run), _harm(run)
    healing = tuple(_healing(run))
    figures = tuple(_figures(run, plan, harm))
    return GamedaySheet(
        hypothesis=str(document.get("title") or run.header.spec.get("title") or ""),
        description=" ".join(str(document.get("description") or "").split()),
        ending=_ending(run, healing),
        planned=tuple(_planned(run, plan, document)),
        day=_day(run),
        steps=tell_story(run, timeline),
        healing=healing,
        figures=figures,
        follow_ups=tuple(_follow_ups(run, plan, harm, healing))[:FOLLOW_UPS_MAX],
        related=related_runs(run, runs_beside(run)) if is_drawn else (),
    )


def _dict(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _read_plan(run: Run) -> JsonObject:
    try:
        return _dict(json.loads((run.path / PLAN_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _day(run: Run) -> str:
    return f"{datetime.datetime.fromtimestamp(run.header.started_ns / 1e9, tz=datetime.UTC):%Y-%m-%d}, UTC"


def _ending(run: Run, healing: Sequence[Healing]) -> str:
    stops = run.events_of("stop.requested", "guard.tripped", INTERRUPTED, STOPPED, CRASHED)
    if not stops and run.state == "finished":
        return ""
    injected_ns = min(map(injected_at, run.events_of("fault.injected")), default=None)
    who, when = "Ended before its time: the process is gone", ""
    if stops:
        who = _ENDINGS[stops[0].kind](stops[0].data)
        when = ", before anything was injected"
        if injected_ns is not None:
            when = f", {(stops[0].t_ns - injected_ns) / 1e9:.1f} s after the injection"
    broken = [found.subject for found in healing if found.word == STILL_BROKEN]
    left = f"STILL BROKEN: {', '.join(broken)}" if broken else "nothing is left broken"
    return f"{who}{when}; {left}."


_ENDINGS: Mapping[str, Callable[[JsonObject], str]] = {
    "stop.requested": lambda data: f"Stopped by {data.get('by')}",
    "guard.tripped": lambda data: f"Stopped by the guard {data.get('guard')} ({data.get('observed')})",
    INTERRUPTED: lambda data: f"Interrupted by {data.get('signal')}",
    STOPPED: lambda data: f"Could not go on: {data.get('reason')}",
    CRASHED: lambda data: f"overproof crashed: {data.get('reason')}",
}


def _harm(run: Run) -> JsonObject:
    return next((_dict(f.evidence.get("harm")) for f in run.findings if f.rule == "recovery"), {})


# What was planned.


def _planned(run: Run, plan: JsonObject, document: JsonObject) -> Iterator[tuple[str, str]]:
    hypothesis = _dict(document.get("steady-state-hypothesis")).get("title")
    if hypothesis:
        yield "Steady state", str(hypothesis)
    for target in plan.get("targets") or ():
        try:
            yield "Fault", _target(target)
        except (KeyError, TypeError, ValueError):  # a plan of another version
            yield "Fault", f"as {PLAN_FILE} has it: {str(target)[:200]}"
    if plan.get("hash"):
        confirmed = (
            "confirmed beforehand" if plan.get("is_confirmed") else "made at the start, confirmed by nobody"
        )
        yield "Plan", f"{plan['hash']}, {confirmed}"
    elif run.events_of("plan.unresolved"):
        reason = run.events_of("plan.unresolved")[0].data.get("reason")
        yield "Plan", f"none could be made: {reason}"
    for event in run.events_of("plan.permitted")[:1]:
        for condition in event.data.get("conditions") or ():
            yield str(condition["name"]).capitalize(), str(condition["observed"])
    yield "Bounds", _bounds(run.header.spec, plan)
    guards = [str(guard.get("name")) for guard in run.header.spec.get("guards") or ()]
    yield "Guards", ", ".join(guards) or "none"
    alerts = _dict(run.header.spec.get("alerts"))
    told = (
        f"{' and '.join(alerts['filters'])} within {alerts['within_s']:g} s, from {alerts['url']}"
        if alerts
        else ""
    )
    yield "Site's alerts", told or "none were named: noticing is up to our own probes"


def _target(target: JsonObject) -> str:
    victims = ", ".join(f"{v['name']} (pid {v['pid']})" for v in target["victims"]) or str(target["subject"])
    share = f"{target['share']:.0%} of the requests"
    if target["victims"]:
        share = f"{target['at_once']} of {target['replicas']} replicas, {target['share']:.0%} of the capacity"
    ended = "the platform is to heal it" if target["ends_by"] == PLATFORM else "ended by undoing it"
    return f"{target['fault']} on {victims}: {share}; {ended}"


def _bounds(spec: JsonObject, plan: JsonObject) -> str:
    parts = [f"back within {spec['recovery_s']:g} s"] if spec.get("recovery_s") else []
    if plan.get("max_share") is not None:
        parts.append(f"at most {plan['max_share']:.0%} at once")
    if plan.get("budget_share") is not None:
        parts.append(f"at most {percent(plan['budget_share'])} of the error budget")
    return ", ".join(parts) or "none are on record"


_SMALLEST = 1e-6  # below it two digits would need a power of ten


def percent(share: float) -> str:
    """Return a share with two significant digits; of what is too small to mean anything only that."""
    if 0 < share < _SMALLEST:
        return f"less than {_SMALLEST * 100:g}%"
    return "0%" if not share else f"{share * 100:.2g}%" if share < 1 else f"{share * 100:.0f}%"


# What healed.


def _healing(run: Run) -> Iterator[Healing]:
    faults = {event.data.get("id"): event.data for event in run.events_of("fault.injected")}
    cut_short = _cut_short(run)
    for entry in _ledger(run):
        fault = faults.get(entry["id"])
        detail = _dict(entry.get("detail"))
        did, by = str(detail.get("did", "")), str(detail.get("by", ""))
        subject = f"{entry.get('fault')} on {name_of(str(entry.get('subject')))}"
        if entry["state"] != "undone":
            word, is_well, text = STILL_BROKEN, False, f"{entry['state']}: {did or 'never undone'}"
        elif fault is None:
            word, is_well, text = "never broken", True, f"armed and not injected; undo: {did}"
        elif fault.get("ends_by") != PLATFORM:
            word, is_well, text = "by undo, as meant", True, f"{did} (by {by})"
        elif not detail.get("has_acted") or not detail.get("is_mending", True):
            word, is_well, text = "by itself", True, did.removeprefix("nothing to do: ")
        elif cut_short:
            word, is_well, text = (
                "by our undo",
                True,
                f"{cut_short} before it could heal; undo: {did} (by {by})",
            )
        else:
            word, is_well, text = "by our undo", False, f"it did not heal; undo: {did} (by {by})"
        yield Healing(subject=subject, word=word, is_well=is_well, text=text)


def _cut_short(run: Run) -> str:
    if run.events_of("guard.tripped"):
        return "a guard stopped the day"
    if run.events_of("stop.requested"):
        return "the day was stopped"
    return "" if run.state == "finished" else f"the day was {run.state}"


def _ledger(run: Run) -> list[JsonObject]:
    entries: dict[str, JsonObject] = {}
    for row in read_ndjson(run.path / UNDO_FILE):
        if row.get("id") is not None and "state" in row:
            entries[str(row["id"])] = entries.get(str(row["id"]), {}) | row
    return list(entries.values())


# Times, requests, budget.

_JUDGED = {
    "detection": "Time to detect",
    "recovery": "Time to recover: traffic (application clock)",
    "redundancy": "Time to recover: replicas (platform clock)",
}
_JUDGED_OF_TRAINING = {
    "detection": "Time to detect",
    "recovery": "Time to resume: steps beyond all before (application clock)",
    "redundancy": "Time until every rank trains (platform clock)",
    "lost-steps": "Steps lost",
    "progress": "Rate afterwards",
    "checkpoints": "Checkpoints",
    "ettr": "Effective training time",
    "input": "Input",
}


def _figures(run: Run, plan: JsonObject, harm: JsonObject) -> Iterator[Figure]:
    is_training = bool(run.header.spec.get("training"))
    for rule, name in (_JUDGED_OF_TRAINING if is_training else _JUDGED).items():
        for finding in (f for f in run.findings if f.rule == rule):
            if rule == "redundancy" and run.header.spec.get("target_kind") == "hosts":
                name = "Time to recover: what was hit (platform clock)"
            phase = f", {found}" if (found := finding.subject.partition("@")[2]) else ""
            yield Figure(
                name=name + phase, value=finding.observed, bound=finding.expected, outcome=finding.outcome
            )
    yield from _training_model(run)
    if "degraded_s" in harm:
        value = f"{harm['degraded_s']} s in which promises were not kept"
        yield Figure(name="Time degraded", value=value, bound="", outcome=None)
    if "requests" in harm:
        kept = next((f for f in run.findings if f.subject == "slo:goodput@during"), None)
        yield Figure(
            name="Requests lost",
            value=_requests(harm),
            bound=f"goodput during the fault: {kept.expected}" if kept else "",
            outcome=kept.outcome if kept else None,
        )
    if harm.get("budget_share") is not None:
        yield _budget(harm, plan.get("budget_share"))


def _training_model(run: Run) -> Iterator[Figure]:
    """Yield what the job's own figures make of Young and Daly's model."""
    for found in (f.evidence for f in run.findings if f.rule == "ettr" and f.evidence.get("best_interval_s")):
        value = f"{found['interval_s']:.2f} s; {found['best_interval_s']:.2f} s would cost least with "
        value += (
            f"{found['checkpoint_write_s'] * 1000:.0f} ms each and {found['mttf_s']:.0f} s between failures"
        )
        yield Figure(name="Time between checkpoints (Young and Daly)", value=value, bound="", outcome=None)


def _requests(harm: JsonObject) -> str:
    kinds = ", ".join(f"{count} {error}" for error, count in _dict(harm.get("errors")).items())
    failed = f"{harm['failed']} of {harm['requests']} failed{f' ({kinds})' if kinds else ''}"
    failed += f", {harm['bad']} were bad by the promises" if "bad" in harm else ""
    return failed + (
        f"; {harm['by_client']} more ended by the client itself" if harm.get("by_client") else ""
    )


def _budget(harm: JsonObject, expected: object) -> Figure:
    burned = float(harm["budget_share"])
    value = f"{percent(burned)} of {harm['budget_window_days']:g} days' budget at {harm['objective']:.4g}: "
    value += (
        f"{harm['bad']} bad of {harm['budget_requests']:,.0f} that it allows at {harm['rate_per_s']:.3g}/s"
    )
    if not isinstance(expected, (int, float)):
        return Figure(name="Error budget burned", value=value, bound="", outcome=None)
    outcome = None if burned <= expected else Outcome.INCONCLUSIVE
    bound = f"the plan expected at most {percent(float(expected))}"
    return Figure(name="Error budget burned", value=value, bound=bound, outcome=outcome)


# What follows.


def _follow_ups(
    run: Run, plan: JsonObject, harm: JsonObject, healing: Sequence[Healing]
) -> Iterator[FollowUp]:
    if any(found.word == STILL_BROKEN for found in healing):
        yield FollowUp(what="Run `overproof gameday undo`, then `overproof gameday doctor`.", because="undo")
    # What a day lacks that was cut short, it lacks for that reason: only failures are worth a step.
    wanted = (Outcome.FAIL,) if _cut_short(run) else (Outcome.FAIL, Outcome.INCONCLUSIVE)
    open_findings = [f for f in run.findings if f.counts and f.outcome in wanted and f.next_step]
    by_step: dict[str, list[Finding]] = {}
    for finding in sorted(open_findings, key=lambda f: f.outcome is not Outcome.FAIL):
        by_step.setdefault(finding.next_step, []).append(finding)
    for step, found in by_step.items():
        why = ", ".join(dict.fromkeys(f"{f.rule} {f.subject}" for f in found))
        yield FollowUp(what=_sentence(step), because=why)
    yield from _lessons(run, plan, harm)
    if run.outcome is not Outcome.PASS:
        yield FollowUp(
            what="Repeat this game day with the same seed" + (" once that is done." if by_step else "."),
            because="re-test",
        )


def _lessons(run: Run, plan: JsonObject, harm: JsonObject) -> Iterator[FollowUp]:
    """What a day teaches that no rule asks for."""
    spec = run.header.spec
    for finding in (
        f for f in run.findings if f.rule in ("recovery", "redundancy") and f.outcome is Outcome.PASS
    ):
        moment = {"recovery": "t_recover_s", "redundancy": "t_redundant_s"}[finding.rule]
        took, bound = finding.evidence.get(moment), spec.get("recovery_s")
        if isinstance(took, (int, float)) and bound and took > NEAR_BOUND * bound:
            what = f"Look for room: {finding.rule} took {took:.1f} s of the {bound:g} s that are allowed."
            yield FollowUp(what=what, because=finding.rule)
    expected, burned = plan.get("budget_share"), harm.get("budget_share")
    if isinstance(expected, float) and isinstance(burned, float) and burned > expected:
        what = "Find out why this cost more of the error budget than the plan expected, before the next one."
        yield FollowUp(what=what, because="error budget")
    if "document" in spec and not spec.get("alerts"):
        what = "Name the site's alerts in the experiment (`alerts`): whether anybody is told was not tested."
        yield FollowUp(what=what, because="detection")
    for found in (f.evidence for f in run.findings if f.rule == "ettr"):
        best, interval = float(found.get("best_interval_s") or 0), float(found.get("interval_s") or 0)
        is_known = bool(_dict(spec.get("training")).get("mttf_s") and best)
        if is_known and not interval / 2 <= best <= interval * 2:
            what = f"Make a checkpoint about every {best:.0f} s: it is every {interval:.0f} s now."
            yield FollowUp(what=what, because="ettr")
    if "document" in spec and not spec.get("guards"):
        what = "State `guards`: nothing but its end and a person would have stopped this game day."
        yield FollowUp(what=what, because="no guard")


def _sentence(text: str) -> str:
    text = text.strip()
    begins_with_command = text.startswith("overproof ")
    text = f"Run `{text}`" if begins_with_command else text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!")) else text + "."

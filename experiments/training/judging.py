"""The verdict on a training job: pure rules over its steps.

PASS needs all of it: steps before the fault, the fault noticed, new steps again in time, no more steps done
again than lie between two checkpoints, every rank back, the old rate, checkpoints that are whole, the
effective time that the other bounds leave, and input that feeds it. No row of a step is no evidence at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from experiments.injecting.ledger import Entry
from experiments.training.evidence import PHASES, TrainingSeen
from experiments.training.moments import stall_s, world_before
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.training_ettr import (
    Effective,
    checkpoint_write_s,
    expected_ratio,
    find_effective,
    optimal_interval_s,
)
from probes.training_input import find_feed, judge_input
from probes.training_progress import Recovery, find_recovery_of
from probes.training_rate import compare_rates, work_by_block
from probes.training_straggler import find_straggler

LOOK_AT_LAUNCHER = "look at the launcher: what does it restart, how often, and after which time-outs?"


def judge_training(seen: TrainingSeen, entries: Sequence[Entry]) -> list[Finding]:
    """Apply every rule."""
    findings = [judge_steps(seen, phase) for phase in PHASES if phase == "before" or seen.times is not None]
    findings += [judge_feed(seen, phase) for phase in PHASES if seen.phase(phase) is not None]
    if seen.times is None:
        return findings
    findings += [judge_noticed(seen), judge_resume(seen), judge_lost(seen), judge_whole(seen, entries)]
    return [*findings, judge_rate(seen), judge_checkpoints(seen), judge_ettr(seen), judge_others(seen)]


def judge_steps(seen: TrainingSeen, phase: str) -> Finding:
    """Too few steps show nothing: neither that the job is well nor that it is not."""
    span = seen.phase(phase)
    steps = 0 if span is None else seen.progress.between(*span).new_steps
    is_enough = steps >= seen.expected.steady_steps
    return _finding(
        f"{seen.subject}@{phase}",
        Outcome.PASS if is_enough else Outcome.INCONCLUSIVE,
        f"{steps} new steps {phase} the fault" if seen.rows else "no row of a step was seen",
        f"at least {seen.expected.steady_steps}",
        {"phase": phase, "steps": steps},
        "see that the job runs, that its log is the one that is read, and watch longer",
        rule="steps",
    )


def judge_feed(seen: TrainingSeen, phase: str) -> Finding:
    """A job that starves says little about a fault, and wastes its GPUs without one."""
    start_ns, end_ns = seen.phase(phase) or (0, 0)
    rows = [row for row in seen.rows if start_ns <= row.t_ns < end_ns]
    used = [pct for t_ns, pct in seen.used_pct if start_ns <= t_ns < end_ns]
    if seen.times is not None and phase == "after":  # the step that a cut feed held up began during the fault
        rows = [row for row in rows if row.t_ns - round((row.busy_s or 0.0) * 1e9) >= start_ns]
    feed = find_feed(rows, used, why_unread=seen.why_unread)
    return judge_input(feed, subject=f"{seen.subject}@{phase}", wait_share_max=seen.expected.wait_share_max)


def judge_noticed(seen: TrainingSeen) -> Finding:
    """A fault that shows in no step has not been shown to matter."""
    assert seen.times is not None
    detection = seen.times.detection
    observed = "no step showed the fault"
    if detection is not None:
        observed = f"noticed after {seen.times.after_inject_s(detection.t_ns):.2f} s by {detection.by}"
    return _finding(
        seen.subject,
        Outcome.INCONCLUSIVE if detection is None else Outcome.PASS,
        observed,
        "noticed by steps that do not come, a job that begins again, or a slow rank",
        moments_of(seen),
        "let the fault last longer, so that steps show it",
        unit="s",
        rule="detection",
    )


def recovery_of(seen: TrainingSeen) -> Recovery:
    """Return what happened to the steps from the first injection on."""
    assert seen.times is not None
    limit_s = stall_s(seen.progress, seen.times.t_inject_ns)
    return find_recovery_of(seen.progress, seen.times.t_inject_ns, end_ns=seen.end_ns, stall_s=limit_s)


def judge_resume(seen: TrainingSeen) -> Finding:
    """Steps beyond all that was done have to come again within the expectation."""
    assert seen.times is not None
    times, within_s = seen.times, seen.expected.resume_within_s
    took_s = times.took_s(times.t_recover_ns)
    given_s = math.inf if times.t_clock_ns is None else (seen.end_ns - times.t_clock_ns) / 1e9
    outcome, next_step = Outcome.FAIL, LOOK_AT_LAUNCHER
    if not seen.rows:
        outcome, observed = Outcome.INCONCLUSIVE, "no row of a step was seen"
    elif times.t_clock_ns is None:
        outcome, observed = Outcome.INCONCLUSIVE, "the fault was never undone, so nothing could resume"
        next_step = "overproof gameday undo"
    elif took_s is not None:
        outcome = Outcome.PASS if took_s <= within_s else Outcome.FAIL
        observed = f"a new step {took_s:.2f} s after {_clock_word(seen)}"
        if recovery_of(seen).stopped_ns is None:
            observed += "; progress never stopped"
    elif given_s >= within_s:
        observed = f"no new step in {given_s:.1f} s{_last_words(seen)}"
    else:
        outcome, observed = Outcome.INCONCLUSIVE, f"no new step in the {given_s:.1f} s that it was given"
        next_step = "repeat the game day, to its end"
    return _finding(
        seen.subject,
        outcome,
        observed,
        f"within {within_s:g} s",
        moments_of(seen),
        next_step,
        unit="s",
        rule="recovery",
    )


def _clock_word(seen: TrainingSeen) -> str:
    is_healed = all(fault.is_healed_by_platform for fault in seen.faults)
    return "the fault" if is_healed else "the fault was undone"


def _last_words(seen: TrainingSeen) -> str:
    """Say how far a job came that did not come back."""
    again = (
        [step for step in seen.progress.steps if not step.is_new and step.t_ns >= seen.times.t_inject_ns]
        if seen.times
        else []
    )
    return f"; it did {len(again) * seen.progress.stride} steps again" if again else "; it made none at all"


def judge_lost(seen: TrainingSeen) -> Finding:
    """No more may be done again than lies between two checkpoints; without any, a restart loses all of it."""
    assert seen.times is not None
    resumes = [r for r in seen.progress.resumes if seen.times.t_inject_ns < r.first_ns <= seen.end_ns]
    lost = max((resume.lost for resume in resumes), default=0)
    every, bound = seen.checkpoint_every, seen.expected.lost_steps_max
    bound = every if bound is None else bound
    next_step = "make checkpoints more often, or find out why the newest one was not taken"
    if not seen.rows:
        outcome, observed = Outcome.INCONCLUSIVE, "no row of a step was seen"
    elif seen.makes_checkpoints is False:
        furthest = max(step.step for step in seen.progress.steps)
        outcome, next_step = Outcome.FAIL, "have the job make checkpoints and begin with the newest whole one"
        observed = f"the job makes no checkpoints: a restart loses all of its {furthest} steps"
        observed += f", and {lost} were lost" if resumes else ""
    elif resumes and bound is None:
        outcome, observed = Outcome.INCONCLUSIVE, f"{lost} steps lost; what may be is not known"
        next_step = "state lost_steps_max, or have the job log checkpoint_step"
    elif resumes:
        assert bound is not None
        outcome = Outcome.PASS if lost <= bound else Outcome.FAIL
        observed = f"{lost} steps done again, in {_times(len(resumes))}"
    else:
        outcome, observed = Outcome.PASS, "none: the job never began again"
    return _finding(
        seen.subject,
        outcome,
        observed,
        "at most what lies between two checkpoints" if bound is None else f"at most {bound} steps",
        {"lost_steps": lost, "restarts": len(resumes), "checkpoint_every_steps": every},
        next_step,
        unit="steps",
        rule="lost-steps",
    )


def _times(count: int) -> str:
    return f"{count} restart{'s' if count > 1 else ''}"


def judge_whole(seen: TrainingSeen, entries: Sequence[Entry]) -> Finding:
    """Every rank has to be back, and what the platform is to heal without our help."""
    assert seen.times is not None
    times, within_s = seen.times, seen.expected.resume_within_s
    healed = {fault.data["id"] for fault in seen.faults if fault.is_healed_by_platform}
    ours = [e for e in entries if e.id in healed and e.detail.get("has_acted")]
    took_s = times.took_s(times.t_redundant_ns)
    world = world_before(seen.progress, times.t_inject_ns)
    last = seen.progress.steps[-1].world if seen.progress.steps else 0
    if not seen.rows:
        outcome, observed = Outcome.INCONCLUSIVE, "no row of a step was seen"
    elif ours:
        outcome, observed = Outcome.FAIL, f"did not come back by itself; undo {ours[0].detail['did']}"
    elif took_s is None:
        is_over = times.t_clock_ns is not None and (seen.end_ns - times.t_clock_ns) / 1e9 >= within_s
        outcome = Outcome.FAIL if is_over else Outcome.INCONCLUSIVE
        observed = f"at the end {last if times.t_recover_ns else 0} of {world} ranks made new steps"
    else:
        outcome = Outcome.PASS if took_s <= within_s else Outcome.FAIL
        observed = f"all {world} ranks made new steps after {took_s:.2f} s"
    return _finding(
        seen.subject,
        outcome,
        observed,
        f"all {world} ranks within {within_s:g} s{', without our help' if healed else ''}",
        moments_of(seen),
        LOOK_AT_LAUNCHER,
        unit="s",
        rule="redundancy",
    )


def judge_rate(seen: TrainingSeen) -> Finding:
    """Afterwards the job has to get on as before, all ranks counted."""
    assert seen.times is not None
    share, after = seen.expected.rate_share_min, seen.phase("after")
    before = work_by_block(seen.progress, seen.start_ns, seen.times.t_inject_ns)
    rates = None if after is None else compare_rates(before, work_by_block(seen.progress, *after))
    next_step = "watch longer (after_s, steady_steps)"
    evidence: JsonObject = {}
    if rates is None or rates.low is None or rates.high is None:
        outcome, observed = Outcome.INCONCLUSIVE, "too few seconds with steps, before or after"
    else:
        evidence = {"before": rates.before, "after": rates.after, "low": rates.low, "high": rates.high}
        outcome = (
            Outcome.PASS
            if rates.low >= share
            else Outcome.FAIL
            if rates.high < share
            else Outcome.INCONCLUSIVE
        )
        observed = f"{rates.ratio:.0%} ({rates.low:.0%} to {rates.high:.0%}) of the rate before"
        observed += f", {rates.before:.1f} rank-steps/s"
        slow = find_straggler([row for row in seen.rows if after and row.t_ns >= after[0]])
        if outcome is Outcome.FAIL and slow is not None:
            next_step = f"look at rank {slow.rank}: {slow.factor:.1f} times as slow as the others"
        elif outcome is Outcome.FAIL:
            next_step = "look for what is missing or slow now: ranks, network, storage"
    return _finding(
        seen.subject, outcome, observed, f"at least {share:.0%}", evidence, next_step, rule="progress"
    )


def judge_checkpoints(seen: TrainingSeen) -> Finding:
    """A restart has to begin with a whole checkpoint, and a whole one has to lie there at the end."""
    last = seen.checkpoints
    began = [row for row in seen.resumes if seen.times is not None and row["t_ns"] >= seen.times.t_inject_ns]
    passed_over = [str(one["step"]) for row in began for one in row.get("passed_over", ())]
    had_some = any(row.checkpoint_step for row in seen.rows if began and row.t_ns < began[0]["t_ns"])
    from_nothing = [row for row in began if had_some and row.get("from_step") == 0]
    outcome: Outcome | None = Outcome.FAIL
    next_step = "have the job make checkpoints, whole or not at all, and begin with the newest whole one"
    if not seen.is_lab:
        outcome, observed = None, "not known: only the lab's own checkpoints are looked at"
    elif seen.makes_checkpoints is False:
        observed = "the job makes none"
    elif last is None:
        outcome, observed = Outcome.INCONCLUSIVE, "nobody looked at them in the end"
        next_step = "repeat the game day, to its end"
    elif from_nothing:
        observed = f"{len(from_nothing)} restarts began with step 0"
    elif last.get("spoiled"):
        observed = f"in the end those of step {', '.join(map(str, last['spoiled']))} are spoiled"
    elif not last.get("whole"):
        observed = "in the end there is none"
    else:
        outcome = Outcome.PASS
        starts = ", ".join(str(row.get("from_step")) for row in began)
        observed = f"{len(last['whole'])} whole in the end, the newest of step {last['whole'][0]}"
        observed += f"; restarts began after step {starts}" if starts else ""
    if passed_over:
        observed += f"; passed over as spoiled: step {', '.join(passed_over)}"
    return _finding(
        seen.subject,
        outcome,
        observed,
        "whole, and taken",
        {"resumes": began, "last": last},
        next_step,
        rule="checkpoints",
    )


def judge_ettr(seen: TrainingSeen) -> Finding:
    """So much of the day has to go into steps that count; shown beside what Young and Daly expect."""
    assert seen.times is not None
    before = seen.progress.between(seen.start_ns, seen.times.t_inject_ns)
    world = world_before(seen.progress, seen.times.t_inject_ns)
    found = find_effective(
        seen.progress, before.intervals_s(), start_ns=seen.start_ns, end_ns=seen.end_ns, world=world
    )
    evidence = _model(seen, found)
    stated = seen.expected.ettr_min
    least = _allowed(seen, evidence) if stated is None else stated
    outcome: Outcome | None
    if found is None or found.low is None or found.high is None:
        outcome, observed = Outcome.INCONCLUSIVE, "too few steps before the fault to say what one takes"
    else:
        outcome = (
            Outcome.PASS
            if found.low >= least
            else Outcome.FAIL
            if found.high < least
            else Outcome.INCONCLUSIVE
        )
        observed = f"{found.ratio:.3f} ({found.low:.3f} to {found.high:.3f}) over {found.wall_s:.0f} s"
        if least <= 0:
            outcome = None  # the day is shorter than what a fault may cost: any figure is allowed
    if evidence.get("expected_ettr") is not None:
        observed += f"; by its own figures {evidence['expected_ettr']:.3f} was to be expected"
    return _finding(
        seen.subject,
        outcome,
        observed,
        _least(least, is_stated=stated is not None),
        evidence,
        "see what took the time: the stop, the steps done again, the rate afterwards",
        unit="share",
        rule="ettr",
    )


def _least(least: float, *, is_stated: bool) -> str:
    if least <= 0:
        return "nothing: this day is shorter than what one fault may cost"
    return f"at least {least:.3f}{'' if is_stated else ', which is what the other bounds leave'}"


def _model(seen: TrainingSeen, found: Effective | None) -> JsonObject:
    """Return the figures of the job for Young and Daly's model, and what that makes of them."""
    assert seen.times is not None
    steps = seen.progress.between(seen.start_ns, seen.times.t_inject_ns).intervals_s()
    every, wall_s = seen.checkpoint_every, (seen.end_ns - seen.start_ns) / 1e9
    write_s, stops = checkpoint_write_s(seen.rows), _stops_s(seen)
    model: JsonObject = {
        "ettr": found.ratio if found else None,
        "ettr_low": found.low if found else None,
        "ettr_high": found.high if found else None,
        "wall_s": wall_s,
        "step_s": median(steps) if steps else None,
        "checkpoint_write_s": write_s,
    }
    model |= {"stops": len(stops), "restart_s": sum(stops) / len(stops) if stops else 0.0}
    if not steps or every is None or not write_s:
        return model
    interval_s = every * model["step_s"]
    mttf_s = seen.expected.mttf_s or wall_s
    return model | {
        "interval_s": interval_s,
        "mttf_s": mttf_s,
        "best_interval_s": optimal_interval_s(write_s=write_s, mttf_s=mttf_s),
        "expected_ettr": expected_ratio(
            interval_s=interval_s,
            write_s=write_s,
            restart_s=model["restart_s"],
            mttf_s=wall_s / max(1, len(stops)),
        ),
    }


def _stops_s(seen: TrainingSeen) -> list[float]:
    """Return how long each stop took, from the last step before it to the first after it, new or not."""
    assert seen.times is not None
    t_inject_ns = seen.times.t_inject_ns
    since = (r for r in seen.progress.resumes if t_inject_ns < r.first_ns <= seen.end_ns)
    stops = [(resume.first_ns - resume.stopped_ns) / 1e9 for resume in since]
    found = recovery_of(seen)
    if stops or found.stopped_ns is None:
        return stops
    return [((found.resumed_ns or seen.end_ns) - found.stopped_ns) / 1e9]


def _allowed(seen: TrainingSeen, model: JsonObject) -> float:
    """Return what is left of the day when the fault costs all that the other bounds let it cost."""
    every, step_s = seen.checkpoint_every, model["step_s"]
    lost = seen.expected.lost_steps_max if seen.expected.lost_steps_max is not None else every
    cost_s = seen.expected.resume_within_s + (lost or 0) * (step_s or 0.0)
    write_share = (model["checkpoint_write_s"] or 0.0) / (every * step_s) if every and step_s else 0.0
    left = (1 - cost_s / model["wall_s"]) / (1 + write_share) if model["wall_s"] else 0.0
    return max(0.0, left * seen.expected.rate_share_min)


def judge_others(seen: TrainingSeen) -> Finding:
    """No node but the victim's may have been hit: every other launcher is the same process at the end."""
    victims = {str(v.get("node") or v["name"]) for fault in seen.faults for v in fault.victims}
    first, last = (seen.nodes[0], seen.nodes[-1]) if seen.nodes else ({}, {})
    others = {name: process for name, process in first.get("agents", {}).items() if name not in victims}
    hit = [
        f"{n} was pid {p}, is {last['agents'].get(n)}"
        for n, p in others.items()
        if last["agents"].get(n) != p
    ]
    outcome: Outcome | None = Outcome.FAIL if hit else Outcome.PASS if seen.nodes else Outcome.INCONCLUSIVE
    observed = "; ".join(hit) or f"{', '.join(sorted(others)) or 'nobody else there to be'} untouched"
    if not seen.is_lab:
        outcome, observed = None, "not known: nobody but the declared subject is watched"
    elif not seen.nodes:
        observed = "nobody looked at the nodes"
    return _finding(
        seen.subject,
        outcome,
        observed,
        "every other node has the same launcher before and after",
        {"first": first, "last": last},
        "see job.log of the job for what else died",
        rule="collateral",
    )


def moments_of(seen: TrainingSeen) -> JsonObject:
    """Return each moment that came, as a time (``_ns``) and as seconds from the injection (``_s``)."""
    assert seen.times is not None
    times = seen.times
    moments = {
        "t_inject": times.t_inject_ns,
        "t_detect": times.detection.t_ns if times.detection else None,
        "t_recover": times.t_recover_ns,
        "t_redundant": times.t_redundant_ns,
    }
    known = {name: t_ns for name, t_ns in moments.items() if t_ns is not None}
    return {f"{name}_ns": t_ns for name, t_ns in known.items()} | {
        f"{name}_s": times.after_inject_s(t_ns) for name, t_ns in known.items()
    }


def _finding(
    subject: str,
    outcome: Outcome | None,
    observed: str,
    expected: str,
    evidence: JsonObject,
    next_step: str,
    *,
    rule: str,
    unit: str = "",
) -> Finding:
    return Finding(
        rule=rule,
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected=expected,
        unit=unit,
        evidence=evidence,
        next_step="" if outcome in (Outcome.PASS, None) else next_step,
    )

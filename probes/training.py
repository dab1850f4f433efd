"""Probes of a training job for any Chaos Toolkit experiment, from the job's own log.

Each returns a document with ``outcome`` (pass, fail, inconclusive), ``observed`` and what it rests on, for a
tolerance such as ``{type: regex, target: outcome, pattern: "^pass$"}``. ``job`` is the folder of a job of the
lab, a file of JSON lines, or ``{log, keys, pattern}``; absent, the job of the game day, else the lab's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from os import environ

from probes.finding import Finding, finding_to_json
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.training_ettr import find_effective
from probes.training_input import (
    UTILISATION_MIN_PCT,
    WAIT_SHARE_MAX,
    find_feed,
    judge_input,
)
from probes.training_log import JobReader, job_log_of
from probes.training_progress import STALL_FACTOR, Progress, find_hang, find_progress
from probes.training_step import Step
from probes.training_utilisation import Utilisation

JOB_VARIABLE = "OVERPROOF_TRAINING_JOB"  # folder of the training job that a game day is about
LAB_JOB = "runs/train"
STEPS_IN_A_ROW = 3  # new ones that show that a job has resumed
POLL_S = 0.2
GPU_EVERY_S = 0.5

Job = str | JsonObject


@dataclass(slots=True)
class _Watch:
    """A job that is looked at, perhaps for a while."""

    reader: JobReader
    rows: list[Step]
    subject: str

    def update(self) -> Progress:
        """Read what is new."""
        self.rows += self.reader.read()
        return find_progress(self.rows)


def _open(job: Job) -> _Watch:
    log = job_log_of(job or environ.get(JOB_VARIABLE) or LAB_JOB)
    reader = JobReader(log)
    return _Watch(reader=reader, rows=reader.read(), subject=f"job:{log.path.name}")


def _over(job: Job, window_s: float) -> tuple[_Watch, int, int]:
    """Return the job with the last ``window_s``; a log without times has to be watched for as long."""
    watch = _open(job)
    began_ns = time.time_ns()
    if not watch.reader.has_times:
        _sit(watch, window_s)
        return watch, began_ns, time.time_ns()
    return watch, began_ns - round(window_s * 1e9), began_ns


def _sit(watch: _Watch, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        watch.rows += watch.reader.read()


def _answer(
    rule: str, watch: _Watch, outcome: Outcome, observed: str, expected: str, **evidence: object
) -> JsonObject:
    """Return a document; evidence lies on the top level, where a tolerance reaches it."""
    return {
        "probe": rule,
        "subject": watch.subject,
        "outcome": outcome.value,
        "observed": observed,
        "expected": expected,
    } | evidence


def job_progresses(
    job: Job = "", window_s: float = 10.0, steps_min: int = 1, stall_factor: float = STALL_FACTOR
) -> JsonObject:
    """Say whether the job makes steps that count: at least so many in the window, and no hang right now.

    A hang is ``stall_factor`` times a typical step without one. A job that only does again what it had done
    makes no progress.
    """
    watch, start_ns, end_ns = _over(job, window_s)
    progress = find_progress(watch.rows)
    new = progress.between(start_ns, end_ns).new_steps
    expected = f"at least {steps_min} new steps in {window_s:g} s, and none that hangs"
    if not watch.rows:
        said = f"no step in {watch.reader.log.path}"
        return _answer("job_progresses", watch, Outcome.INCONCLUSIVE, said, expected, new_steps=0)
    hang = find_hang(progress, now_ns=time.time_ns(), factor=stall_factor)
    outcome = Outcome.FAIL if hang is not None or new < steps_min else Outcome.PASS
    observed = f"{new} new steps in {window_s:g} s"
    if hang is not None:
        observed += f"; no step for {hang.silent_s:.1f} s, {hang.factor:.0f} times a typical one"
    furthest = max(step.step for step in progress.steps)
    return _answer(
        "job_progresses", watch, outcome, observed, expected, new_steps=new, furthest=furthest,
        silent_s=None if hang is None else round(hang.silent_s, 3), typical_step_s=progress.typical_s,
    )  # fmt: skip


def lost_steps_at_most(steps: int, job: Job = "", window_s: float = 600.0) -> JsonObject:
    """Say whether no resume of the window had more steps than that to do again."""
    watch, start_ns, end_ns = _over(job, window_s)
    resumes = [r for r in find_progress(watch.rows).resumes if start_ns <= r.first_ns <= end_ns]
    lost = max((resume.lost for resume in resumes), default=0)
    expected = f"at most {steps} steps done again"
    if not any(start_ns <= row.t_ns <= end_ns for row in watch.rows):
        said = f"no step in the last {window_s:g} s"
        return _answer("lost_steps_at_most", watch, Outcome.INCONCLUSIVE, said, expected, lost=None)
    outcome = Outcome.PASS if lost <= steps else Outcome.FAIL
    observed = f"{lost} steps lost in {len(resumes)} restarts" if resumes else "it never began again"
    return _answer("lost_steps_at_most", watch, outcome, observed, expected, lost=lost, restarts=len(resumes))


def resumed_within(within_s: float, job: Job = "") -> JsonObject:
    """Wait, at most so long, until the job makes steps beyond all that it had done when this was asked.

    Three of them have to come: one may have been under way when the job was hit.
    """
    watch = _open(job)
    asked_ns = time.time_ns()
    deadline = time.monotonic() + within_s
    while True:
        progress = watch.update()
        new = [step for step in progress.steps if step.is_new and step.t_ns > asked_ns]
        if len(new) >= STEPS_IN_A_ROW or time.monotonic() >= deadline:
            break
        time.sleep(POLL_S)
    expected = f"steps beyond the furthest within {within_s:g} s"
    if not watch.rows:
        said = f"no step in {watch.reader.log.path}"
        return _answer("resumed_within", watch, Outcome.INCONCLUSIVE, said, expected, took_s=None)
    if len(new) < STEPS_IN_A_ROW:
        said = f"not in {within_s:g} s; {len(new)} new steps"
        return _answer("resumed_within", watch, Outcome.FAIL, said, expected, took_s=None)
    took_s = round((new[0].t_ns - asked_ns) / 1e9, 3)
    said = f"a new step {took_s:.2f} s after it was asked"
    return _answer("resumed_within", watch, Outcome.PASS, said, expected, took_s=took_s)


def ettr_at_least(ratio: float, job: Job = "", window_s: float = 60.0) -> JsonObject:
    """Say whether so much of the window's time went into steps that count, each at what it takes in health.

    What it takes in health is the median over the whole log that could be read.
    """
    watch, start_ns, end_ns = _over(job, window_s)
    progress = find_progress(watch.rows)
    first_ns = progress.steps[0].t_ns if progress.steps else end_ns
    start_ns = max(start_ns, first_ns)  # the job may be younger than the window
    world = max((step.world for step in progress.steps), default=1)
    found = find_effective(progress, progress.intervals_s(), start_ns=start_ns, end_ns=end_ns, world=world)
    expected = f"at least {ratio:g}"
    if found is None:
        said = "too few steps to say what one takes"
        return _answer("ettr_at_least", watch, Outcome.INCONCLUSIVE, said, expected, ettr=None)
    low, high = found.low or 0.0, 1.0 if found.high is None else found.high
    outcome = Outcome.PASS if low >= ratio else Outcome.FAIL if high < ratio else Outcome.INCONCLUSIVE
    observed = f"{found.ratio:.3f} ({low:.3f} to {high:.3f}) over {found.wall_s:.0f} s"
    return _answer("ettr_at_least", watch, outcome, observed, expected, ettr=found.ratio, low=low, high=high)


def input_is_fed(
    job: Job = "",
    window_s: float = 10.0,
    wait_share_max: float = WAIT_SHARE_MAX,
    utilisation_min_pct: float = UTILISATION_MIN_PCT,
    gpus: list[int] | None = None,
) -> JsonObject:
    """Watch for ``window_s`` whether the job waits for data, and how busy the GPUs of this machine are.

    Starving is told by the share of step time that the log names as waiting for data. Where it names none,
    low utilisation is shown, and nothing is concluded from it.
    """
    watch, used = _open(job), Utilisation(gpus)
    began_ns, samples = time.time_ns(), list[float]()
    deadline = time.monotonic() + window_s
    while time.monotonic() < deadline:
        samples += used.read().values()
        time.sleep(min(GPU_EVERY_S, window_s))
        watch.rows += watch.reader.read()
    rows = [row for row in watch.rows if row.t_ns >= began_ns]
    finding = judge_input(
        find_feed(rows, samples, why_unread=used.why_unread),
        subject=watch.subject,
        wait_share_max=wait_share_max,
        utilisation_min_pct=utilisation_min_pct,
    )
    return _document("input_is_fed", finding)


def _document(probe: str, finding: Finding) -> JsonObject:
    found = finding_to_json(finding)
    kept = {key: found[key] for key in ("subject", "outcome", "observed", "expected", "next_step")}
    return {"probe": probe} | kept | finding.evidence

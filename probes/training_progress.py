"""How far a training job came, what it had to do again, and when it went on: pure functions over its steps.

A step of the job is done when the first rank says so, since the collective in it needs them all. It counts
when it lies beyond every step before it: what a restart does again was lost. Restarts are seen in the steps
themselves, by a rank that begins again, because launchers count them each in their own way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from probes.training_step import Step

STALL_FACTOR = 8.0  # a step that takes so many times the typical one is a stall
STALL_S_MIN = 1.0  # and at least so long: short steps are held up by much that is no stall


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStep:
    """A step of the whole job."""

    t_ns: int
    step: int
    world: int
    attempt: int  # how often the job had begun again
    is_new: bool  # beyond all that was done before


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """One beginning again."""

    stopped_ns: int  # the last step before it
    first_ns: int  # the first step after it
    furthest: int  # before it
    first_step: int
    lost: int  # steps that had to be done again
    back_ns: int | None  # the first step beyond the furthest; None: it has not come


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """All steps of a job in order of time."""

    steps: tuple[JobStep, ...]
    stride: int  # between two steps that are reported; 1: each one is

    @property
    def new_steps(self) -> int:
        """How far it came, in steps that count."""
        return self.stride * sum(step.is_new for step in self.steps)

    @property
    def redone_steps(self) -> int:
        """How many steps were done again."""
        return self.stride * sum(not step.is_new for step in self.steps)

    @property
    def resumes(self) -> tuple[Resume, ...]:
        """Every beginning again."""
        return tuple(_resumes(self))

    def between(self, start_ns: int, end_ns: int) -> Progress:
        """Return the part within a stretch of time."""
        inside = tuple(step for step in self.steps if start_ns <= step.t_ns < end_ns)
        return Progress(steps=inside, stride=self.stride)

    def intervals_s(self) -> list[float]:
        """Return the seconds from each step to the next one of the same attempt, for one step each."""
        return [
            (after.t_ns - before.t_ns) / 1e9 * self.stride / max(1, after.step - before.step)
            for before, after in pairwise(self.steps)
            if after.attempt == before.attempt
        ]

    @property
    def typical_s(self) -> float | None:
        """The median time of a step; None: there are no two of them."""
        return median(self.intervals_s() or (0.0,)) or None

    def stall_s(self) -> float | None:
        """Return the time without a step that is a stall; None: what is typical is not known."""
        typical = self.typical_s
        return None if typical is None else max(STALL_S_MIN, STALL_FACTOR * typical)


def find_progress(rows: Sequence[Step]) -> Progress:
    """Put the rows of all ranks together."""
    steps: list[JobStep] = []
    furthest = -1
    for attempt, row in _attempts(sorted(rows, key=lambda row: (row.t_ns, row.step, row.rank))):
        if steps and steps[-1].attempt == attempt and row.step <= steps[-1].step:
            continue  # another rank has said so already
        is_new = row.step > furthest
        steps.append(JobStep(t_ns=row.t_ns, step=row.step, world=row.world, attempt=attempt, is_new=is_new))
        furthest = max(furthest, row.step)
    return Progress(steps=tuple(steps), stride=_stride(steps))


def _attempts(rows: Sequence[Step]) -> Iterator[tuple[int, Step]]:
    """Yield each row with the attempt that it belongs to: a rank that begins again begins another one.

    Ranks may change places at a restart, so one that has not spoken yet opens an attempt only when it is
    further behind than a rank in step with the others can be.
    """
    attempt, spoken, furthest = 0, dict[int, Step](), -1
    stride = _stride_of(sorted({row.step for row in rows}))
    for row in rows:
        last = spoken.get(row.rank)
        if last is None:
            begins = row.step < furthest - stride
        else:
            begins = row.restart != last.restart or row.step <= last.step
        if begins:
            attempt, spoken, furthest = attempt + 1, {}, -1
        spoken[row.rank] = row
        furthest = max(furthest, row.step)
        yield attempt, row


def _stride(steps: Sequence[JobStep]) -> int:
    return _stride_of([step.step for step in steps])


def _stride_of(numbers: Sequence[int]) -> int:
    """Return the usual distance of two steps that follow each other; a log may name every tenth only."""
    gaps = [after - before for before, after in pairwise(numbers) if after > before]
    return max(1, round(median(gaps))) if gaps else 1


def _resumes(progress: Progress) -> Iterator[Resume]:
    furthest = -1
    for i, step in enumerate(progress.steps):
        before = progress.steps[i - 1] if i else step
        if step.attempt != before.attempt:
            later = progress.steps[i:]
            yield Resume(
                stopped_ns=before.t_ns,
                first_ns=step.t_ns,
                furthest=furthest,
                first_step=step.step,
                lost=max(0, furthest - step.step + progress.stride),
                back_ns=next((s.t_ns for s in later if s.step > furthest), None),
            )
        furthest = max(furthest, step.step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What a fault did to the progress of a job."""

    stopped_ns: int | None  # the last step before progress stopped; None: it never did
    resumed_ns: int | None  # the first step that is new again; None: there was none
    lost: int  # steps that had to be done again
    restarts: int  # how often the job began again on the way


def find_recovery_of(progress: Progress, t_ns: int, *, end_ns: int, stall_s: float) -> Recovery:
    """Find when progress stopped after a moment and when it went on, as seen up to ``end_ns``.

    A job that begins again has resumed with the first step beyond all that it had done; one that only
    stalls, with the step that ends the first stall. ``stall_s`` without a step is a stall.
    """
    steps = [step for step in progress.steps if step.t_ns < end_ns]
    resumes = [r for r in progress.resumes if t_ns < r.first_ns < end_ns]
    if resumes:
        mark = max(step.step for step in steps if step.t_ns < resumes[0].first_ns)
        back = next((s.t_ns for s in steps if s.t_ns >= resumes[0].first_ns and s.step > mark), None)
        before_back = [r for r in resumes if back is None or r.first_ns <= back]
        return Recovery(
            stopped_ns=resumes[0].stopped_ns,
            resumed_ns=back,
            lost=max(mark - r.first_step + progress.stride for r in before_back),
            restarts=len(before_back),
        )
    gaps = _gaps(steps, t_ns, end_ns)
    stall = next((gap for gap in gaps if (gap[1] or end_ns) - gap[0] >= stall_s * 1e9), None)
    if stall is None:
        first = next((step.t_ns for step in steps if step.t_ns > t_ns), None)
        return Recovery(stopped_ns=None, resumed_ns=first, lost=0, restarts=0)
    return Recovery(stopped_ns=stall[0], resumed_ns=stall[1], lost=0, restarts=0)


def _gaps(steps: Sequence[JobStep], t_ns: int, end_ns: int) -> list[tuple[int, int | None]]:
    """Return each time without a step that reaches beyond ``t_ns``; the last one may have no end."""
    if not steps:
        return [(t_ns, None)]
    gaps: list[tuple[int, int | None]] = [
        (before.t_ns, after.t_ns) for before, after in pairwise(steps) if after.t_ns > t_ns
    ]
    return [*gaps, (steps[-1].t_ns, None)] if end_ns > steps[-1].t_ns else gaps


@dataclass(frozen=True, slots=True, kw_only=True)
class Hang:
    """Time without a step."""

    since_ns: int
    silent_s: float
    typical_s: float  # what a step takes

    @property
    def factor(self) -> float:
        """How many typical steps it is."""
        return self.silent_s / self.typical_s


def find_hang(progress: Progress, *, now_ns: int, factor: float = STALL_FACTOR) -> Hang | None:
    """Return the silence that lasts up to now, when it is so many times a typical step; None: there is none.

    Nothing typical is known of fewer than two steps.
    """
    typical = progress.typical_s
    if typical is None or now_ns <= progress.steps[-1].t_ns:
        return None
    silent_s = (now_ns - progress.steps[-1].t_ns) / 1e9
    is_long = silent_s >= max(STALL_S_MIN, factor * typical)
    found = Hang(since_ns=progress.steps[-1].t_ns, silent_s=silent_s, typical_s=typical)
    return found if is_long else None

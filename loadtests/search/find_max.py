"""Searches for the highest arrival rate that meets a workload's SLOs; each step is a load run of its own.

Each step begins with an empty endpoint: the one before has drained. It ends as soon as it is decided, by
tests that many looks make no less sure; all steps share the one doubt.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests.load_run import Finish, LoadRequest, run_load
from loadtests.search.max_rate import (
    CLIENT_LIMIT,
    KIND,
    SEARCH_ENDED,
    STEP_ENDED,
    STEPS_FOLDER,
    Step,
    judge_run,
    read_step,
    read_steps,
    to_tried,
)
from loadtests.search.rate_search import STEPS_MAX, interval_of, next_rate
from loadtests.search.rate_step import arrivals_needed
from loadtests.spec.workload import UntilDecidedSpec, WarmUpSpec, WorkloadSpec
from probes.errors import ConfigError
from probes.outcome import Outcome
from reports.live import Progress
from reports.rate_plot import SERIES
from reports.record import RunWriter, create_run
from reports.run import Run, load_run
from reports.session import recording

if TYPE_CHECKING:
    from rich.table import Table

_KINDS = ("constant", "poisson", "gamma")  # those with one rate
_ARRIVALS_MIN = 60  # in every step, before it may hold
FIRST_LOOK_S = 4.0
GROWTH = 1.15  # of the time to the next look
WARM_UP_S = 2.0
STEP_SHARE = 0.2  # of the time for the whole search that one step may take
_STEP_S_MIN = 8.0
_AROUND_S = 8.0  # that a step takes beside its load: starting, calibrating, draining, judging
_CLIENT_TRIES = 3  # a busy moment of this machine is not its limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What the command line asks for."""

    spec: WorkloadSpec
    out: Path
    seed: int
    within_s: float
    precision: float
    is_quiet: bool = False
    metrics_url: str | None = None


class _StepLooks:
    """When a step is looked at next, and whether it is decided."""

    def __init__(self, *, precision: float, arrived_min: int) -> None:
        self._precision, self._arrived_min, self._next_s = precision, arrived_min, FIRST_LOOK_S

    def __call__(self, run: Path, elapsed_s: float) -> bool:
        if elapsed_s < self._next_s:
            return False
        self._next_s = elapsed_s * GROWTH
        step = read_step(
            load_run(run), precision=self._precision, arrived_min=self._arrived_min, is_over=False
        )
        return step.outcome is not Outcome.INCONCLUSIVE


def check_search(spec: WorkloadSpec) -> None:
    """Refuse a workload whose rate is not one number, or that promises nothing.

    Raises:
        ConfigError: it cannot be searched.
    """
    if spec.arrivals.kind not in _KINDS:
        raise ConfigError(
            f"arrivals: find-max needs one rate: one of {', '.join(_KINDS)}; not {spec.arrivals.kind!r}"
        )
    if spec.session is not None or spec.tasks is not None:
        raise ConfigError("find-max takes neither session nor tasks: each step is one schedule of requests")
    if spec.endpoints:
        raise ConfigError("endpoints: find-max searches one endpoint at a time; which of them has the limit?")
    if not spec.slos:
        raise ConfigError("slos: find-max needs at least one: what is the rate to hold?")


def find_max(search: Search, finish: Finish) -> Run:
    """Search, and return the judged record of the search.

    Raises:
        ConfigError: the workload cannot be searched.
        TargetError: the endpoint cannot be reached or is none.
    """
    check_search(search.spec)
    spec = {
        "name": search.spec.name,
        "within_s": search.within_s,
        "precision": search.precision,
        "workload": search.spec.model_dump(mode="json"),
    }
    writer = create_run(search.out, kind=KIND, spec=spec, seed=search.seed)
    with recording(writer, judge_run), Progress("find-max", quiet=search.is_quiet) as progress:
        reason = _search(search, writer, progress, finish)
        writer.event("load", SEARCH_ENDED, reason=reason)
    return load_run(writer.path)


def _search(search: Search, writer: RunWriter, progress: Progress, finish: Finish) -> str:
    """Take step after step; return why no more are taken."""
    deadline = time.monotonic() + search.within_s
    steps: list[Step] = []
    start_per_s = search.spec.arrivals.rate_per_s  # type: ignore[union-attr]  # checked
    while not finish.is_asked:
        tried = to_tried(steps)
        rate = next_rate(tried, start_per_s=start_per_s, precision=search.precision)
        left_s = deadline - time.monotonic() - _AROUND_S
        if rate is None:
            return "enclosed as asked for" if _is_enclosed(search, steps) else "what is left is undecided"
        if left_s < _STEP_S_MIN or len(steps) >= STEPS_MAX:
            return "the time is up" if left_s < _STEP_S_MIN else f"{STEPS_MAX} steps were taken"
        has_failed = any(one.outcome is Outcome.FAIL for one in tried)
        arrived_min = arrivals_needed(search.precision) if has_failed else _ARRIVALS_MIN
        name = f"{len(steps) + 1:02d}-{rate:.2f}"
        progress.step(name, "running", f"{rate:.2f} requests/s")
        run = run_load(
            LoadRequest(
                spec=step_spec(search, rate, seconds_max=min(left_s, search.within_s * STEP_SHARE)),
                out=search.out,
                path=writer.path / STEPS_FOLDER / name,
                seed=search.seed + len(steps),
                is_quiet=True,
                metrics_url=search.metrics_url,
                is_over=_StepLooks(precision=search.precision, arrived_min=arrived_min),
            ),
            finish,
        )
        was_told, finish.is_asked = finish.was_told, finish.was_told
        step = read_step(run, precision=search.precision, arrived_min=arrived_min)
        steps.append(step)
        writer.event("load", STEP_ENDED, step=f"{STEPS_FOLDER}/{name}", arrived_min=arrived_min)
        writer.sample(SERIES, asdict(step) | {"t_ns": time.time_ns(), "outcome": step.outcome.value})
        progress.step(name, "done", step.client or step.outcome.value)
        if step.client and not was_told and sum(bool(one.client) for one in steps) >= _CLIENT_TRIES:
            return CLIENT_LIMIT
    return "it was asked to end"


def _is_enclosed(search: Search, steps: Sequence[Step]) -> bool:
    return interval_of(to_tried(steps)).is_within(search.precision)


def step_spec(search: Search, rate_per_s: float, *, seconds_max: float) -> WorkloadSpec:
    """Return the workload of one step: its rate, its time, and its share of each promise's doubt."""
    spec = search.spec
    slos = tuple(
        slo.model_copy(update={"confidence": 1 - (1 - slo.confidence) / STEPS_MAX}) for slo in spec.slos
    )
    changes = {
        "name": f"{spec.name} at {rate_per_s:.2f}/s",
        "arrivals": spec.arrivals.model_copy(update={"rate_per_s": rate_per_s}),
        "duration_s": FIRST_LOOK_S,
        "until_decided": UntilDecidedSpec(duration_s_max=max(seconds_max, FIRST_LOOK_S + 1)),
        "warm_up": spec.warm_up or WarmUpSpec(seconds=WARM_UP_S),
        "baseline": None,
        "slos": slos,
    }
    return spec.model_copy(update=changes)


def render_steps(run: Run) -> Table:
    """Return the steps by their rate, as a table."""
    from rich.table import Table

    table = Table(title="steps, by rate", title_justify="left")
    for name in ("requests/s", "sent", "goodput", "good/s", "tokens/s", "TTFT p50 ms", "p95", "E2E p95 ms"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for step in sorted(read_steps(run), key=lambda step: step.rate_per_s):
        share = "–" if step.goodput_share is None else f"{step.goodput_share:.1%}"
        figures = (step.good_per_s, step.tokens_per_s, step.ttft_ms_p50, step.ttft_ms_p95, step.e2e_ms_p95)
        texts = ("–" if figure is None else f"{figure:.1f}" for figure in figures)
        said = step.client or step.outcome.value.upper()
        table.add_row(f"{step.rate_per_s:.2f}", str(step.requests), share, *texts, said)
    return table


def print_steps(run: Run) -> None:
    """Print the table, the knee and what saturated on standard output."""
    from rich.console import Console

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160)
    console.print(render_steps(run))
    evidence = next((f.evidence for f in run.findings if f.rule == "max-rate"), {})
    knee = evidence.get("knee_per_s")
    console.print("knee", "not known" if knee is None else f"{knee:.2f} requests/s", highlight=False)
    console.print(
        "saturated first", str(evidence.get("saturated", "not known")), highlight=False, markup=False
    )

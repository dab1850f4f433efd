"""Runs one load test: endpoint where none is given, preflight, Locust in a process of its own, the record."""

from __future__ import annotations

import contextlib
import json
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType

from loadtests import plan as plans
from loadtests.judging import judge_run
from loadtests.plan import LoadPlan, write_plan
from loadtests.preflight import EVENT_REPLICAS, check_endpoint, count_replicas, require_replicas
from loadtests.processes.crew import Crew
from loadtests.processes.load_processes import PACKAGE_ROOT, LoadProcesses, last_line, load_processes
from loadtests.rules.deciding import DECIDED, Looks
from loadtests.rules.regression import keep_baseline
from loadtests.rules.replicas_seen import write_replicas_seen
from loadtests.rules.verdict_size import EVENT as VERDICT_SIZE
from loadtests.rules.verdict_size import count_requests, render_sizes, verdict_sizes
from loadtests.spec.allowed_hosts import check_host
from loadtests.spec.endpoint import NamedEndpoint
from loadtests.spec.inputs import EVENT as INPUTS
from loadtests.spec.inputs import check_inputs
from loadtests.spec.workload import Workload, WorkloadSpec, read_headers
from loadtests.traffic.prompt_scale import EVENT as PROMPT_SCALE
from loadtests.traffic.prompt_scale import PromptScale, check_scale, find_scale, to_event
from loadtests.traffic.prompts import WordScale
from loadtests.watching.replica_watch import read_authorization, replica_watch
from loadtests.watching.server_metrics import check_metrics_url, server_metrics
from probes.child import end_child, python_module, start_child
from probes.errors import ConfigError, TargetError
from probes.json_types import JsonObject
from reports.exporter import MetricsPage, served_live
from reports.live import Progress
from reports.live_metrics import traffic_figures
from reports.live_traffic import LiveTraffic, read_merged
from reports.record import RunWriter, create_run
from reports.run import Run, load_run, read_ndjson
from reports.session import recording
from reports.traffic_table import HEADERS, traffic_rows
from reports.verdict import IN_GAMEDAY

_ENDPOINT_START_S = 20.0
_CHILD_START_S = 60.0
# After the last request has had its time: writing rows, leaving Locust.
_CHILD_END_S = 30.0
# That the rows of workers elsewhere may take to come.
_COLLECT_S = 600.0
_POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """What the command line asks for."""

    spec: WorkloadSpec
    out: Path
    seed: int
    path: Path | None = None  # None: a top-level run with a name of its own
    is_in_gameday: bool = False  # whose phases are what promises are judged by
    is_quiet: bool = False
    metrics: MetricsPage = field(default_factory=MetricsPage)  # of our own figures, for Prometheus
    metrics_url: str | None = None  # of the server's own metrics; None: not asked for
    crew: Crew = field(default_factory=Crew)
    is_over: Callable[[Path, float], bool] | None = None  # asked while it runs; None: until_decided says it


class Finish:
    """SIGUSR1 asks for a normal end before the schedule's: no new arrivals, the rest drained."""

    def __init__(self) -> None:
        self.is_asked = False
        self.was_told = False  # from outside; else the run itself had seen enough
        signal.signal(signal.SIGUSR1, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.is_asked = self.was_told = True


def run_load(request: LoadRequest, finish: Finish) -> Run:
    """Run a load test and return its judged record.

    Raises:
        TargetError: the endpoint cannot be reached or is none.
        RecordError: the disk is full.
    """
    for endpoint in request.spec.named_endpoints:
        if endpoint.spec.url is not None:
            check_host(endpoint.spec.url, request.spec.allowed_hosts)
        read_headers(endpoint.spec)  # a missing key is an error before anything is touched
    if request.spec.expect is not None:
        read_authorization(request.spec.expect.autoscale)
    if request.metrics_url is not None:
        check_metrics_url(request.metrics_url)
    workload = request.spec.to_workload()
    if workload.first_look_s is not None and request.crew.joining:
        raise ConfigError("until_decided: the rows of workers elsewhere come at the end only; leave one out")
    inputs = check_inputs(workload, seed=request.seed)
    writer = create_run(
        request.out,
        kind="load",
        spec=request.spec.model_dump(mode="json"),
        seed=request.seed,
        is_child=request.path is not None,
        path=request.path,
    )
    with (
        recording(writer, judge_run),
        Progress("load", quiet=request.is_quiet) as progress,
        _endpoints(request, writer, progress) as urls,
        _shown_live(request, workload, writer, progress),
    ):
        if request.is_in_gameday:
            writer.event("load", IN_GAMEDAY)
        models = _check_endpoints(request.spec, urls, writer, progress)
        writer.event("load", INPUTS, **inputs)
        sizes = verdict_sizes(workload, requests=count_requests(workload, seed=request.seed))
        writer.event("load", VERDICT_SIZE, promises=[asdict(size) for size in sizes])
        if sizes:
            longest = max(sizes, key=lambda size: size.needed)
            progress.step("verdict", "done", render_sizes([longest])[0])
        if request.spec.baseline is not None:
            keep_baseline(request.spec.baseline, writer)
        found = PromptScale(scale=WordScale())
        if request.spec.calibrate_prompts and any(kind.file is None for kind in workload.prompts):
            found = _find_scale(request, workload, urls, models, writer)
        plan = LoadPlan(
            run=writer.path,
            spec=request.spec,
            seed=request.seed,
            url=urls[0],
            model=models[0],
            others=tuple(zip(urls[1:], models[1:], strict=True)),
            words=found.scale,
            tokens_sent=sum(found.found_tokens),
            crew=request.crew,
        )
        if workload.tasks is not None:
            plan = _ask_idle(plan, writer, progress, finish)
        with server_metrics(request.metrics_url, writer), replica_watch(request.spec.expect, writer):
            _drive(plan, writer, progress, finish, request.is_over)
        write_replicas_seen(request.spec.expect, writer)
    return load_run(writer.path)


@contextlib.contextmanager
def _shown_live(
    request: LoadRequest, workload: Workload, writer: RunWriter, progress: Progress
) -> Iterator[None]:
    """Show how the load goes, on the terminal and to Prometheus, for as long as the block."""
    traffic = LiveTraffic(writer.path, workload.slos)

    def rows() -> Sequence[Sequence[str]]:
        figures = traffic.figures()
        return tuple(traffic_rows(figures, traffic.slos)) if figures.has_begun else ()

    progress.show_table(HEADERS, rows, left_columns=len(HEADERS))
    with served_live(request.metrics, writer, progress, lambda: traffic_figures(traffic)):
        yield


def _check_endpoints(
    spec: WorkloadSpec, urls: Sequence[str], writer: RunWriter, progress: Progress
) -> list[str]:
    """Check that each endpoint is one and is there in full; return the model to ask each for.

    Raises:
        TargetError: one is not, with all that are not.
    """
    models, missing = [], []
    for endpoint, url in zip(spec.named_endpoints, urls, strict=True):
        step = endpoint.name or "endpoint"
        progress.step(step, "running", url)
        try:
            model = _check_endpoint(endpoint, url, writer)
        except TargetError as error:
            missing.append(f"{endpoint.where}{error}")
            continue
        models.append(model)
        progress.step(step, "done", f"{url} answers as {model!r}")
    if missing:
        others = [one.name for one in spec.named_endpoints[1:]]
        said = "; nothing was sent to any of the endpoints but a question" if others else ""
        raise TargetError("; ".join(missing) + said)
    return models


def _check_endpoint(endpoint: NamedEndpoint, url: str, writer: RunWriter) -> str:
    model = check_endpoint(url, endpoint.spec)
    writer.event("load", "endpoint.answered", url=url, model=model, endpoint=endpoint.name)
    if endpoint.spec.replicas is not None:
        seen = count_replicas(url, endpoint.spec, model=model, expected=endpoint.spec.replicas)
        writer.event("load", EVENT_REPLICAS, **seen, endpoint=endpoint.name)
        require_replicas(url, seen)
    return model


def _find_scale(
    request: LoadRequest, workload: Workload, urls: Sequence[str], models: Sequence[str], writer: RunWriter
) -> PromptScale:
    """Size prompts by the first endpoint, and see how near that comes at the others."""
    found: list[PromptScale] = []
    for endpoint, url, model in zip(workload.endpoints, urls, models, strict=True):
        if not found:
            one = find_scale(url, workload, endpoint.spec, model=model, seed=request.seed)
        else:
            one = check_scale(url, workload, endpoint.spec, found[0].scale, model=model, seed=request.seed)
        writer.event("load", PROMPT_SCALE, **to_event(one, name=endpoint.name))
        found.append(one)
    return replace(found[0], found_tokens=tuple(n for one in found for n in one.found_tokens))


@contextlib.contextmanager
def _endpoints(request: LoadRequest, writer: RunWriter, progress: Progress) -> Iterator[list[str]]:
    """Yield each address to load; where there is none, a simulated endpoint lives as long as the run."""
    with contextlib.ExitStack() as stack:
        yield [
            endpoint.spec.url or stack.enter_context(_simulated(request, endpoint.name, writer, progress))
            for endpoint in request.spec.named_endpoints
        ]


@contextlib.contextmanager
def _simulated(
    request: LoadRequest, name: str | None, writer: RunWriter, progress: Progress
) -> Iterator[str]:
    step = name or "endpoint"
    progress.step(step, "running", "no address given: starting the built-in simulated endpoint")
    with (writer.path / ("endpoint.log" if name is None else f"endpoint-{name}.log")).open("w") as log:
        child = start_child(
            python_module(
                "loadtests.endpoint",
                "--lifeline",
                "--name",
                name or "simulated",
                "--seed",
                str(request.seed),
            ),
            stderr=log,
        )
        try:
            said = _first_line(child)
            url = f"http://127.0.0.1:{said['port']}"
            writer.event("load", "endpoint.started", url=url, pid=child.pid, is_simulated=True, endpoint=name)
            yield url
        finally:
            end_child(child)


def _first_line(child: subprocess.Popen[str]) -> JsonObject:
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], _ENDPOINT_START_S)
    line = child.stdout.readline() if ready else ""
    if not line:
        raise TargetError(f"the built-in endpoint did not start within {_ENDPOINT_START_S:g} s")
    said: JsonObject = json.loads(line)
    return said


def _ask_idle(plan: LoadPlan, writer: RunWriter, progress: Progress, finish: Finish) -> LoadPlan:
    """Ask the checked tasks before anything else is asked; return the plan with what that cost."""
    tasks = plan.workload.tasks
    assert tasks is not None
    progress.step("tasks", "running", f"{tasks.count} tasks while the endpoint is idle")
    log_path = writer.path / "idle.log"
    with log_path.open("w") as log:
        command = python_module("loadtests.sending.idle_phase", str(write_plan(plan).resolve()))
        child = start_child(command, stdout=log, stderr=log, cwd=PACKAGE_ROOT)
        try:
            deadline = time.monotonic() + _CHILD_START_S + plan.workload.endpoint.timeout_s
            deadline += tasks.idle_s_max * len(plan.workload.endpoints)
            while child.poll() is None and time.monotonic() < deadline and not finish.is_asked:
                time.sleep(_POLL_S)
        finally:
            end_child(child)
    ended = [row for row in read_ndjson(plan.run / "events.ndjson") if row.get("kind") == plans.IDLE_ENDED]
    if not ended:
        if child.returncode and not finish.is_asked:
            raise ConfigError(last_line(log_path))
        return plan
    data = ended[-1]["data"]
    progress.step("tasks", "done", f"{data['asked']} asked")
    return replace(plan, tokens_sent=data["tokens_in"], tokens_received=data["tokens_out"])


def _drive(
    plan: LoadPlan,
    writer: RunWriter,
    progress: Progress,
    finish: Finish,
    is_over: Callable[[Path, float], bool] | None,
) -> None:
    """Start the load processes and follow them to their end."""
    progress.step("load", "running", f"{plan.workload.duration_s:g} s of {plan.workload.name}")
    writer.event("load", plans.CREW, workers=plan.crew.workers, **asdict(plan.crew))
    with load_processes(plan, write_plan(plan), writer) as processes:
        _follow(processes, plan, writer, progress, finish, is_over or Looks(plan.workload).is_over)
    processes.check()
    progress.step("load", "done", _figures(plan.run))


def _follow(
    processes: LoadProcesses,
    plan: LoadPlan,
    writer: RunWriter,
    progress: Progress,
    finish: Finish,
    is_over: Callable[[Path, float], bool],
) -> None:
    workload, t0_s = plan.workload, 0.0
    deadline = time.monotonic() + _CHILD_START_S + workload.duration_s + workload.endpoint.timeout_s
    deadline += _CHILD_END_S + (0 if plan.crew.is_alone else plan.crew.join_s + _COLLECT_S)
    has_told = has_started = False
    while processes.leader.poll() is None and time.monotonic() < deadline:
        if not has_started and _has_started(plan.run):
            has_started, t0_s = True, time.monotonic()
        elapsed_s = time.monotonic() - t0_s
        if has_started and not finish.is_asked and is_over(plan.run, elapsed_s):
            writer.event("load", DECIDED, after_s=elapsed_s)
            finish.is_asked = True
        processes.check_workers(has_started=has_started)
        if finish.is_asked and not has_told and has_started:
            processes.leader.send_signal(signal.SIGUSR1)
            has_told = True
        progress.step("load", "running", _detail(plan, progress, elapsed_s if has_started else None))
        time.sleep(_POLL_S)


def _has_started(run: Path) -> bool:
    """Whether the load is past its start, where SIGUSR1 would end it at once."""
    return any(row.get("kind") == plans.STARTED for row in read_ndjson(run / "events.ndjson"))


def _detail(plan: LoadPlan, progress: Progress, elapsed_s: float | None) -> str:
    """Return what stands beside the step: the table has the figures, where there is one."""
    if not progress.is_drawn or elapsed_s is None:
        return _figures(plan.run)
    length_s = plan.workload.duration_s
    return f"{elapsed_s:.0f} of {length_s:g} s" if elapsed_s < length_s else "the last answers are awaited"


def _figures(run: Path) -> str:
    """Return the latest figures of all workers together, from the end of their series."""
    row = read_merged(run)
    if row is None:
        return "starting"
    if "ready" in row and not row["arrivals"]:
        return f"{row['workers']} workers have joined, {row['ready']} are ready"
    if not row["arrivals"]:
        return "getting ready: the client proves and calibrates itself"
    counts = f"{row['arrivals']} arrived, {row['ended']} ended, {row['failed']} failed"
    text = f"{counts}, {row['in_flight']} under way"
    if "ready" in row:
        text += f", {row['workers'] - row['lost']} of {row['workers']} workers"
        text += "".join(
            f", {name} p99 {row[key]:.0f} ms"
            for name, key in (("ttft", "ttft_ms_p99"), ("gap", "itl_ms_p99"))
            if isinstance(row.get(key), int | float)
        )
    return text

"""Has this very process read the golden endpoint's streams, by dispatcher, reader and recorder of a run."""

from __future__ import annotations

import gc
import json
import os
import queue
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import gevent

from loadtests.calibration.busiest import busiest_by_worker
from loadtests.calibration.certified import Reading, why_not_certified, with_errors
from loadtests.calibration.golden_process import Golden, golden_endpoint
from loadtests.calibration.golden_record import GoldenRecord
from loadtests.calibration.need import Need
from loadtests.calibration.timing_error import Heard, timing_error
from loadtests.plan import LoadPlan
from loadtests.processes.recorder import Recorder
from loadtests.sending.dispatcher import Dispatcher, make_target
from loadtests.spec.workload import WorkloadSpec
from probes.child import watch_lifeline
from probes.errors import RecordError, TargetError
from probes.event import to_json_line
from probes.metric import percentile
from probes.request import Request
from reports.record import RunHeader, RunWriter, load_header

_RATE_QUICK_PER_S = 5000.0  # up to here a second is enough
_QUICK_S, _LONG_S = 1.0, 2.0
_REQUESTS_WANTED = 220
_CONNECTIONS_PER_S, _TLS_CONNECTIONS_PER_S = 1000, 400
_FIRST_S = 0.02
_GAP_S_MIN = 0.001
_DRAIN_S = 3.0
# Shares of what is wanted that are tried until one is good: other programs may have been in the way, and a
# client that cannot do what was wanted, with its margin, may still do what is needed.
_SHARES_QUICK, _SHARES_LONG = (1.0, 1.0, 0.6), (1.0, 0.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One rate to be tried: streams that are asked again and again, each event by event."""

    events_per_s: float
    streams: int
    tokens: int
    seconds: float
    is_tls: bool = False

    @property
    def gap_s(self) -> float:
        """Return the time between two events of a stream that makes up the rate."""
        return max(_GAP_S_MIN, (self.streams * self.tokens / self.events_per_s - _FIRST_S) / self.tokens)


def step_for(need: Need, *, share: float = 1.0) -> Step:
    """Return a step with enough requests for a p99, none longer than it has to be."""
    rate = need.events_per_s * share
    seconds = _QUICK_S if rate <= _RATE_QUICK_PER_S else _LONG_S
    cycle_s = min(need.streams * seconds / _REQUESTS_WANTED, 0.6 * seconds, need.tokens * need.streams / rate)
    tokens = max(2, round(cycle_s * rate / need.streams))
    return Step(events_per_s=rate, streams=need.streams, tokens=tokens, seconds=seconds, is_tls=need.is_tls)


def calibrate(
    need: Need,
    *,
    header: RunHeader,
    worker: int,
    on_written: Callable[[Request], None],
    error_ms_max: float,
) -> list[Reading]:
    """Return what was found; it is tried again, at the end at a lower rate, only where it was not good."""
    found: list[Reading] = []
    for share in _SHARES_QUICK if need.events_per_s <= _RATE_QUICK_PER_S else _SHARES_LONG:
        found.append(
            read_golden_streams(
                step_for(need, share=share), header=header, worker=worker, on_written=on_written
            )
        )
        if not why_not_certified(found[-1], error_ms_max=error_ms_max):
            break
    return found


def read_golden_streams(
    step: Step,
    *,
    header: RunHeader,
    worker: int,
    on_written: Callable[[Request], None] | None = None,
    core: int | None = None,
) -> Reading:
    """Run one step and return what came of it; whatever breaks is the reading's ``reason``."""
    folder = Path(tempfile.mkdtemp(prefix="overproof-calibration-"))
    try:
        with golden_endpoint(folder / "golden.bin", core=core, is_tls=step.is_tls) as golden:
            drive = _Drive(step, folder, header, worker, on_written or (lambda _: None))
            drive.run(golden)
            return drive.reading(golden.stop())
    except (RecordError, TargetError) as error:
        return Reading(worker=worker, offered_per_s=step.events_per_s, is_tls=step.is_tls, reason=str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Drive:
    """One step of one process."""

    def __init__(
        self,
        step: Step,
        folder: Path,
        header: RunHeader,
        worker: int,
        on_written: Callable[[Request], None],
    ) -> None:
        self._step, self._folder, self._worker = step, folder, worker
        self._header, self._on_written = header, on_written
        self._rows: list[Request] = []
        self._cpu_s = 0.0

    def run(self, golden: Golden) -> None:
        """Drive the endpoint to the end of the step."""
        spec = workload_of(self._step, golden)
        plan = LoadPlan(run=self._folder, spec=spec, seed=1, url=golden.url, model="golden")
        with RunWriter(self._folder, self._header) as writer:
            recorder = Recorder(writer, self._on_written, worker=self._worker)

            def take(row: Request) -> None:
                self._rows.append(row)
                recorder.put(row)

            target = make_target(plan, headers={})
            dispatcher = Dispatcher(plan, target, take, worker=0, workers=1)
            writing = gevent.spawn(recorder.run, dispatcher)
            gc.collect()
            gc.freeze()
            cpu_s = _cpu_s()
            dispatcher.walk(t0_ns=time.time_ns() + 20_000_000)
            dispatcher.drain(timeout_s=_DRAIN_S)
            self._cpu_s = _cpu_s() - cpu_s
            writing.kill()
            recorder.flush()
            dispatcher.polls.close()

    def reading(self, golden: GoldenRecord) -> Reading:
        """Return what was found, once the truth is known."""
        whole = [row for row in self._rows if row.error is None]
        error = timing_error(golden, {f"{self._folder.name}-{row.index}": _heard(row) for row in whole})
        events = sum(row.events for row in self._rows)
        step = self._step
        found = Reading(worker=self._worker, offered_per_s=round(step.events_per_s, 1), is_tls=step.is_tls)
        if not events:
            return replace(found, reason="no event of the golden endpoint was read")
        busiest = busiest_by_worker(self._rows)[0]
        found = replace(
            found,
            events_per_s=round(busiest.events_per_s, 1),
            streams=busiest.streams,
            requests=len(self._rows),
            failed=len(self._rows) - len(whole),
            lag_ms_p99=round(percentile([row.lag_ms_max for row in self._rows], 0.99), 3),
            cpu_us_per_event=round(self._cpu_s / events * 1e6, 2),
            endpoint_cpu_share=round(golden.cpu_s / golden.wall_s, 3),
            clock_step_ms=golden.clock_step_ns / 1e6,
        )
        return with_errors(found, error)


def _heard(row: Request) -> Heard:
    assert row.t_sent_ns is not None
    assert row.t_first_ns is not None
    return Heard(t_sent_ns=row.t_sent_ns, t_first_ns=row.t_first_ns, gaps_us=row.gaps_us)


def workload_of(step: Step, golden: Golden) -> WorkloadSpec:
    """Return users that ask the golden endpoint again and again, at the rate of a step."""
    # Over one whole answer, so that answers end, and requests follow, at an even rate from then on.
    connections_per_s = _TLS_CONNECTIONS_PER_S if step.is_tls else _CONNECTIONS_PER_S
    start_s = max(0.2, step.streams / connections_per_s, _FIRST_S + step.tokens * step.gap_s)
    return WorkloadSpec.model_validate(
        {
            "name": "calibration",
            "arrivals": {"kind": "closed", "users": step.streams, "start_over_s": start_s},
            "duration_s": start_s + step.seconds,
            "prompt": {
                "input_tokens": {"kind": "constant", "value": 16},
                "output_tokens": {"kind": "constant", "value": step.tokens},
            },
            "calibrate_prompts": False,
            "endpoint": {
                "url": golden.url,
                "ca_file": None if golden.ca_file is None else str(golden.ca_file),
                "timeout_s": 30,
                "body": {"golden": {"first_ms": _FIRST_S * 1000, "gap_ms": step.gap_s * 1000}},
            },
            "in_flight_max": step.streams,
        }
    )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """Serve steps as a process of its own: one JSON line in, one reading out, until standard input ends."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    watch_lifeline(lambda: os._exit(0), on_line=lines.put)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    while True:
        asked = json.loads(lines.get())
        found = read_golden_streams(
            Step(**asked["step"]) if "step" in asked else step_for(Need(**asked["need"])),
            header=load_header(Path(asked["run"])),
            worker=asked["worker"],
            core=asked.get("core"),
        )
        sys.stdout.write(to_json_line(asdict(found)))
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

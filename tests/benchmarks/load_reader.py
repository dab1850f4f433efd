"""How many streamed events one load process takes, at what cost: ``python -m tests.benchmarks load_reader``.

All of a load process but Locust is measured on the first core: dispatcher, reader, recorder and histograms. A
golden endpoint on the last sends each stream one event per 10 ms, in answers of 300. Rate and cost are those
of the same time, in which all streams are open and each that ends is followed by a new one. The cost of the
whole run stands beside: while streams are being opened, few events bear the cost of the hub's turns. Each is
measured on the loopback that is there, and on one where the sender's core does the sender's work.
``python -m tests.benchmarks.load_reader N [tls]`` measures N streams once.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gevent

from loadtests.calibration.client import Step, workload_of
from loadtests.calibration.golden_process import golden_endpoint
from loadtests.calibration.golden_record import GoldenRecord
from loadtests.plan import LoadPlan
from loadtests.processes.load_process import Load
from probes.errors import TargetError
from probes.request import Request
from reports.record import create_run
from tests.benchmarks.figure import Figure
from tests.benchmarks.own_network import has_own_network, in_own_network

STREAMS = (("1200",), ("1500",), ("400", "tls"))
EVENTS_PER_STREAM_S = 100
TOKENS, SECONDS = 300, 5.0
START_DELAY_S = 0.2


def figures() -> Iterator[Figure]:
    """Yield rate, cost and memory for each number of streams, each in a process of its own."""
    networks = (False, True) if has_own_network() else (False,)
    for arguments, is_own in itertools.product(STREAMS, networks):
        command = [sys.executable, "-m", "tests.benchmarks.load_reader", *arguments]
        done = subprocess.run(
            in_own_network(command) if is_own else command,
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
        found = json.loads(done.stdout)
        beside = (
            f"{found['rows']:.0f} rows, {found['failed']:.0f} failed, "
            f"{found['reads_coalesced']:.0f} of {found['reads']:.0f} reads held several, "
            f"up to {found['lag_ms_max']:.0f} ms late; {found['system_share']:.0%} of it in the kernel; "
            f"{found['cpu_us_per_event_of_all']:.1f} µs over the whole run; "
            f"endpoint {found['endpoint_cpu_share']:.0%} of its core"
        )
        units = {"events_per_s": "events/s", "cpu_us_per_event": "µs", "kib_per_stream": "KiB"}
        for name, unit in units.items():
            label = f"{' streams, '.join(arguments)}{'' if 'tls' in arguments else ' streams'}"
            label += f"{', acknowledged at once' if is_own else ''}, {name}"
            yield Figure(name=label, median=found[name], unit=unit, repeats=1, beside=beside)


class _Sums:
    """What of the rows is shown; the rows themselves are not kept, as in a real run."""

    def __init__(self) -> None:
        self.reads = self.reads_coalesced = 0
        self.lag_ms_max = 0.0

    def take(self, row: Request) -> None:
        """Add one row."""
        self.reads += row.reads
        self.reads_coalesced += row.reads_coalesced
        self.lag_ms_max = max(self.lag_ms_max, row.lag_ms_max)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What the process has used until a moment."""

    t_ns: int
    user_s: float
    system_s: float
    resident_bytes: int

    @property
    def cpu_s(self) -> float:
        """Return the time on a core."""
        return self.user_s + self.system_s


def _look() -> _Look:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return _Look(
        t_ns=time.time_ns(),
        user_s=usage.ru_utime,
        system_s=usage.ru_stime,
        resident_bytes=_resident_bytes(),
    )


def read(streams: int, folder: Path, *, endpoint_core: int, is_tls: bool) -> dict[str, float]:
    """Run a load of so many streams; return the figures."""
    step = Step(
        events_per_s=streams * EVENTS_PER_STREAM_S,
        streams=streams,
        tokens=TOKENS,
        seconds=SECONDS,
        is_tls=is_tls,
    )
    sums = _Sums()
    with (
        golden_endpoint(folder / "golden.bin", core=endpoint_core, is_tls=is_tls) as golden,
        create_run(folder, kind="load", spec={}, seed=1) as writer,
    ):
        said = workload_of(step, golden).model_dump(mode="json", exclude_unset=True)
        spec = workload_of(step, golden).model_validate(said | {"calibration": {"is_skipped": True}})
        plan = LoadPlan(run=writer.path, spec=spec, seed=1, url=golden.url, model="golden")
        load = Load(plan, writer, worker=0, on_written=sums.take)
        load.prepare(lambda call, *given: call(*given))
        open_s = spec.duration_s - SECONDS
        gc.collect()
        before, t0_ns = _look(), time.time_ns() + round(START_DELAY_S * 1e9)
        opened = gevent.spawn_later(START_DELAY_S + open_s, _look)
        ended = gevent.spawn_later(START_DELAY_S + open_s + SECONDS, _look)
        load.run(t0_ns=t0_ns)
        after = _look()
        truth = golden.stop()
    counts = load.tally.counts
    if not counts["events"]:
        raise TargetError("nothing was read")
    first, last = opened.get(), ended.get()
    sent = _sent(truth, first.t_ns, last.t_ns)
    return {
        "events_per_s": sent / (last.t_ns - first.t_ns) * 1e9,
        "cpu_us_per_event": (last.cpu_s - first.cpu_s) / sent * 1e6,
        "cpu_us_per_event_of_all": (after.cpu_s - before.cpu_s) / counts["events"] * 1e6,
        "system_share": (last.system_s - first.system_s) / (last.cpu_s - first.cpu_s),
        "kib_per_stream": (first.resident_bytes - before.resident_bytes) / streams / 1024,
        "rows": counts["rows"],
        "failed": counts["failed"],
        "reads": sums.reads,
        "reads_coalesced": sums.reads_coalesced,
        "lag_ms_max": sums.lag_ms_max,
        "endpoint_cpu_share": truth.cpu_s / truth.wall_s,
    }


def _sent(truth: GoldenRecord, from_ns: int, until_ns: int) -> int:
    """Return how many events the endpoint sent then; no stream gets ahead of who reads it by much."""
    return sum(from_ns <= at < until_ns for stream in truth.streams for at in stream.sends_ns)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def main() -> None:
    """Measure once and print the figures."""
    streams, is_tls = int(sys.argv[1]) if len(sys.argv) > 1 else 1200, "tls" in sys.argv
    cores = sorted(os.sched_getaffinity(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    os.sched_setaffinity(0, {cores[0]})
    with tempfile.TemporaryDirectory() as folder:
        found = read(streams, Path(folder), endpoint_core=cores[-1], is_tls=is_tls)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()

"""How far a client's times are from the truth, event by event: ours and plain Locust users, same cores.

A golden endpoint on the last core notes when it sends each event. The client has the first core, with and
without a program beside it that takes half of that core. Needs two cores, and a quiet machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from select import select

from loadtests.calibration.busiest import Busiest
from loadtests.calibration.certified import Reading, judge_calibration, reading_from_json, with_errors
from loadtests.calibration.client import Step
from loadtests.calibration.golden_process import golden_endpoint
from loadtests.calibration.golden_record import GoldenRecord
from loadtests.calibration.timing_error import Heard, timing_error
from probes.child import end_child, python_module, start_child
from probes.errors import TargetError
from probes.event import to_json_line
from reports.record import create_run
from tests.benchmarks.figure import Figure
from tests.benchmarks.own_network import has_own_network, in_own_network

_SECONDS = 3.0
_FIRST_S, _GAP_S = 0.02, 0.01  # of each stream; the rate is made by their number
_TOKENS_MAX = 240
_REQUESTS_WANTED = 180
_WARM_UP_S = 1.0  # left out of what plain Locust users are held against: they all start at once
_USERS_MIN = 10
_OURS = ((1_000, False), (10_000, False), (50_000, False), (50_000, True), (120_000, False), (120_000, True))
_LADDER_OURS = (20_000, 80_000, 100_000)
_AT_ONCE = "ours, acknowledged at once"  # in a network where the sender's core does all of the sender's work
_LADDER_AT_ONCE = ((50_000, True), (100_000, False), (120_000, False))
_LADDER_LOCUST = (300, 1_000, 2_000, 5_000, 10_000, 20_000)
_KINDS = ("HttpUser", "FastHttpUser")
_LOCUSTFILE = Path(__file__).with_name("locust_user") / "locustfile.py"
_HOG = """
import time
while True:
    until = time.perf_counter() + 0.01
    while time.perf_counter() < until:
        pass
    time.sleep(0.01)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One client at one rate."""

    client: str
    rate_per_s: int
    has_hog: bool
    reading: Reading

    @property
    def worst_ms(self) -> float:
        """Return the larger error at p99; far off where nothing, or not nearly all, was read."""
        found = self.reading
        if found.ttft_error_ms_p99 is None or found.gap_error_ms_p99 is None:
            return float("inf")
        if found.events_per_s < 0.85 * self.rate_per_s:
            return float("inf")
        return max(found.ttft_error_ms_p99, found.gap_error_ms_p99)


def figures() -> Iterator[Figure]:
    """Yield errors at p99 for each client and rate, and the highest rate within 1 and within 10 ms."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise TargetError("client and golden endpoint need a core each; this machine gives one")
    runs: list[Run] = []
    for rate, has_hog in (*_OURS, *((rate, False) for rate in _LADDER_OURS)):
        runs.append(_run("ours", rate, cores, has_hog=has_hog))
        yield from _shown(runs[-1])
    for rate, has_hog in _LADDER_AT_ONCE if has_own_network() else ():
        runs.append(_run(_AT_ONCE, rate, cores, has_hog=has_hog))
        yield from _shown(runs[-1])
    for kind in _KINDS:
        for rate in _LADDER_LOCUST:
            runs.append(_run(kind, rate, cores))
            yield from _shown(runs[-1])
            if runs[-1].worst_ms > 10:
                break
    runs.append(_run("HttpUser", 1_000, cores, has_hog=True))
    yield from _shown(runs[-1])
    for client in ("ours", _AT_ONCE, *_KINDS):
        for bound_ms in (1.0, 10.0):
            yield Figure(
                name=f"{client}: highest rate within {bound_ms:g} ms at p99, TTFT and gaps",
                median=_highest(runs, client, bound_ms),
                unit="events/s",
                repeats=1,
            )


def _highest(runs: list[Run], client: str, bound_ms: float) -> float:
    """Return the highest rate before the first that is off by more."""
    highest = 0.0
    for run in sorted(
        (run for run in runs if run.client == client and not run.has_hog), key=lambda run: run.rate_per_s
    ):
        if run.worst_ms > bound_ms:
            break
        highest = float(run.rate_per_s)
    return highest


def _shown(run: Run) -> Iterator[Figure]:
    found = run.reading
    name = f"{run.client}, {run.rate_per_s:,} events/s" + (" beside a hog" if run.has_hog else "")
    verdict = judge_calibration(
        [found], {0: Busiest(events_per_s=0.9 * run.rate_per_s, streams=found.streams)}
    )
    said = "none" if verdict.outcome is None else verdict.outcome.value.upper()
    told = f"{said}: {verdict.observed}" if said != "PASS" else said
    for part, error in (("ttft", found.ttft_error_ms_p99), ("gap", found.gap_error_ms_p99)):
        beside = (
            f"true {_pair(found.true_ms, part)}, heard {_pair(found.heard_ms, part)} (p50 / p99); "
            f"{found.events_per_s:,.0f}/s read, endpoint late by p99 {found.jitter_ms_p99} ms"
        )
        if part == "ttft":
            beside += f", {found.cpu_us_per_event} µs of CPU per event"
            beside += f"; verdict {told}" if run.client not in _KINDS else ""
        yield Figure(
            name=f"{name}: {'TTFT' if part == 'ttft' else 'gap'} off by p99",
            median=float("nan") if error is None else error,
            unit="ms",
            repeats=1,
            beside=found.reason or beside,
        )


def _pair(values: dict[str, float | None], part: str) -> str:
    return " / ".join(
        "–" if value is None else f"{value:.2f}"
        for value in (values.get(f"{part}_p50"), values.get(f"{part}_p99"))
    )


def _run(client: str, rate: int, cores: list[int], *, has_hog: bool = False) -> Run:
    streams = max(_USERS_MIN, round(rate * _GAP_S))
    tokens = min(_TOKENS_MAX, round(rate * _SECONDS / _REQUESTS_WANTED))
    step = Step(events_per_s=rate, streams=streams, tokens=tokens, seconds=_SECONDS)
    with tempfile.TemporaryDirectory() as folder, _hog(cores[0] if has_hog else None):
        if client in _KINDS:
            reading = _locust(client, step, Path(folder), client_core=cores[0], endpoint_core=cores[-1])
        else:
            command = python_module("loadtests.calibration.client")
            command = in_own_network(command) if client == _AT_ONCE else command
            reading = _ours(command, step, Path(folder), client_core=cores[0], endpoint_core=cores[-1])
    return Run(client=client, rate_per_s=rate, has_hog=has_hog, reading=reading)


@contextmanager
def _hog(core: int | None) -> Iterator[None]:
    """Run a program that wants half of a core; None: no such program."""
    if core is None:
        yield
        return
    hog = start_child([sys.executable, "-c", _HOG])
    os.sched_setaffinity(hog.pid, {core})
    try:
        yield
    finally:
        end_child(hog)


def _ours(command: list[str], step: Step, folder: Path, *, client_core: int, endpoint_core: int) -> Reading:
    with create_run(folder, kind="load", spec={}, seed=1) as writer:
        run = writer.path
    client = start_child(command)
    try:
        os.sched_setaffinity(client.pid, {client_core})
        assert client.stdin is not None
        assert client.stdout is not None
        asked = {"step": asdict(step), "run": str(run), "worker": 0, "core": endpoint_core}
        client.stdin.write(to_json_line(asked))
        client.stdin.flush()
        line = client.stdout.readline() if select([client.stdout], [], [], 90)[0] else ""
        if not line:
            raise TargetError("the client died or hangs")
        return reading_from_json(json.loads(line))
    finally:
        end_child(client)
        assert client.stdout is not None
        client.stdout.close()


def _locust(kind: str, step: Step, folder: Path, *, client_core: int, endpoint_core: int) -> Reading:
    with golden_endpoint(folder / "golden.bin", core=endpoint_core) as golden:
        settings = {
            "kind": kind,
            "tokens": step.tokens,
            "golden": {"first_ms": _FIRST_S * 1000, "gap_ms": step.gap_s * 1000},
            "heard": str(folder / "heard.json"),
        }
        command = python_module("locust", "--locustfile", str(_LOCUSTFILE), "--headless", "--only-summary")
        command += ["--users", str(step.streams), "--spawn-rate", "500", "--loglevel", "ERROR"]
        command += ["--host", f"http://127.0.0.1:{golden.port}", "--run-time", f"{_SECONDS + _WARM_UP_S:g}s"]
        child = start_child(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PLAIN_LOCUST": json.dumps(settings)},
        )
        try:
            os.sched_setaffinity(child.pid, {client_core})
            child.wait(timeout=_SECONDS + 60)
        finally:
            end_child(child)
        return _reading_of(json.loads((folder / "heard.json").read_text()), golden.stop(), step)


def _reading_of(heard: list[tuple[str, int, list[int]]], golden: GoldenRecord, step: Step) -> Reading:
    """Return what a client's own times amount to; the warm-up and what the end cut off are left out."""
    from_ns = min((sent for _, sent, _ in heard), default=0) + round(_WARM_UP_S * 1e9)
    whole = {
        name: Heard(t_sent_ns=sent, t_first_ns=times[0], gaps_us=[(b - a) / 1e3 for a, b in pairwise(times)])
        for name, sent, times in heard
        if len(times) == step.tokens and sent >= from_ns
    }
    sends = sorted(at for stream in golden.streams for at in stream.sends_ns)
    span_s = (sends[-1] - sends[0]) / 1e9 if len(sends) > 1 else 1.0
    found = Reading(
        worker=0,
        offered_per_s=step.events_per_s,
        events_per_s=round(len(sends) / span_s, 1),
        streams=step.streams,
        requests=len(whole),
    )
    return replace(with_errors(found, timing_error(golden, whole)), unmatched=0)


def main() -> None:
    """Print one run: ``python -m tests.benchmarks.load_accuracy ours 10000 [hog]``."""
    began = time.monotonic()
    cores = sorted(os.sched_getaffinity(0))
    run = _run(sys.argv[1], int(sys.argv[2]), cores, has_hog="hog" in sys.argv)
    for figure in _shown(run):
        sys.stdout.write(f"{figure.name}: {figure.median:.3f} ms; {figure.beside}\n")
    sys.stdout.write(f"{time.monotonic() - began:.1f} s\n")


if __name__ == "__main__":
    main()

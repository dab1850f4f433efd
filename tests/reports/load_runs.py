"""Load runs as they are compared: simulated latencies with known truth, dependence and noise between runs."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.request import Request
from reports.record import create_run
from reports.run import FINISHED, Run, load_run
from reports.run_figures import Figure, RunFigures, figures_of
from tests.reports.recorded import SECOND, finding, write_requests

SPEC: JsonObject = {
    "name": "chat",
    "arrivals": {"kind": "poisson", "rate_per_s": 50.0},
    "duration_s": 20.0,
    "prompt": {"input_tokens": {"kind": "constant", "value": 32}},
    "endpoint": {"url": "http://127.0.0.1:8000", "stream": True},
    "slos": [{"metric": "ttft_ms", "statistic": "p95", "bound": 500.0}],
}


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What a simulated server is really like."""

    scale: float = 1.0  # of every latency
    rho: float = 0.0  # correlation of the log latency of neighbours
    between: float = 0.02  # deviation between runs, of the logarithm
    failed_share: float = 0.0
    requests: int = 1000
    gaps: int = 4


def simulate(truth: Truth, seed: int) -> Iterator[Request]:
    """Yield the requests of one run: an AR(1) of log latencies, shifted as a whole from run to run."""
    chance = random.Random(seed)
    shift = math.log(truth.scale) + chance.gauss(0, truth.between)
    state, fresh = chance.gauss(0, 1), math.sqrt(1 - truth.rho**2)
    at_s = 0.0
    for index in range(truth.requests):
        state = truth.rho * state + fresh * chance.gauss(0, 1)
        at_s += chance.expovariate(50.0)
        sent = 1_700_000_000 * SECOND + round(at_s * SECOND)
        ttft_us = round(80_000 * math.exp(shift + 0.3 * state))
        gaps = tuple(
            round(20_000 * math.exp(shift + 0.1 * state + 0.1 * chance.gauss(0, 1)))
            for _ in range(truth.gaps)
        )
        first = sent + ttft_us * 1000
        last = first + sum(gaps) * 1000
        is_failed = chance.random() < truth.failed_share
        yield Request(
            index=index,
            worker=0,
            endpoint="http://127.0.0.1:8000",
            t_intended_ns=sent,
            t_sent_ns=sent,
            t_first_ns=None if is_failed else first,
            t_last_ns=None if is_failed else last,
            t_end_ns=sent + 30_000_000 if is_failed else last + 1_000_000,
            connect_ms=None,
            status=502 if is_failed else 200,
            error="http_5xx" if is_failed else None,
            tokens_out=None if is_failed else truth.gaps + 1,
            gaps_us=() if is_failed else gaps,
            reads=1,
        )


@functools.cache
def _figures_of(truth: Truth, seed: int) -> dict[str, Figure]:
    return figures_of(list(simulate(truth, seed)))


def figures(truth: Truth, seed: int, **changes: object) -> RunFigures:
    """Return the figures of one simulated run, as ``read_figures`` would."""
    values: dict[str, object] = {
        "id": f"run-{seed}",
        "kind": "load",
        "workload": "chat",
        "started_ns": seed,
        "outcome": "pass",
        "host": "bench",
        "endpoint": "http://127.0.0.1:8000",
        "model": "simulated",
        "seed": seed,
        "duration_s": 20.0,
        "versions": {"overproof": "1"},
        "load": {"arrivals": {"rate_per_s": 50.0}},
        "promises": [],
        "problems": [],
        "requests": truth.requests,
        "figures": _figures_of(truth, seed),
    }
    return RunFigures(**values | changes)  # type: ignore[arg-type]


def record_run(
    out: Path,
    seed: int,
    truth: Truth,
    *,
    spec: JsonObject | None = None,
    findings: list[Finding] | None = None,
    kinds: tuple[str, ...] = (FINISHED,),
) -> Run:
    """Record a load run with simulated requests, through the record like any other."""
    with create_run(out, kind="load", spec=spec or SPEC, seed=seed) as writer:
        writer.event("load", "endpoint.answered", url="http://127.0.0.1:8000", model="simulated")
        write_requests(writer.path, list(simulate(truth, seed)))
        for kind in kinds:
            writer.event("controller", kind)
        writer.write_findings(
            findings
            if findings is not None
            else [finding("slo", "slo:ttft_ms_p95", Outcome.PASS, "99.00% of 1000 values at most 500 ms")]
        )
    return load_run(writer.path)

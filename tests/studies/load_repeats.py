"""The study of repeated load runs: one workload 30 times each around its true limit, and what was decided.

The limit is that of the simulated endpoint's own model of batching, without clock or socket, over many more
requests than any run has; then real runs follow: processes, sockets, the same code as ``overproof load run``.
``make study-load-repeats`` goes on where it stopped, by the rows in runs/study-load-repeats.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from pathlib import Path

import overproof
from loadtests.batching import Batch, BatchLimits, Sequence
from probes.json_types import JsonObject
from reports.run import read_ndjson
from tests.loadtests.endpoints import endpoint

RESULTS = Path("runs/study-load-repeats/results.ndjson")
REPORT = Path(__file__).parents[2] / "docs" / "studies" / "load-repeats.md"
RATIOS = (0.8, 0.98, 1.02, 1.2)
REPEATS = 30
SLOTS, TOKENS, STEP_MS, BOUND_MS, OBJECTIVE = 32, 16, 20.0, 80.0, 0.95
DURATION_S = 10
_TEXT = """
name: repeats
arrivals: {{kind: poisson, rate_per_s: {rate:.4f}}}
duration_s: {duration_s}
prompt:
  input_tokens: {{kind: constant, value: 16}}
  output_tokens: {{kind: constant, value: {tokens}}}
slos: [{{metric: ttft_ms, objective: {objective}, bound: {bound}}}]
"""


def late_share(rate_per_s: float, *, requests: int, seed: int = 1) -> float:
    """Return the long-run share of first tokens beyond the bound, of Poisson arrivals at this rate."""
    batch = Batch(BatchLimits(slots=SLOTS, queue_max=10**9, prefill_tokens_per_s=1e9))
    chance, now_s, late = random.Random(seed), 0.0, 0
    begun: dict[Sequence, float] = {}
    moments: deque[float] = deque()
    at_s = 0.0
    for _ in range(requests):
        at_s += chance.expovariate(rate_per_s)
        moments.append(at_s)
    while moments or begun:
        if not batch.running and not batch.queue:
            now_s = max(now_s, moments[0])
        while moments and moments[0] <= now_s:
            one = Sequence(input_tokens=16, output_tokens=TOKENS)
            begun[one] = moments.popleft()
            batch.submit(one)
        now_s += batch.begin_step() or 0.0
        for one in batch.end_step():
            if one.produced == 1:
                late += (now_s - begun[one]) * 1000 > BOUND_MS
            if one.is_finished:
                del begun[one]
    return late / requests


def true_limit(requests: int = 200_000) -> float:
    """Return the rate at which just the allowed share is late."""
    low, high = 0.5 * SLOTS / (TOKENS * STEP_MS / 1000), SLOTS / (TOKENS * STEP_MS / 1000)
    for _ in range(8):
        middle = (low + high) / 2
        if late_share(middle, requests=requests) <= 1 - OBJECTIVE:
            low = middle
        else:
            high = middle
    return low


def one_run(rate_per_s: float, seed: int) -> JsonObject:
    """Run the workload once; return what became of the promise, or what spoilt the run, and who was late."""
    options = ("--slots", SLOTS, "--decode-step-ms", STEP_MS, "--prefill-tokens-per-s", 1e9)
    with tempfile.TemporaryDirectory() as name, endpoint(*map(str, options)) as running:
        path = Path(name) / "repeats.yaml"
        text = {"duration_s": DURATION_S, "tokens": TOKENS, "objective": OBJECTIVE, "bound": BOUND_MS}
        path.write_text(_TEXT.format(rate=rate_per_s, **text))
        command = [sys.executable, overproof.__file__, "load", "run", str(path), "--endpoint", running.url]
        command += ["--out", name, "--seed", str(seed), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    findings = {one["rule"]: one for one in json.loads(done.stdout)["findings"]}
    spoilt = [r for r in ("lateness", "client-lag", "client-calibrated") if findings[r]["outcome"] != "pass"]
    outcome = f"client: {', '.join(spoilt)}" if spoilt else str(findings["slo"]["outcome"])
    evidence = findings["slo"]["evidence"]
    return {"outcome": outcome, "late": evidence["bad"], "requests": evidence["total"]}


def main() -> int:
    """Make the runs that are missing, as time allows, and write the table of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--within-s", type=float, default=3600.0, help="Begin no further run after that.")
    options = parser.parse_args()
    deadline, limit = time.monotonic() + options.within_s, true_limit()
    truths = {ratio: late_share(limit * ratio, requests=200_000, seed=2) for ratio in RATIOS}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    rows = list(read_ndjson(RESULTS))
    known = {(row["ratio"], row["seed"]) for row in rows}
    for seed in range(1, REPEATS + 1):
        for ratio in RATIOS:
            if (ratio, seed) in known or time.monotonic() > deadline:
                continue
            rows.append({"ratio": ratio, "seed": seed} | one_run(limit * ratio, seed))
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            REPORT.write_text(_report(rows, limit, truths), encoding="utf-8")
    return 0


def _report(rows: list[JsonObject], limit: float, truths: dict[float, float]) -> str:
    lines = [
        "# The same workload around its true limit",
        "",
        f"`make study-load-repeats`: Poisson arrivals for {DURATION_S} s, {OBJECTIVE:.0%} of first tokens",
        f"within {BOUND_MS:g} ms, at an endpoint with {SLOTS} slots whose model of batching holds that up to",
        f"{limit:.1f} requests/s in the long run.",
        "Runs whose client was late, lagged or was not calibrated are counted apart.",
        f"{REPEATS} runs of each are wanted. Late in the long run is what that model says; late in all",
        "runs is what the real endpoint came to, every one of whose runs begins empty.",
        "",
        "| rate / true limit | runs | PASS | FAIL | INCONCLUSIVE | spoilt by the client "
        "| late in the long run | late in all runs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for ratio in RATIOS:
        those = [row for row in rows if row["ratio"] == ratio]
        counts = Counter(str(row["outcome"]) for row in those)
        told = [counts[name] for name in ("pass", "fail", "inconclusive")]
        spoilt = counts.total() - sum(told)
        late = sum(row["late"] for row in those) / max(sum(row["requests"] for row in those), 1)
        lines.append(
            f"| {ratio} | {counts.total()} | {' | '.join(map(str, told))} | {spoilt} "
            f"| {truths[ratio]:.1%} | {late:.1%} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())

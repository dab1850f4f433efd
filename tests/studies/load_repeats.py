"""The study of repeated load runs: one workload 30 times each around its true limit, and what was decided.

The limit is that of the simulated endpoint's own model of batching, without clock or socket, over many more
requests than any run has; then real runs follow: processes, sockets, the same code as ``overproof load run``.
``make study-load-repeats`` goes on where it stopped, by the rows in runs/study-load-repeats.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import overproof
from probes.json_types import JsonObject
from reports.run import read_ndjson
from tests.loadtests.endpoints import endpoint
from tests.studies.batch_model import Server, late_share, true_limit

RESULTS = Path("runs/study-load-repeats/results.ndjson")
REPORT = Path(__file__).parents[2] / "docs" / "studies" / "load-repeats.md"
RATIOS = (0.8, 0.98, 1.02, 1.2)
REPEATS = 30
SERVER = Server(slots=32, tokens=16, step_ms=20.0)
BOUND_MS, OBJECTIVE = 80.0, 0.95
DURATION_S = 15
_TEXT = """
name: repeats
arrivals: {{kind: poisson, rate_per_s: {rate:.4f}}}
duration_s: {duration_s}
prompt:
  input_tokens: {{kind: constant, value: 16}}
  output_tokens: {{kind: constant, value: {tokens}}}
slos: [{{metric: ttft_ms, objective: {objective}, bound: {bound}}}]
"""


def one_run(rate_per_s: float, seed: int) -> JsonObject:
    """Run the workload once; return what became of the promise, or what spoilt the run, and who was late."""
    options = ("--slots", SERVER.slots, "--decode-step-ms", SERVER.step_ms, "--prefill-tokens-per-s", 1e9)
    with tempfile.TemporaryDirectory() as name, endpoint(*map(str, options)) as running:
        path = Path(name) / "repeats.yaml"
        text = {"duration_s": DURATION_S, "tokens": SERVER.tokens, "objective": OBJECTIVE, "bound": BOUND_MS}
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
    deadline = time.monotonic() + options.within_s
    limit = true_limit(SERVER, bound_ms=BOUND_MS, objective=OBJECTIVE)
    truths = {ratio: late_share(SERVER, limit * ratio, bound_ms=BOUND_MS, seed=2) for ratio in RATIOS}
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
    today = datetime.datetime.now(tz=datetime.UTC).date()
    lines = [
        "# The same workload around its true limit",
        "",
        f"`make study-load-repeats`, {today}: Poisson arrivals for {DURATION_S} s, {OBJECTIVE:.0%}",
        f"of first tokens within {BOUND_MS:g} ms, at an endpoint with {SERVER.slots} slots whose model of",
        f"batching holds that up to {limit:.1f} requests/s in the long run.",
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

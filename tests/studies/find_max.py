"""The study of find-max: searches of simulated endpoints whose capacity is known by construction.

Slots / (tokens per answer * time of a step) is the rate that an endpoint can serve; with even arrivals the
SLO holds exactly up to it. ``make study-find-max`` writes docs/studies/find-max.md; at most 5 minutes each.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import overproof
from tests.loadtests.endpoints import endpoint

REPORT = Path(__file__).parents[2] / "docs" / "studies" / "find-max.md"
WITHIN_S = 300
PRECISION = 0.05
_TEXT = """
name: known
arrivals: {{kind: constant, rate_per_s: {start}}}
duration_s: 5
prompt:
  input_tokens: {{kind: constant, value: 16}}
  output_tokens: {{kind: constant, value: {tokens}}}
slos: [{{metric: ttft_ms, statistic: p95, bound: 500}}]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One endpoint."""

    slots: int
    tokens: int
    step_ms: float
    start_per_s: float

    @property
    def capacity_per_s(self) -> float:
        """What it can serve, by construction."""
        return self.slots / (self.tokens * self.step_ms / 1000)


CASES = (
    Case(slots=32, tokens=16, step_ms=20, start_per_s=20),
    Case(slots=24, tokens=16, step_ms=25, start_per_s=200),
    Case(slots=48, tokens=32, step_ms=20, start_per_s=50),
    Case(slots=40, tokens=8, step_ms=40, start_per_s=40),
)


def search(case: Case, folder: Path, *, within_s: float) -> tuple[dict[str, object], str, float]:
    """Search one endpoint; return the evidence, what was observed and the seconds it took."""
    options = ("--slots", case.slots, "--decode-step-ms", case.step_ms, "--prefill-tokens-per-s", 1e9)
    (folder / "known.yaml").write_text(_TEXT.format(start=case.start_per_s, tokens=case.tokens))
    with endpoint(*map(str, options), "--queue-max", "5000") as running:
        command = [sys.executable, overproof.__file__, "load", "find-max", str(folder / "known.yaml")]
        command += ["--endpoint", running.url, "--within-s", str(within_s), "--out", str(folder), "--json"]
        begun = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=within_s + 120)
        lasted_s = time.monotonic() - begun
    findings = [one for one in json.loads(done.stdout)["findings"] if one["rule"] == "max-rate"]
    return findings[0]["evidence"], findings[0]["observed"], lasted_s


def row(case: Case, folder: Path, *, within_s: float) -> str:
    """Return the table's row of one case."""
    evidence, observed, lasted_s = search(case, folder, within_s=within_s)
    truth = case.capacity_per_s
    ends = [evidence["low_per_s"], evidence["high_per_s"]]
    off = ["–" if not isinstance(end, float) else f"{end:.2f} ({end / truth - 1:+.1%})" for end in ends]
    steps = evidence["steps"]
    assert isinstance(steps, list)
    is_within = all(isinstance(end, float) and abs(end / truth - 1) <= PRECISION for end in ends)
    return (
        f"| {case.slots} × {case.tokens} tokens of {case.step_ms:g} ms | {truth:.1f} | {off[0]} | {off[1]} "
        f"| {'yes' if is_within else 'no'} | {len(steps)} | {lasted_s:.0f} | {evidence['saturated']} "
        f"| {observed.partition('; ')[2]} |"
    )


def main() -> int:
    """Run the cases and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=len(CASES), help="Only the first so many.")
    parser.add_argument("--within-s", type=float, default=WITHIN_S)
    options = parser.parse_args()
    rows = []
    load_1min = os.getloadavg()[0]
    for case in CASES[: options.cases]:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row(case, Path(folder), within_s=options.within_s))
        print(rows[-1], flush=True)  # noqa: T201  (it takes minutes)
    REPORT.write_text(_report(rows, within_s=options.within_s, load_1min=load_1min), encoding="utf-8")
    return 0


def _report(rows: list[str], *, within_s: float, load_1min: float) -> str:
    day = datetime.datetime.now(datetime.UTC).date()
    return "\n".join(
        [
            "# find-max against endpoints whose capacity is known",
            "",
            f"`make study-find-max`, {day}; {os.cpu_count()} cores for endpoint and client together, load",
            f"average {load_1min:.1f} at the beginning. At most {within_s:g} s each; even arrivals, p95 of",
            "the time to first token at most 500 ms, which holds exactly up to slots / (tokens × step).",
            "",
            "| endpoint | true limit /s | highest that held | lowest that did not | both within 5 % | steps "
            "| s | saturated first | how it ended |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

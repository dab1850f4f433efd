"""``overproof load calibrate``: the command as its user types it, and what its record is judged to show."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from loadtests.calibration.certified import EVENT, Reading
from loadtests.calibration.curve import KIND, curve_of, judge_run
from probes.finding import Finding
from probes.outcome import Outcome
from reports.record import create_run
from reports.run import load_run

GOOD = Reading(
    worker=0,
    offered_per_s=500,
    events_per_s=510,
    streams=64,
    requests=200,
    cpu_us_per_event=9.0,
    ttft_error_ms_p99=0.05,
    gap_error_ms_p99=0.02,
)
BAD = replace(GOOD, gap_error_ms_p99=12.0)


def judged(folder: Path, *tries: tuple[float, int, Reading]) -> Finding:
    spec = {"processes": 2, "events_per_s_max": 9000, "error_ms_max": 1.0}
    with create_run(folder, kind=KIND, spec=spec, seed=1) as writer:
        for rate, attempt, reading in tries:
            writer.event("load", EVENT, rate_per_s=rate, attempt=attempt, **asdict(reading))
    (finding,) = judge_run(load_run(writer.path))
    return finding


@pytest.mark.parametrize("tls", [[], ["--tls"]], ids=["plain", "TLS"])
def test_the_command_shows_a_curve_and_what_is_certified(tmp_path: Path, tls: list[str]) -> None:
    command = [
        sys.executable,
        "-P",
        "-m",
        "overproof",
        "load",
        "calibrate",
        *tls,
        "--processes",
        "2",
        "--json",
    ]
    done = subprocess.run(
        [*command, "--max-events-per-s", "2000", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    document = json.loads(done.stdout)
    run = load_run(Path(document["run"]))
    curve = curve_of(run)

    assert [point.offered_per_s for point in curve] == [1000, 2000]
    assert all(point.streams == 128 and point.events_per_s > 500 for point in curve)
    assert {event.data["is_tls"] for event in run.events_of(EVENT)} == {bool(tls)}
    assert {event.data["worker"] for event in run.events_of(EVENT)} == {0, 1}
    assert run.events_of("calibration.machine")[0].data["cores"] >= 1
    assert done.returncode == (3 if curve[0].against else 0)
    assert judge_run(run)[0].evidence["curve"] == [asdict(point) for point in curve]


def test_certified_is_the_highest_rate_below_which_all_are_good(tmp_path: Path) -> None:
    other = replace(GOOD, worker=1)
    found = judged(
        tmp_path,
        *((1000, 0, BAD), (1000, 0, other), (1000, 1, GOOD), (1000, 1, other)),
        *((2000, 0, GOOD), (2000, 0, replace(BAD, worker=1))),
        *((5000, 0, GOOD), (5000, 0, other)),
    )

    assert found.outcome is Outcome.PASS
    assert found.observed.startswith("1,020 events/s on 128 streams with 2 process(es)")


def test_a_rate_that_one_process_did_not_finish_or_that_nobody_tried_is_not_certified(tmp_path: Path) -> None:
    missing, nothing = judged(tmp_path, (1000, 0, GOOD)), judged(tmp_path)

    assert (missing.outcome, missing.observed) == (Outcome.INCONCLUSIVE, "1 of 2 processes said nothing")
    assert (nothing.outcome, nothing.observed) == (Outcome.INCONCLUSIVE, "nothing was measured")

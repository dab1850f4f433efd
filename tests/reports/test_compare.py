"""Comparing runs: what noise may say, what may be compared at all, and how often it is wrong."""

from __future__ import annotations

import itertools
import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest

from probes.errors import ConfigError
from probes.outcome import Outcome
from reports.block_spread import block_edges, ratio_spread
from reports.compare import Direction, Tolerance, compare, differing
from reports.compare_text import comparison_document, render_lines, render_markdown_table
from reports.figure_kind import KINDS
from reports.run_figures import (
    baseline_document,
    figures_of,
    load_figures,
    load_shape,
    parse_baseline,
    read_figures,
)
from tests.reports.hostile import TEXTS
from tests.reports.load_runs import SPEC, Truth, figures, record_run, simulate
from tests.reports.recorded import finding

CALM = Truth(between=0.01, requests=500, gaps=3)


def overproof(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "overproof", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def base_of(truth: Truth = CALM, runs: int = 5):  # type: ignore[no-untyped-def]
    return [figures(truth, seed) for seed in range(runs)]


def directions(comparison) -> dict[str, Direction]:  # type: ignore[no-untyped-def]
    return {change.name: change.direction for change in comparison.changes}


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_the_spread_of_blocks_is_that_of_many_runs_even_where_neighbours_are_alike(rho: float) -> None:
    chance = random.Random(7)

    def bad_share_and_spread() -> tuple[float, float]:
        state, bad = chance.gauss(0, 1), []
        for _ in range(1000):
            state = rho * state + math.sqrt(1 - rho**2) * chance.gauss(0, 1)
            bad.append(state > 1.0)
        edges = block_edges(len(bad))
        pairs = [(float(sum(bad[a:b])), float(b - a)) for a, b in itertools.pairwise(edges)]
        return sum(bad) / len(bad), ratio_spread(pairs)

    trials = [bad_share_and_spread() for _ in range(40)]
    mean = sum(share for share, _ in trials) / len(trials)
    truth = math.sqrt(sum((share - mean) ** 2 for share, _ in trials) / (len(trials) - 1))
    stated = math.sqrt(sum(spread**2 for _, spread in trials) / len(trials))

    assert 0.8 * truth < stated < 1.9 * truth
    if rho == 0.9:  # taken as independent it would be less than half
        assert math.sqrt(mean * (1 - mean) / 1000) < 0.6 * truth


def test_the_figures_of_a_run_are_those_of_its_requests() -> None:
    requests = list(simulate(Truth(failed_share=0.1), 3))
    found = figures_of(requests)
    ttfts = sorted((r.t_first_ns - r.t_sent_ns) / 1e6 for r in requests if r.t_first_ns and r.t_sent_ns)

    assert found["ttft_ms_p50"].value == pytest.approx(ttfts[math.ceil(0.5 * len(ttfts)) - 1], abs=0.001)
    assert found["error_share"].value == sum(r.error is not None for r in requests) / len(requests)
    assert found["tokens_per_s"].value == pytest.approx(
        sum(5 for r in requests if r.is_good)
        / ((max(r.t_end_ns or 0 for r in requests) - requests[0].t_intended_ns) / 1e9)
    )
    assert set(found) <= set(KINDS)


def test_right_answers_are_compared_where_tasks_were_checked(tmp_path: Path) -> None:
    def checked(seed: int, right: int):  # type: ignore[no-untyped-def]
        counts = {"idle": {"answers": 200, "right": 200}, "load": {"answers": 400, "right": right}}
        said = [finding("answers-right", "endpoint:x", Outcome.PASS, evidence=counts)]
        return read_figures(record_run(tmp_path, seed, Truth(between=0.01, requests=100), findings=said))

    comparison = compare([checked(seed, 396 + seed % 3) for seed in range(5)], checked(9, 320))

    assert directions(comparison)["correctness"] is Direction.WORSE


def test_a_percentile_with_hardly_a_value_beyond_it_is_no_figure() -> None:
    found = figures_of(list(simulate(Truth(requests=400), 1)))

    assert {"ttft_ms_p90", "itl_ms_p99"} <= set(found)
    assert "ttft_ms_p99" not in found
    assert figures_of(list(simulate(Truth(requests=15), 1))) == {}


def test_a_tenth_slower_is_worse_beside_five_base_runs() -> None:
    comparison = compare(base_of(), figures(Truth(scale=1.10, between=0.01, requests=500, gaps=3), 99))

    assert comparison.outcome is Outcome.FAIL
    assert directions(comparison)["itl_ms_p50"] is Direction.WORSE
    change = next(change for change in comparison.changes if change.name == "itl_ms_p50")
    assert change.low < 0.10 < change.high


def test_a_fifth_faster_is_better_and_nothing_is_worse() -> None:
    comparison = compare(base_of(), figures(Truth(scale=0.8, between=0.01, requests=500, gaps=3), 99))

    assert directions(comparison)["itl_ms_p50"] is Direction.BETTER
    assert Direction.WORSE not in directions(comparison).values()


def test_like_runs_are_the_same_where_the_interval_fits_the_margin() -> None:
    truth = Truth(between=0.003, requests=1000)
    comparison = compare(base_of(truth, 6), figures(truth, 99))

    assert directions(comparison)["itl_ms_p50"] is Direction.SAME
    assert directions(comparison)["error_share"] is Direction.SAME
    for change in comparison.changes:
        if change.direction is Direction.SAME:
            assert -change.margin <= change.low <= change.high <= change.margin


def test_no_failure_among_few_requests_is_no_proof_that_none_would_come() -> None:
    truth = Truth(between=0.0, requests=100)

    assert directions(compare(base_of(truth), figures(truth, 99)))["error_share"] is Direction.UNCLEAR


def test_with_one_base_run_what_runs_differ_by_is_said_to_be_unknown() -> None:
    comparison = compare(base_of(runs=1), figures(Truth(scale=1.10, between=0.01, requests=500, gaps=3), 99))

    assert "one base run" in comparison.notes[0]
    assert set(directions(comparison).values()) == {Direction.UNCLEAR}
    assert comparison.outcome is Outcome.INCONCLUSIVE


def test_with_one_base_run_half_as_fast_again_is_worse_all_the_same() -> None:
    comparison = compare(base_of(runs=1), figures(Truth(scale=1.5, between=0.01, requests=500, gaps=3), 99))

    assert directions(comparison)["ttft_ms_p50"] is Direction.WORSE


def test_a_known_deviation_between_runs_takes_the_place_of_base_runs() -> None:
    slower = figures(Truth(scale=1.10, between=0.01, requests=500, gaps=3), 99)
    comparison = compare(base_of(runs=1), slower, tolerance=Tolerance(run_to_run=0.01))

    assert directions(comparison)["itl_ms_p50"] is Direction.WORSE


def test_faster_answers_are_not_called_better_when_more_requests_failed() -> None:
    broken = figures(Truth(scale=0.7, failed_share=0.2, between=0.01, requests=500, gaps=3), 99)
    comparison = compare(base_of(), broken)

    assert directions(comparison)["error_share"] is Direction.WORSE
    assert directions(comparison)["itl_ms_p50"] is Direction.UNCLEAR
    assert any("more requests failed" in line for line in render_lines(comparison))


@pytest.mark.parametrize(("rho", "runs"), [(0.0, 3), (0.9, 3), (0.0, 1), (0.9, 1)])
def test_like_runs_are_hardly_ever_called_worse(rho: float, runs: int) -> None:
    """At most 5 % are to be; 40 pairs with more than 6 wrong would be one chance in a hundred."""
    truth = Truth(rho=rho, between=0.03, requests=320, gaps=1)
    pool = [figures(truth, seed) for seed in range(30)]
    chance = random.Random(1)
    outcomes = [
        compare(sample[1:], sample[0]).outcome
        for sample in (chance.sample(pool, runs + 1) for _ in range(40))
    ]

    assert outcomes.count(Outcome.FAIL) <= 6


def test_another_load_is_refused_and_the_difference_is_named() -> None:
    other = figures(CALM, 9, load={"arrivals": {"rate_per_s": 60.0}})

    with pytest.raises(ConfigError, match=r"different loads.*arrivals.rate_per_s \(50.0, 60.0\)"):
        compare(base_of(), other)


def test_a_burn_in_is_refused_with_a_word_on_why() -> None:
    with pytest.raises(ConfigError, match="is a burnin run; only load tests"):
        compare(base_of(), figures(CALM, 9, kind="burnin"))


def test_a_run_whose_client_was_overloaded_decides_nothing() -> None:
    slow = figures(Truth(scale=3.0), 9, problems=["client-lag: received data waited"])
    comparison = compare(base_of(), slow)

    assert comparison.outcome is Outcome.INCONCLUSIVE
    assert set(directions(comparison).values()) == {Direction.UNCLEAR}
    assert "not comparable" in "\n".join(render_lines(comparison))


def test_a_doubtful_base_run_is_left_out_and_named() -> None:
    doubtful = figures(Truth(scale=5.0), 50, problems=["lateness: too late"])
    comparison = compare([*base_of(), doubtful], figures(CALM, 9))

    assert len(comparison.base) == 5
    assert comparison.notes[0] == "left out of the base: run-50: lateness: too late"


def test_another_endpoint_host_length_and_version_are_said() -> None:
    other = figures(CALM, 9, endpoint="http://b", host="h2", duration_s=9.0, versions={"overproof": "2"})
    notes = " | ".join(compare(base_of(), other).notes)

    for text in (
        "the endpoint differs",
        "the client's host differs",
        "of different length",
        "overproof 1 before, 2 now",
    ):
        assert text in notes


def test_goodput_is_not_compared_under_other_promises() -> None:
    comparison = compare(base_of(), figures(CALM, 9, promises=[{"metric": "ttft_ms"}]))

    assert "goodput" not in directions(comparison)
    assert "goodput is not compared" in " ".join(comparison.notes)


def test_the_shape_of_a_load_forgets_where_it_goes_and_what_is_promised() -> None:
    moved = SPEC | {"slos": [], "name": "x", "endpoint": {"url": "http://other", "stream": True}}
    filed = {"prompt": {"file": "/a/p.jsonl"}}

    assert differing(load_shape(SPEC), load_shape(moved)) == []
    assert differing(load_shape(SPEC), load_shape(SPEC | {"endpoint": {"stream": False}})) == [
        "endpoint.stream (True, False)"
    ]
    assert load_shape(filed) == load_shape({"prompt": {"file": "/b/p.jsonl"}})


def test_what_is_written_to_a_baseline_comes_back_the_same(tmp_path: Path) -> None:
    runs = [read_figures(record_run(tmp_path, seed, CALM)) for seed in (1, 2)]
    document = json.loads(json.dumps(baseline_document(runs)))

    assert parse_baseline(document, source="x") == runs
    assert len(json.dumps(document)) < 12_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"runs": []}',
        '{"schema_version": 9, "runs": [{}]}',
        '{"schema_version": 1, "runs": [3]}',
        '{"schema_version": 1, "runs": [{"id": "x"}]}',
        "\x00",
    ],
)
def test_a_file_that_is_no_baseline_is_a_usage_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(text)

    with pytest.raises(ConfigError, match=r"b\.json"):
        load_figures(tmp_path / "b.json")


def test_a_run_that_cannot_be_trusted_makes_no_baseline(tmp_path: Path) -> None:
    late = [finding("lateness", "client:load", Outcome.INCONCLUSIVE, "p99 90 ms late")]
    doubtful = read_figures(record_run(tmp_path, 1, CALM, findings=late))
    cut = read_figures(record_run(tmp_path, 2, CALM, kinds=("run.interrupted",)))

    with pytest.raises(ConfigError, match="cannot be a baseline: lateness: p99 90 ms late"):
        baseline_document([doubtful])
    with pytest.raises(ConfigError, match="cannot be a baseline: the run is interrupted"):
        baseline_document([cut])


def test_the_command_says_worse_and_exits_1_same_0_and_unclear_3(tmp_path: Path) -> None:
    base = [record_run(tmp_path / "runs", seed, CALM).path for seed in range(5)]
    slow = record_run(tmp_path / "runs", 50, Truth(scale=1.4, between=0.01, requests=500, gaps=3)).path
    baseline = tmp_path / "baseline.json"

    assert overproof("baseline", *base, "--out", baseline).returncode == 0
    worse = overproof("compare", baseline, slow)
    unclear = overproof("compare", base[0], base[1])
    same = overproof("compare", *base[:4], base[4], "--margin-pct", "90", "--json")
    folder = overproof("compare", tmp_path / "runs", slow)

    assert (worse.returncode, "▼ WORSE" in worse.stdout) == (1, True), worse.stdout
    assert (unclear.returncode, "one base run" in unclear.stdout) == (3, True)
    assert folder.returncode == 1
    assert "5 runs from" in folder.stdout
    document = json.loads(same.stdout)
    assert document["schema_version"] == 1
    latencies = [c["direction"] for c in document["changes"] if c["unit"] == "ms"]
    assert set(latencies) == {"same"}


@pytest.mark.parametrize("names", [["a"], ["a", "nowhere"], ["a", "a"]])
def test_a_wrong_call_is_a_usage_error(names: list[str], tmp_path: Path) -> None:
    path = record_run(tmp_path, 1, CALM).path
    done = overproof("compare", *[path if name == "a" else tmp_path / name for name in names])

    assert done.returncode == 2
    assert done.stderr.startswith("overproof: ")


@pytest.mark.parametrize("text", TEXTS)
def test_hostile_names_stay_in_their_place(text: str) -> None:
    comparison = compare(
        [figures(CALM, 1, endpoint=text, problems=[])], figures(CALM, 2, problems=[text], host=text)
    )
    markdown, lines = render_markdown_table(comparison), list(render_lines(comparison))

    assert "<script" not in markdown.replace("\\<", "")
    assert not any("\x1b" in line or "\n" in line for line in lines)
    assert json.loads(json.dumps(comparison_document(comparison)))["obstacles"]

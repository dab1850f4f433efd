"""A baseline that a workload names: a regression fails, and a missing baseline is no pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.rules.regression import EVENT, FILE, judge_baseline, keep_baseline
from loadtests.spec.baseline import BaselineSpec
from loadtests.spec.workload import load_workload
from probes.errors import ConfigError
from probes.finding import Finding, verdict
from probes.outcome import Outcome
from reports.record import create_run
from reports.run import FINISHED, Run, load_run
from reports.run_figures import baseline_document, read_figures
from reports.table import read_requests
from tests.reports.load_runs import SPEC, Truth, record_run, simulate
from tests.reports.recorded import finding, write_requests

CALM = Truth(between=0.005, requests=600)
GOOD = [finding("lateness", "client:load", Outcome.PASS)]


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed file of five good runs."""
    out = tmp_path_factory.mktemp("base")
    runs = [read_figures(record_run(out, seed, CALM)) for seed in range(5)]
    (out / "chat.json").write_text(json.dumps(baseline_document(runs)))
    return out / "chat.json"


def judged(
    out: Path, baseline: Path, truth: Truth, *, findings: list[Finding] | None = None, **spec: object
) -> list[Finding]:
    """Record a run of a workload with a baseline, as a load run does, and judge it from its record."""
    said = {"file": str(baseline)} | spec
    with create_run(out, kind="load", spec=SPEC | {"baseline": said}, seed=9) as writer:
        keep_baseline(BaselineSpec.model_validate(said), writer)
        write_requests(writer.path, list(simulate(truth, 99)))
        writer.event("controller", FINISHED)
    run = load_run(writer.path)
    return judge_baseline(run, read_requests(run.path), GOOD if findings is None else findings)


def outcomes(findings: list[Finding]) -> dict[str, Outcome | None]:
    return {finding.subject: finding.outcome for finding in findings}


def test_what_got_slower_fails_by_name_and_says_by_how_much(baseline: Path, tmp_path: Path) -> None:
    findings = judged(tmp_path, baseline, Truth(scale=1.3, between=0.005, requests=600))
    slower = next(finding for finding in findings if finding.subject == "figure:itl_ms_p50")

    assert slower.outcome is Outcome.FAIL
    assert "in 5 base runs: +2" in slower.observed
    assert "overproof compare" in slower.next_step


def test_what_stayed_passes(baseline: Path, tmp_path: Path) -> None:
    findings = judged(tmp_path, baseline, CALM, figures=["itl_ms_p50", "error_share"])

    assert outcomes(findings) == {"figure:itl_ms_p50": Outcome.PASS, "figure:error_share": Outcome.PASS}


def test_what_got_faster_passes(baseline: Path, tmp_path: Path) -> None:
    faster = Truth(scale=0.7, between=0.005, requests=600)

    assert outcomes(judged(tmp_path, baseline, faster, figures=["itl_ms_p50"])) == {
        "figure:itl_ms_p50": Outcome.PASS
    }


def test_a_missing_baseline_is_undecided_with_the_command_that_makes_one(tmp_path: Path) -> None:
    [missing] = judged(tmp_path, tmp_path / "nowhere.json", CALM)

    assert missing.outcome is Outcome.INCONCLUSIVE
    assert "nowhere.json" in missing.observed
    assert "overproof baseline" in missing.next_step


@pytest.mark.parametrize("text", ["", "{", '{"runs": 3}', '{"schema_version": 7, "runs": [1]}'])
def test_a_broken_baseline_is_undecided(text: str, tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(text)

    assert verdict(judged(tmp_path, tmp_path / "b.json", CALM)) is Outcome.INCONCLUSIVE


def test_a_baseline_of_another_load_is_undecided_and_the_difference_named(tmp_path: Path) -> None:
    other = SPEC | {"arrivals": {"kind": "poisson", "rate_per_s": 70.0}}
    [undecided] = judged(tmp_path, record_run(tmp_path / "other", 1, CALM, spec=other).path, CALM)

    assert undecided.outcome is Outcome.INCONCLUSIVE
    assert "arrivals.rate_per_s (70.0, 50.0)" in undecided.observed


def test_a_figure_that_was_asked_for_and_is_not_there_is_undecided(baseline: Path, tmp_path: Path) -> None:
    found = outcomes(judged(tmp_path, baseline, CALM, figures=["itl_ms_p50", "correctness"]))

    assert found == {"figure:itl_ms_p50": Outcome.PASS, "baseline:chat.json": Outcome.INCONCLUSIVE}


def test_an_overloaded_client_neither_fails_nor_passes_beside_a_baseline(
    baseline: Path, tmp_path: Path
) -> None:
    late = [finding("client-lag", "client:load", Outcome.INCONCLUSIVE, "data waited 200 ms")]
    [undecided] = judged(tmp_path, baseline, Truth(scale=3.0), findings=late)

    assert undecided.outcome is Outcome.INCONCLUSIVE
    assert "data waited 200 ms" in undecided.observed


def test_a_run_can_be_judged_again_after_the_baseline_file_has_gone(baseline: Path, tmp_path: Path) -> None:
    copy = tmp_path / "b.json"
    copy.write_text(baseline.read_text())
    judged(tmp_path / "runs", copy, Truth(scale=1.3, between=0.005, requests=600))
    copy.unlink()
    run: Run = load_run(tmp_path / "runs" / "latest")
    again = judge_baseline(run, read_requests(run.path), GOOD)

    assert verdict(again) is Outcome.FAIL
    assert (run.path / FILE).exists()
    assert len(run.events_of(EVENT)[0].data["runs"]) == 5


def test_a_workload_names_its_baseline_in_short_or_in_full(tmp_path: Path) -> None:
    text = "name: x\narrivals: {kind: constant, rate_per_s: 1}\nduration_s: 1\n"
    (tmp_path / "short.yaml").write_text(text + "baseline: b.json\n")
    (tmp_path / "full.yaml").write_text(
        text + "baseline: {file: b.json, figures: [goodput], margin_pct: 3}\n"
    )
    (tmp_path / "wrong.yaml").write_text(text + "baseline: {file: b.json, figures: [speed]}\n")
    short, full = (
        load_workload(tmp_path / "short.yaml").baseline,
        load_workload(tmp_path / "full.yaml").baseline,
    )

    assert short == BaselineSpec(file=str(tmp_path / "b.json"))
    assert full is not None
    assert (full.figures, full.margin_pct) == (("goodput",), 3)
    with pytest.raises(ConfigError, match="'speed' is unknown; one of ttft_ms_p50"):
        load_workload(tmp_path / "wrong.yaml")

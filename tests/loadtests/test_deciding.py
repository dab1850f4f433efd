"""Runs that end once they are decided, and what is told of their size before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.rules.deciding import DECIDED, Looks, ended_so_far
from loadtests.rules.verdict_size import EVENT, count_requests, verdict_sizes
from loadtests.spec.workload import WorkloadSpec, load_workload
from probes.errors import ConfigError
from probes.outcome import Outcome
from reports.record import create_run
from reports.run import load_run
from tests.loadtests.endpoints import endpoint
from tests.probes.rows import answered, failed

TEXT = """
name: decided
arrivals: {kind: constant, rate_per_s: 150}
duration_s: 2
until_decided: {duration_s_max: 40}
calibration: {is_skipped: true}
prompt:
  input_tokens: {kind: constant, value: 16}
  output_tokens: {kind: constant, value: 2}
slos: [{metric: goodput, objective: 0.9}]
"""


def spec(**changes: object) -> WorkloadSpec:
    data = {
        "name": "t",
        "arrivals": {"kind": "constant", "rate_per_s": 10},
        "duration_s": 10,
        "until_decided": {"duration_s_max": 100},
        "slos": [{"metric": "ttft_ms", "statistic": "p90", "bound": 200}],
    }
    return WorkloadSpec.model_validate(data | changes)


def test_only_requests_before_the_first_that_has_not_ended_are_looked_at() -> None:
    rows = [answered(3), answered(0), answered(1), answered(5)]

    assert [row.index for row in ended_so_far(rows)] == [0, 1]
    assert ended_so_far([answered(1)]) == []


def test_a_look_ends_the_run_only_when_every_promise_is_decided(tmp_path: Path) -> None:
    writer = create_run(tmp_path, kind="load", spec={}, seed=1)
    rows = writer.path / "requests" / "worker-0.ndjson"
    rows.parent.mkdir(exist_ok=True)
    names = answered().__dataclass_fields__

    def write(count: int) -> None:
        found = [answered(i) for i in range(count)]
        rows.write_text("".join(json.dumps({n: getattr(r, n) for n in names}) + "\n" for r in found))

    looks = Looks(spec().to_workload())
    write(200)
    assert not looks.is_over(writer.path, 9)  # before the first look
    write(20)
    assert not looks.is_over(writer.path, 10)
    write(200)
    assert not looks.is_over(writer.path, 11)  # not time for another
    assert looks.is_over(writer.path, 13)
    assert not Looks(spec(until_decided=None).to_workload()).is_over(writer.path, 1000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"until_decided": {"duration_s_max": 10}},
        {"arrivals": {"kind": "closed", "users": 2}},
        {"session": {}},
        {"warm_up": {"seconds": 3, "is_found": True}},
        {"warm_up": {}},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"until_decided|either seconds"):
        spec(**wrong)


def test_the_size_of_a_verdict_is_told_with_its_time_at_this_rate() -> None:
    workload = spec().to_workload()

    (size,) = verdict_sizes(workload, requests=count_requests(workload, seed=1))

    assert size.at_least == 29
    assert size.needed[0] < size.needed[1] < size.needed[2]
    assert size.seconds[0] == pytest.approx(size.needed[0] / 10, rel=0.01)
    closed = spec(arrivals={"kind": "closed", "users": 2}, until_decided=None).to_workload()
    assert count_requests(closed, seed=1) is None
    assert verdict_sizes(closed, requests=None)[0].seconds == (None, None, None)


def test_presets_and_openslo_files_are_written_out_in_a_workload(tmp_path: Path) -> None:
    (tmp_path / "slos").mkdir()
    (tmp_path / "slos" / "chat.yaml").write_text(
        "apiVersion: openslo/v1\nkind: SLO\nmetadata: {name: whole}\nspec:\n  budgetingMethod: Occurrences\n"
        "  indicator:\n    metadata: {name: e}\n    spec: {thresholdMetric: {metricSource: {type: x}}}\n"
        "  objectives: [{value: 9, target: 0.9}]\n"
    )
    path = tmp_path / "workload.yaml"
    promises = "slos: [{preset: agents}, {openslo: slos/chat.yaml, metrics: {e: e2e_ms in s}}]"
    path.write_text(TEXT.replace("slos: [{metric: goodput, objective: 0.9}]", promises))

    loaded = load_workload(path)

    assert [slo.name for slo in loaded.to_workload().slos] == ["e2e_ms_p99", "whole"]
    assert all(one.preset is None and one.openslo is None for one in loaded.slos)
    path.write_text(path.read_text().replace("e2e_ms in s", "e2e in s"))
    with pytest.raises(ConfigError, match=r"chat\.yaml:4"):
        load_workload(path)
    path.write_text(TEXT.replace("slos: [{metric: goodput, objective: 0.9}]", "slos: [{preset: agentz}]"))
    with pytest.raises(ConfigError, match=r"workload\.yaml:10: slos\.0.*agentz"):
        load_workload(path)


def test_a_run_goes_on_beyond_its_duration_until_it_is_decided_and_no_longer(tmp_path: Path) -> None:
    workload = tmp_path / "workload.yaml"
    workload.write_text(TEXT.replace("rate_per_s: 150", "rate_per_s: 12"))  # 24 requests do not decide
    with endpoint("--decode-step-ms", "4", "--slots", "64") as running:
        command = [sys.executable, "-P", "-m", "overproof", "load", "run", str(workload)]
        done = subprocess.run(
            [*command, "--endpoint", running.url, "--path", str(tmp_path / "run")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    run = load_run(tmp_path / "run")
    promise = next(f for f in run.findings if f.rule == "slo")
    assert promise.outcome is Outcome.PASS, done.stderr
    assert promise.evidence["is_peeked"]
    (decided,) = run.events_of(DECIDED)
    assert 2 < decided.data["after_s"] < 20
    assert next(f for f in run.findings if f.rule == "accounting").outcome is Outcome.PASS
    assert run.events_of(EVENT)[0].data["promises"][0]["at_least"] == 29
    assert "decide a truth 20 % off the limit" in done.stderr


def test_failures_at_a_look_are_not_forgotten() -> None:
    from probes.slo import is_decided

    slos = spec().to_workload().slos
    assert is_decided(slos, [("", [failed(i) for i in range(40)])])
    assert not is_decided(slos, [("", [answered(i) for i in range(20)])])

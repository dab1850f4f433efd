"""However a job ends, its record is closed, judged and rendered."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.errors import Interrupted, RecordError, TargetError
from probes.finding import Finding
from probes.outcome import Outcome
from reports.record import create_run
from reports.run import Run, load_run
from reports.session import recording, rejudge
from tests.reports.recorded import finding


def judge_pass(run: Run) -> list[Finding]:
    return [finding("slo", "slo:x", Outcome.PASS, f"{len(run.events)} events")]


def judge_broken(run: Run) -> list[Finding]:
    raise KeyError(f"{len(run.events)}")


def by_rule(run: Run) -> dict[str, Finding]:
    return {f.rule: f for f in run.findings}


def test_a_run_that_reaches_its_end_is_sealed_judged_and_published(tmp_path: Path) -> None:
    with recording(create_run(tmp_path, kind="load", spec={}, seed=0), judge_pass) as writer:
        writer.sample("gpu", {"t_ns": 1})

    run = load_run(writer.path)
    assert (run.state, run.outcome) == ("finished", Outcome.PASS)
    assert by_rule(run)["completeness"].observed == "ran to its end"
    names = {path.name for path in run.path.rglob("*")}
    assert {"gpu.parquet", "report.html", "junit.xml", "summary.md"} <= names
    assert not {".reserve", "gpu.ndjson"} & names


def test_an_error_within_a_step_of_a_search_names_the_record_of_the_search(tmp_path: Path) -> None:
    whole = create_run(tmp_path, kind="findmax", spec={}, seed=0)
    step = create_run(whole.path, kind="load", spec={}, seed=0)

    with (
        pytest.raises(TargetError) as caught,
        recording(whole, judge_pass),
        recording(step, judge_pass),
    ):
        raise TargetError("cannot be reached")

    assert caught.value.__notes__ == [f"record: {whole.path}"]


@pytest.mark.parametrize(
    ("error", "state", "observed"),
    [
        (Interrupted("SIGTERM"), "interrupted", "interrupted: SIGTERM"),
        (KeyboardInterrupt(), "interrupted", "interrupted: SIGINT"),
        (TargetError("gpu-1: fell off"), "stopped", "stopped: gpu-1: fell off"),
        (RecordError("disk is full"), "stopped", "stopped: disk is full"),
        (ZeroDivisionError("oops"), "crashed", "crashed: ZeroDivisionError: oops"),
    ],
)
def test_whatever_ends_a_run_is_in_its_record_and_never_a_pass(
    error: BaseException, state: str, observed: str, tmp_path: Path
) -> None:
    writer = create_run(tmp_path, kind="load", spec={}, seed=0)

    with pytest.raises(type(error)) as caught, recording(writer, judge_pass):
        raise error

    run = load_run(writer.path)
    assert caught.value.__notes__ == [f"record: {writer.path}"]
    assert (run.state, run.outcome) == (state, Outcome.INCONCLUSIVE)
    assert by_rule(run)["completeness"].observed == observed
    assert by_rule(run)["slo"].outcome is Outcome.PASS
    assert (run.path / "report.html").exists()


def test_a_rule_that_breaks_is_inconclusive_and_hides_nothing(tmp_path: Path) -> None:
    with recording(create_run(tmp_path, kind="load", spec={}, seed=0), judge_broken) as writer:
        pass

    run = load_run(writer.path)
    assert run.outcome is Outcome.INCONCLUSIVE
    assert by_rule(run)["judging"].observed == "a rule broke: KeyError: '1'"
    assert "judge_broken" in by_rule(run)["judging"].evidence["trace"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("events.ndjson", "lines of the record cannot be read: 1 in events.ndjson"),
        ("series/gpu.ndjson", "lines of the record cannot be read: 1 in series/gpu"),
    ],
)
def test_a_lost_line_is_never_a_pass(name: str, said: str, tmp_path: Path) -> None:
    with recording(create_run(tmp_path, kind="load", spec={}, seed=0), judge_pass) as writer:
        writer.sample("gpu", {"t_ns": 1})
        writer.append_line(name, '{"t_ns": 2, "xid": 7\n')

    run = load_run(writer.path)
    assert run.outcome is Outcome.INCONCLUSIVE
    assert by_rule(run)["completeness"].observed == said


def test_judging_again_replaces_the_findings_and_finds_the_lost_line_again(tmp_path: Path) -> None:
    with recording(create_run(tmp_path, kind="load", spec={}, seed=0), judge_broken) as writer:
        writer.append_line("series/gpu.ndjson", "torn\n")

    rejudge(load_run(writer.path), judge_pass)

    run = load_run(writer.path)
    assert sorted(by_rule(run)) == ["completeness", "slo"]
    assert run.outcome is Outcome.INCONCLUSIVE

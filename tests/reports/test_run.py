"""A run opened for reading says how it ended, and never better than it was."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from probes.event import Event, to_json_line
from probes.finding import finding_to_json
from probes.outcome import Outcome
from reports.record import RunHeader, create_run
from reports.run import CRASHED, FINISHED, INTERRUPTED, STOPPED, Run, load_run
from tests.reports.recorded import finding


def recorded(out: Path, *kinds: str, outcomes: tuple[Outcome | None, ...] = (Outcome.PASS,)) -> Run:
    with create_run(out, kind="load", spec={}, seed=0) as writer:
        for kind in kinds:
            writer.event("controller", kind)
        writer.write_findings([finding("slo", f"slo:{n}", outcome) for n, outcome in enumerate(outcomes)])
    return load_run(writer.path)


def with_dead_process(run: Run) -> Run:
    dead = dataclasses.replace(run.header, pid_start_time=1)
    values = {name: getattr(dead, name) for name in RunHeader.__slots__}
    (run.path / "run.json").write_text(to_json_line(values))
    return load_run(run.path)


@pytest.mark.parametrize(
    ("kinds", "state"),
    [
        ((FINISHED,), "finished"),
        ((INTERRUPTED,), "interrupted"),
        ((STOPPED,), "stopped"),
        ((CRASHED,), "crashed"),
        ((FINISHED, CRASHED), "crashed"),
        ((), "running"),
    ],
)
def test_a_run_says_how_it_ended(kinds: tuple[str, ...], state: str, tmp_path: Path) -> None:
    run = recorded(tmp_path, *kinds)

    assert run.state == state
    assert run.outcome is (Outcome.PASS if state == "finished" else Outcome.INCONCLUSIVE)


def test_a_run_whose_process_is_gone_was_interrupted_though_nothing_says_so(tmp_path: Path) -> None:
    assert with_dead_process(recorded(tmp_path)).state == "interrupted"


def test_a_failure_stands_even_when_the_run_did_not_finish(tmp_path: Path) -> None:
    assert recorded(tmp_path, INTERRUPTED, outcomes=(Outcome.FAIL, Outcome.PASS)).outcome is Outcome.FAIL


def test_a_finished_run_without_findings_is_inconclusive(tmp_path: Path) -> None:
    assert recorded(tmp_path, FINISHED, outcomes=()).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    "line",
    [
        to_json_line(finding_to_json(finding("ecc", "gpu:1", Outcome.FAIL)))[:-20],
        "garbled\n",
        '{"rule":"ecc"}\n',
        '{"rule":"ecc","subject":"s","outcome":"maybe","observed":"","expected":""}\n',
        '["a"]\n',
    ],
)
def test_a_finding_that_cannot_be_read_is_undecided_never_dropped(line: str, tmp_path: Path) -> None:
    run = recorded(tmp_path, FINISHED)
    with (run.path / "findings.ndjson").open("a") as file:
        file.write(line)

    again = load_run(run.path)

    assert again.outcome is Outcome.INCONCLUSIVE
    assert again.findings[-1].observed == "1 lines of findings.ndjson cannot be read"


def test_the_timeline_is_in_order_with_other_clocks_corrected(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="burnin", spec={}, seed=0) as writer:
        values = {name: getattr(writer.header, name) for name in RunHeader.__slots__}
        (writer.path / "run.json").write_text(to_json_line(values | {"clock_offset_s": {"node": 2.0}}))
        for t_s, host, kind in ((5, "node", "b"), (4, "here", "c"), (1, "here", "a")):
            writer.append_event(Event(t_ns=t_s * 10**9, host=host, source="x", kind=kind))

    events = load_run(writer.path).events

    assert [(event.kind, event.t_ns) for event in events] == [
        ("a", 10**9),
        ("b", 3 * 10**9),
        ("c", 4 * 10**9),
    ]


def test_torn_and_garbled_lines_are_passed_over_and_the_rest_is_read(tmp_path: Path) -> None:
    run = recorded(tmp_path, "first")
    nested = "[" * 100_000
    with (run.path / "events.ndjson").open("ab") as file:
        file.write(b"\xff\xfe\n[1]\n" + nested.encode() + b'\n{"t_ns":1}\n')
        file.write(b'{"t_ns":1,"host":"a","source":"b","kind":"last"}\n{"t_ns":1,"ho')

    assert {event.kind for event in load_run(run.path).events} == {"first", "last"}

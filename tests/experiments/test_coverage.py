"""What a record shows: only a fault that was seen on its target, and a finding that says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import overproof
from burnin.coverage import shown_by as shown_by_burnin
from experiments.coverage import injections, shown_by
from experiments.faults.fault import FAULTS, load_fault
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.coverage_runs import gather, open_runs
from reports.record import create_run, write_findings
from reports.run import FINISHED, Run, load_run

VICTIM: JsonObject = {"victims": [{"name": "replica-1", "pid": 11, "start_time": 110}]}
GATEWAY: JsonObject = {"victims": [], "trouble": {"kind": "reset"}}
PASSED = tuple(
    Finding(rule=rule, subject="endpoint:x", outcome=Outcome.PASS, observed="", expected="")
    for rule in ("detection", "recovery", "redundancy")
)


def changed(rule: str, outcome: Outcome | None, subject: str = "endpoint:x") -> tuple[Finding, ...]:
    """The findings of a good day, one of them another, or one more."""
    others = tuple(finding for finding in PASSED if finding.rule != rule)
    return (*others, replace(PASSED[0], rule=rule, outcome=outcome, subject=subject))


def day(
    out: Path,
    *faults: tuple[str, JsonObject],
    findings: tuple[Finding, ...] = PASSED,
    is_verified: bool = True,
    end: str = FINISHED,
) -> Run:
    """The record of a game day with these faults, a second apart."""
    writer = create_run(out, kind="gameday", spec={}, seed=1)
    for number, (name, captured) in enumerate(faults):
        fault = load_fault(name)
        named = {"id": str(number), "fault": name, "fidelity": fault.fidelity, "ends_by": fault.ends_by}
        named |= {"subject": "replica:replica-1"}
        writer.event("fault", "fault.armed", **named, captured=captured)
        writer.event("fault", "fault.injected", **named, t_inject_ns=1_000_000_000 * (number + 1))
        kind = "fault.verified" if is_verified else "fault.not_verified"
        writer.event("fault", kind, **named, observed="seen")
    if end:
        writer.event("controller", end)
    write_findings(writer.path, findings)
    writer.close()
    return load_run(writer.path)


def said(run: Run) -> set[tuple[str, str]]:
    return {(one.category, one.how) for one in shown_by(run)}


KILLED = ("replica.kill", VICTIM)
HEALED = ("software-crash", "healed by the lab's supervisor")


def test_a_day_on_which_all_went_well_shows_that_it_was_found_and_healed(tmp_path: Path) -> None:
    assert said(day(tmp_path, KILLED)) == {("software-crash", "found by detection"), HEALED}


def test_a_fault_that_was_not_seen_on_its_target_shows_nothing(tmp_path: Path) -> None:
    assert said(day(tmp_path, KILLED, is_verified=False)) == set()


def test_a_day_that_failed_shows_what_was_found_and_not_that_it_was_healed(tmp_path: Path) -> None:
    run = day(tmp_path, ("replica.hang", VICTIM), findings=changed("redundancy", Outcome.FAIL))

    assert said(run) == {("hang", "found by detection")}


def test_without_traffic_being_whole_again_is_what_shows_the_healing(tmp_path: Path) -> None:
    whole = tuple(finding for finding in PASSED if finding.rule == "redundancy")

    assert said(day(tmp_path / "1", KILLED, findings=whole)) == {HEALED}
    assert said(day(tmp_path / "2", KILLED, findings=changed("recovery", Outcome.FAIL))) == {
        ("software-crash", "found by detection")
    }
    assert said(day(tmp_path / "3", KILLED, findings=PASSED[:2])) == {
        ("software-crash", "found by detection")
    }


def test_a_fault_that_nobody_noticed_was_not_found(tmp_path: Path) -> None:
    assert said(day(tmp_path, KILLED, findings=changed("detection", Outcome.INCONCLUSIVE))) == {HEALED}


def test_what_only_our_undo_ends_was_not_healed(tmp_path: Path) -> None:
    assert said(day(tmp_path, ("replica.slow", VICTIM))) == {("straggler", "found by detection")}


def test_of_troubles_at_the_gateway_only_the_one_of_that_day_is_shown(tmp_path: Path) -> None:
    assert said(day(tmp_path, ("gateway.trouble", GATEWAY))) == {("mid-stream-cut", "found by detection")}


def test_wrong_answers_are_shown_by_the_rule_that_names_the_victim_only(tmp_path: Path) -> None:
    wrong = ("replica.wrong", VICTIM)
    another = changed("replica-answers", Outcome.FAIL, "replica:replica-0")
    named = changed("replica-answers", Outcome.FAIL, "replica:replica-1")

    assert said(day(tmp_path / "noticed", wrong)) == set()
    assert said(day(tmp_path / "another", wrong, findings=another)) == set()
    assert said(day(tmp_path / "named", wrong, findings=named)) == {
        ("wrong-answers", "found by replica-answers")
    }


def test_of_several_faults_only_the_first_counts_as_noticed(tmp_path: Path) -> None:
    run = day(tmp_path, ("replica.slow", VICTIM), ("replica.hang", VICTIM))

    assert said(run) == {
        ("straggler", "found by detection"),
        ("hang", "healed by the lab's liveness check"),
    }


def test_a_fault_of_somebody_elses_covers_nothing_that_we_know(tmp_path: Path) -> None:
    assert said(day(tmp_path, ("declared", {}))) == set()


def test_a_run_that_nobody_judged_or_that_did_not_end_is_told_and_not_counted(tmp_path: Path) -> None:
    good = day(tmp_path, KILLED)
    unjudged = day(tmp_path, KILLED, findings=())
    broken_off = day(tmp_path, KILLED, end="run.interrupted")
    load = create_run(tmp_path, kind="load", spec={}, seed=1)
    load.close()
    gathered = gather(open_runs([tmp_path]), {"gameday": shown_by})
    reasons = dict(text.split(": ", 1) for text in gathered.not_counted)

    assert gathered.runs == (good.header.id,)
    assert {one.run for one in gathered.shown} == {good.header.id}
    assert "nobody has judged it" in reasons[unjudged.path.name]
    assert "did not reach its end: interrupted" in reasons[broken_off.path.name]
    assert "a load run breaks nothing" in reasons[load.path.name]


def control(seed: str, fidelity: str = "end to end", outcome: Outcome = Outcome.PASS) -> Finding:
    return Finding(
        rule="control",
        subject=f"detector:{seed}",
        outcome=outcome,
        observed="",
        expected="",
        evidence={"proves": "exact", "fidelity": fidelity},
    )


def burnin(out: Path, *findings: Finding, kind: str = "cpu") -> set[tuple[str, str]]:
    writer = create_run(out, kind="burnin", spec={}, seed=1)
    writer.event("agent", "inventory", device_kind=kind, devices=[])
    writer.event("controller", FINISHED)
    write_findings(writer.path, findings)
    writer.close()
    return {(one.category, one.fidelity) for one in shown_by_burnin(load_run(writer.path))}


def test_a_seeded_fault_counts_as_a_process_fault_where_it_was_really_planted(tmp_path: Path) -> None:
    seed = "matmul: bit flip in a product"

    assert burnin(tmp_path / "1", control(seed)) == {("silent-corruption", "P")}
    assert burnin(tmp_path / "2", control(seed, "parser only")) == set()
    assert burnin(tmp_path / "3", control(seed, outcome=Outcome.FAIL)) == set()


def test_a_bit_that_flips_on_cores_says_nothing_of_a_gpus_memory(tmp_path: Path) -> None:
    seeds = control("memory: bit flip in memory"), control("links: bit flip in a received buffer")

    assert burnin(tmp_path / "1", *seeds) == {("cpu-or-host-memory", "P")}
    assert burnin(tmp_path / "2", *seeds, kind="cuda") == {("gpu-memory", "P"), ("nvlink", "P")}
    assert burnin(tmp_path / "3", *seeds, kind="") == set()


def test_every_fault_of_ours_can_be_counted() -> None:
    named = {injection.fault for injection in injections()}

    assert named == set(FAULTS) - {"declared"}


def shares(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, JsonObject]:
    status = overproof.run_command(["coverage", "--json", *arguments])
    document: JsonObject = json.loads(capsys.readouterr().out)
    return status, document


def test_nine_tenths_of_llama_3s_interruptions_can_be_found_or_brought_about(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, document = shares(capsys, "--table", "llama3")
    (table,) = document["tables"]
    gaps = {r["cause"] for r in table["rows"] if not r["is_detectable"] and not r["is_injectable"]}

    assert status == 0
    assert table["detectable_or_injectable_share"] >= 0.9
    assert gaps <= {"Dependency"}
    assert table["shown_share"] == 0


def test_runs_raise_what_is_shown_and_a_least_share_makes_an_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    day(tmp_path, KILLED)

    status, document = shares(capsys, str(tmp_path), "--table", "llama3", "--shown-min-pct", "12")
    too_much, _ = shares(capsys, str(tmp_path), "--table", "llama3", "--shown-min-pct", "13")

    assert (status, too_much) == (0, 1)
    assert document["tables"][0]["shown_share"] == pytest.approx(54 / 419)
    assert len(document["runs"]) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [("nowhere", "no such folder"), ("empty", "neither a run nor"), ("runs", "not JSON")],
)
def test_what_is_no_run_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str, text: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "runs" / "broken").mkdir(parents=True)
    (tmp_path / "runs" / "broken" / "run.json").write_text("{")

    status = overproof.run_command(["coverage", str(tmp_path / path)])

    assert status == 2
    assert text in capsys.readouterr().err

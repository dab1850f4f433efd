"""Findings of repeated stages become one, with the cycle that decided."""

from __future__ import annotations

from burnin.rules.cycles import merge_cycles
from probes.finding import Finding
from probes.outcome import Outcome

PASS, FAIL, UNDECIDED = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def _finding(outcome: Outcome | None, observed: str = "x", rule: str = "exact") -> Finding:
    return Finding(rule=rule, subject="gpu:GPU-1", outcome=outcome, observed=observed, expected="y")


def test_a_fault_in_cycle_17_only_fails_and_its_cycle_is_named() -> None:
    cycles = [[_finding(PASS, "all right")] for _ in range(24)]
    cycles[16] = [_finding(FAIL, "one wrong element")]
    (found,) = merge_cycles(cycles)

    assert (found.outcome, found.observed) == (FAIL, "cycle 17 of 24: one wrong element")
    assert found.evidence["cycles"]["fail"] == [17]
    assert len(found.evidence["cycles"]["pass"]) == 23


def test_the_first_of_several_failures_is_told_and_the_others_are_counted() -> None:
    cycles = [[_finding(UNDECIDED)], *([_finding(FAIL, str(n))] for n in range(2, 13))]
    (found,) = merge_cycles(cycles)

    assert found.outcome is FAIL
    assert found.observed == "cycle 2 of 12 (also 3, 4, 5, 6, 7, 8, 9, 10 and 2 more): 2"


def test_a_pass_says_in_how_many_cycles_and_an_undecided_one_takes_it_back() -> None:
    every, some = [[_finding(PASS, "a")], [_finding(PASS, "b")]], [[_finding(PASS, "a")], []]

    assert merge_cycles(every)[0].observed == "in each of 2 cycles, in cycle 2: b"
    assert merge_cycles(some)[0].observed == "in 1 of 2 cycles, in cycle 1: a"
    (found,) = merge_cycles([[_finding(PASS)], [_finding(UNDECIDED)], [_finding(None)]])
    assert (found.outcome, found.observed) == (UNDECIDED, "cycle 2 of 3: x")


def test_what_applies_in_no_cycle_does_not_apply_and_rules_are_kept_apart() -> None:
    assert [f.outcome for f in merge_cycles([[_finding(None)], [_finding(None)]])] == [None]
    both = [[_finding(FAIL), _finding(PASS, rule="speed")]] * 2
    assert [(f.rule, f.outcome) for f in merge_cycles(both)] == [("exact", FAIL), ("speed", PASS)]


def test_a_run_without_cycles_keeps_its_findings_as_they_are() -> None:
    findings = [_finding(FAIL), _finding(None)]

    assert merge_cycles([findings]) == findings

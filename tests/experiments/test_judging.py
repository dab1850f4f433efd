"""The verdict of a game day: each condition of a PASS can fail on its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from experiments.evidence import Evidence
from experiments.impact.recovery import find_times
from experiments.injecting.ledger import ARMED, UNDO_FAILED, UNDONE, VERIFIED, Entry
from experiments.judging import (
    judge_client,
    judge_detection,
    judge_evidence,
    judge_faults,
    judge_method,
    judge_recovery,
    judge_undo,
)
from experiments.lab.judging import judge_collateral, judge_redundancy
from probes.finding import Finding, verdict
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.request import Request
from probes.slo import Slo
from tests.experiments.rows import CAPTURED, T0_NS, at, fault, lab_samples, request, sample, traffic

BEFORE = (Slo(name="goodput", metric="goodput", objective=0.9),)
DURING = (Slo(name="goodput", metric="goodput", objective=0.8),)
AFTER = (Slo(name="goodput", metric="goodput", objective=0.95),)
DONE: JsonObject = {
    "type": "action",
    "name": "kill",
    "phase": "method",
    "status": "succeeded",
    "exception": "",
}


def entry(state: str, **detail: object) -> Entry:
    return Entry(
        id="f1",
        fault="replica.kill",
        subject="replica:replica-1",
        captured=CAPTURED,
        state=state,
        detail=detail,
    )


def client(outcome: Outcome) -> Finding:
    return Finding(rule="client-lag", subject="client:load", outcome=outcome, observed="x", expected="y")


def evidence(
    requests: list[Request] | None = None, samples: list[JsonObject] | None = None, **changes: object
) -> Evidence:
    """A game day on which everything went well, but for what the test changes."""
    cut = [request(-0.1, took_s=0.15, error="cut")]
    rows = [*traffic(-5, 15), *cut] if requests is None else requests
    seen = lab_samples() if samples is None else samples
    times = find_times(rows, seen, faults=[fault()], t_end_ns=at(15), slos=AFTER)
    good = Evidence(
        slos={"before": BEFORE, "during": DURING, "after": AFTER},
        recovery_s=10,
        requests_min=30,
        endpoint="http://127.0.0.1:1",
        requests=rows,
        samples=seen,
        faults=(fault(),),
        times=times,
        entries=[entry(UNDONE, did="nothing to do: the lab restarted it", has_acted=False)],
        activities=[DONE],
        journal={"status": "completed", "deviated": False},
        client=[client(Outcome.PASS)],
        load_state="finished",
    )
    return replace(good, **changes)  # type: ignore[arg-type]


def test_a_good_day_passes_with_every_condition_named() -> None:
    findings = judge_evidence(evidence())

    assert {f.outcome for f in findings} == {Outcome.PASS}
    rules = "client collateral detection fault method recovery redundancy slo traffic undo"
    assert sorted({f.rule for f in findings}) == rules.split()
    assert sum(f.rule == "slo" for f in findings) == 3


@pytest.mark.parametrize(
    ("changed", "rule", "outcome"),
    [
        (evidence(faults=(fault(is_verified=False),)), "fault", Outcome.INCONCLUSIVE),
        (evidence(faults=(), times=None), "fault", Outcome.INCONCLUSIVE),
        (evidence(requests=traffic(-5, 15, every_s=1)), "traffic", Outcome.INCONCLUSIVE),
        (evidence(requests=traffic(-5, 0)), "recovery", Outcome.INCONCLUSIVE),
        (evidence([*traffic(-5, 0), *traffic(0, 15, error="http_5xx")]), "recovery", Outcome.FAIL),
        (evidence([*traffic(-5, 12, every_s=2), *traffic(12, 20)]), "recovery", Outcome.INCONCLUSIVE),
        (evidence([*traffic(-5, 0), *traffic(0, 4, error="cut"), *traffic(4, 15)]), "slo", Outcome.FAIL),
        (evidence([*traffic(-5, 0, error="cut"), *traffic(0, 15)]), "slo", Outcome.FAIL),
        (evidence([*traffic(-5, 9), *traffic(9, 15, error="cut")]), "slo", Outcome.FAIL),
        (evidence(samples=lab_samples(back_after_s=None)), "redundancy", Outcome.FAIL),
        (evidence(samples=lab_samples(back_after_s=12)), "redundancy", Outcome.FAIL),
        (evidence(samples=[]), "redundancy", Outcome.INCONCLUSIVE),
        (evidence(entries=[entry(UNDONE, did="started it", has_acted=True)]), "redundancy", Outcome.FAIL),
        (evidence(entries=[entry(VERIFIED)]), "undo", Outcome.FAIL),
        (evidence(entries=[entry(UNDO_FAILED, did="in vain")]), "undo", Outcome.FAIL),
        (evidence(journal=None), "method", Outcome.INCONCLUSIVE),
        (evidence(journal={"status": "interrupted"}), "method", Outcome.INCONCLUSIVE),
        (evidence(activities=[DONE | {"status": "failed"}]), "method", Outcome.INCONCLUSIVE),
        (evidence(client=[client(Outcome.INCONCLUSIVE)]), "client", Outcome.INCONCLUSIVE),
        (evidence(client=[]), "client", Outcome.INCONCLUSIVE),
        (evidence(load_state="interrupted"), "client", Outcome.INCONCLUSIVE),
    ],
)
def test_each_condition_can_take_the_pass_away(changed: Evidence, rule: str, outcome: Outcome) -> None:
    findings = judge_evidence(changed)
    spoiled = [f for f in findings if f.outcome not in (Outcome.PASS, None)]

    assert verdict(findings) is not Outcome.PASS
    assert (rule, outcome) in {(f.rule, f.outcome) for f in spoiled}
    assert all(f.next_step for f in spoiled)


def test_another_replica_that_died_is_collateral() -> None:
    last = sample(20, "replica-0", 99)  # the same name, another process
    finding = judge_collateral(evidence(samples=[*lab_samples(), last]))

    assert finding.outcome is Outcome.FAIL
    assert finding.observed == "replica-0 was pid 10, is 99"


def test_a_replica_that_nobody_saw_is_not_proven_untouched() -> None:
    only_victim = [row for row in lab_samples() if row["subject"] == "replica:replica-1"]

    assert judge_collateral(evidence(samples=only_victim)).outcome is Outcome.INCONCLUSIVE


def test_a_lab_that_fell_silent_proves_nothing_about_the_others() -> None:
    silent = evidence(samples=[row for row in lab_samples() if row["t_ns"] < at(10)])

    assert judge_collateral(silent).outcome is Outcome.INCONCLUSIVE
    assert judge_redundancy(silent).outcome is Outcome.INCONCLUSIVE


def test_traffic_that_never_got_steady_is_why_nothing_was_injected() -> None:
    seen = evidence(faults=(), times=None, activities=[], journal=None, was_steady=False)

    (finding,) = judge_faults(seen)
    assert finding.outcome is Outcome.INCONCLUSIVE
    assert "not good enough before it" in finding.observed


def test_a_fault_that_no_probe_noticed_is_inconclusive() -> None:
    quiet = [row for row in lab_samples() if row["t_ns"] < T0_NS]

    assert judge_detection(evidence(requests=traffic(-5, 15), samples=quiet)).outcome is Outcome.INCONCLUSIVE


def test_nothing_armed_leaves_nothing_to_undo_and_is_not_a_pass() -> None:
    assert judge_undo([]).outcome is None


def test_an_armed_fault_counts_as_not_undone() -> None:
    assert judge_undo([entry(ARMED)]).outcome is Outcome.FAIL


def test_an_action_that_failed_is_why_nothing_was_injected() -> None:
    refused = DONE | {"status": "failed", "exception": "chaoslib…\nFaultRefused: replica-9 does not serve\n"}
    (finding,) = judge_faults(evidence(faults=(), times=None, activities=[refused]))

    assert "action 'kill' failed: FaultRefused: replica-9 does not serve" in finding.observed


def test_a_gate_that_did_not_hold_is_why_nothing_was_injected() -> None:
    state = {"steady_state_met": False, "probes": [{"activity": {"name": "it answers"}}]}
    journal = {"status": "completed", "steady_states": {"before": state}}
    (finding,) = judge_faults(evidence(faults=(), times=None, activities=[], journal=journal))

    assert "the gate did not hold: 'it answers' was out of tolerance" in finding.observed


def test_the_moments_stand_in_the_evidence_with_their_seconds() -> None:
    moments = judge_recovery(evidence()).evidence

    assert moments["t_inject_ns"] == T0_NS
    assert moments["t_redundant_ns"] == at(4)
    assert {name: moments[f"{name}_s"] for name in ("t_mitigate", "t_recover", "t_redundant")} == {
        "t_mitigate": 0.3, "t_recover": 1.0, "t_redundant": 4.0,
    }  # fmt: skip


def test_chaos_toolkit_calling_it_completed_saves_nothing() -> None:
    seen = evidence(faults=(), times=None, journal={"status": "completed", "deviated": False})

    assert judge_method(seen).outcome is Outcome.PASS
    assert verdict(judge_evidence(seen)) is Outcome.INCONCLUSIVE


def test_a_platform_that_was_given_less_time_than_it_has_is_not_blamed() -> None:
    killed = evidence(
        traffic(-5, 2), [row for row in lab_samples(back_after_s=None) if row["t_ns"] < at(2)]
    )  # fmt: skip
    acted = [entry(UNDONE, did="started it", has_acted=True)]
    stopped = evidence(faults=(fault(undone_s=3.0),), entries=acted)

    for seen in (killed, stopped):
        assert judge_redundancy(seen).outcome is Outcome.INCONCLUSIVE
        assert judge_redundancy(seen).observed.endswith("and was given no more time")


def test_redundancy_and_client_say_what_they_saw() -> None:
    assert judge_redundancy(evidence()).observed == "all replicas served again after 4.00 s, without our help"
    assert judge_client(evidence(load_state="absent")).observed == "the load run is absent"

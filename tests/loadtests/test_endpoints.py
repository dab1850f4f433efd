"""Several endpoints: which arrival goes where, when one is lost and back, and what the rows say of it."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.calibration.need import need_of
from loadtests.plan import LoadPlan, plan_from_json, plan_to_json
from loadtests.processes.worker import Joining, check_secrets
from loadtests.rules.endpoint_judging import (
    groups_of,
    judge_errors_of,
    judge_fail_over,
    judge_parts,
    judge_presence,
    read_outages,
)
from loadtests.rules.outages import is_of_outage, stretch_length
from loadtests.rules.verdict_size import verdict_sizes
from loadtests.search.find_max import check_search
from loadtests.sending.fail_over import FailOver
from loadtests.sending.plain_users import load_plain
from loadtests.sending.routes import Routes
from loadtests.spec.endpoint import FailOverSpec, read_headers
from loadtests.spec.workload import Workload, WorkloadSpec, load_workload, override
from loadtests.traffic.arrivals import CHAIN_STRIDE
from probes.errors import ConfigError
from probes.event import Event
from probes.finding import Finding
from probes.outcome import Outcome
from probes.request import Request
from probes.slo import judge_slos, judge_slos_of

T0_NS = 1_700_000_000_000_000_000
GAP_S = 0.05


def workload(*weights: float, fail_over: dict[str, object] | None = None, **changes: object) -> Workload:
    spec: dict[str, object] = {
        "name": "x",
        "arrivals": {"kind": "poisson", "rate_per_s": 20},
        "duration_s": 60,
        "endpoints": [{"name": name, "weight": weight} for name, weight in zip("abc", weights, strict=False)],
        "fail_over": fail_over,
        "slos": [{"metric": "goodput", "objective": 0.95}],
    }
    return WorkloadSpec.model_validate(spec | changes).to_workload()


def row(index: int, name: str, *, error: str | None = None, planned: str | None = None) -> Request:
    """Return a request that was due every ``GAP_S`` and took 20 ms."""
    due_ns = T0_NS + round(index * GAP_S * 1e9)
    return Request(
        index=index,
        worker=0,
        endpoint=f"http://{name}",
        t_intended_ns=due_ns,
        t_sent_ns=None if error == "refused" else due_ns,
        t_first_ns=due_ns + 10_000_000,
        t_last_ns=due_ns + 20_000_000,
        t_end_ns=due_ns + 20_000_000,
        connect_ms=None,
        status=None if error else 200,
        error=error,
        endpoint_name=name,
        endpoint_planned=planned or name,
    )


def test_arrivals_are_split_by_weight_and_always_alike_for_a_seed() -> None:
    routes = Routes(workload(5, 3, 2), seed=7)

    counts = Counter(routes.planned(index) for index in range(6000))

    wanted = {0: 3000, 1: 1800, 2: 1200}
    chi_square = sum((counts[place] - number) ** 2 / number for place, number in wanted.items())
    assert chi_square < 13.8  # 1 in 1,000 with two degrees of freedom
    assert chi_square > 0.001  # by lot, not dealt out
    again = Routes(workload(5, 3, 2), seed=7)
    assert [again.planned(index) for index in range(200)] == [routes.planned(index) for index in range(200)]
    assert [routes.planned(index) for index in range(12)] == [0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 2, 1]


def test_users_of_a_closed_loop_are_dealt_out_evenly_and_keep_their_endpoint() -> None:
    routes = Routes(workload(2, 1, arrivals={"kind": "closed", "users": 30}), seed=3)

    counts = Counter(routes.planned(user * CHAIN_STRIDE) for user in range(30))

    assert abs(counts[0] - 20) <= 1
    assert {routes.planned(4 * CHAIN_STRIDE + turn) for turn in range(50)} == {
        routes.planned(4 * CHAIN_STRIDE)
    }


def test_a_lost_endpoints_arrivals_go_to_the_others_by_their_weights() -> None:
    routes = Routes(workload(5, 3, 1), seed=1)

    counts = Counter(routes.instead(index, {0}) for index in range(4000))

    assert set(counts) == {1, 2}
    assert abs(counts[1] - 3000) < 140  # five standard deviations


def test_an_endpoint_is_lost_after_so_many_in_a_row_and_any_answer_breaks_the_row() -> None:
    state = FailOver(FailOverSpec(after_failures=3), endpoints=2)

    for index, error in enumerate(["refused", "http_503", "http_5xx", "usage_mismatch", "http_429"]):
        state.note(0, row(index, "a", error=error))
    assert state.lost == set()  # a wrong answer is an answer, and so is a status that is not one of ours
    state.note(0, row(6, "a", error="client_limit"))
    state.note(0, row(7, "a", error="first_byte_timeout"))
    assert state.lost == set()

    failed = state.note(0, row(8, "a", error="reset"))

    assert [one.error for one in failed] == ["http_429", "first_byte_timeout", "reset"]
    assert state.lost == {0}
    assert state.is_anybody_there


def test_a_lost_endpoint_is_back_with_an_answer_and_late_ends_of_before_do_not_lose_it_again() -> None:
    state = FailOver(FailOverSpec(after_failures=1), endpoints=2)
    state.note(0, row(0, "a", error="reset"))

    assert not state.note_probe(0, row(1, "a", error="refused"), now_ns=T0_NS)
    assert state.note_probe(0, row(2, "a", error="usage_mismatch"), now_ns=T0_NS + 10**9)
    assert state.note(0, row(3, "a", error="timeout")) == ()  # due before it was back
    assert state.note(0, row(30, "a", error="timeout"))


# What the record says of an outage: eu (a) goes away between two rows, and its part goes to the others.


def event(kind: str, at_s: float, name: str = "a") -> Event:
    at_ns = T0_NS + round(at_s * 1e9)
    data = {"endpoint": name, "worker": 0, "at_ns": at_ns}
    return Event(t_ns=at_ns, host="h", source="load", kind=kind, data=data)


def outage_rows(
    *, gone: range, lost: range, bad_elsewhere: range = range(0), count: int = 400
) -> list[Request]:
    """Return rows of which those in ``gone`` failed at a, and those in ``lost`` planned for a went to b."""
    found = []
    for index in range(count):
        planned = "a" if index % 2 == 0 else "b"
        name = "b" if index in lost else planned
        is_bad = (index in gone and name == "a") or (index in bad_elsewhere and name == "b")
        found.append(row(index, name, planned=planned, error="refused" if is_bad else None))
    return found


def judged_fail_over(rows: list[Request], *, within_s: float = 5) -> Finding:
    load = workload(1, 1, fail_over={"within_s": within_s})
    events = [event("endpoint.lost", 5.5), event("endpoint.back", 12.0)]
    (found,) = judge_fail_over(load, rows, read_outages(events, rows), t0_ns=T0_NS)
    return found


def test_a_whole_that_is_good_again_in_time_passes_with_its_times() -> None:
    found = judged_fail_over(outage_rows(gone=range(100, 110), lost=range(110, 240)))

    assert found.outcome is Outcome.PASS
    (times,) = found.evidence["outages"]
    assert times == {
        "endpoint": "a",
        "lost_at_s": 5.02,
        "detected_after_s": 0.48,
        "back_after_s": 6.98,
        "recovered_after_s": 0.43,
        "requests_lost": 5,
        "requests_in_that_time": 9,
        "share_lost": 0.5556,
    }


def test_a_whole_that_recovers_too_late_or_not_at_all_fails() -> None:
    late = outage_rows(gone=range(100, 110), lost=range(110, 240), bad_elsewhere=range(100, 300))
    never = outage_rows(gone=range(100, 110), lost=range(110, 240), bad_elsewhere=range(100, 400))

    assert judged_fail_over(late).outcome is Outcome.FAIL
    assert judged_fail_over(late, within_s=20).outcome is Outcome.PASS
    assert judged_fail_over(never).outcome is Outcome.FAIL


def test_a_fail_over_that_nobody_could_see_the_end_of_is_undecided() -> None:
    short = outage_rows(gone=range(100, 110), lost=range(110, 240), bad_elsewhere=range(100, 130), count=135)
    bad_before = outage_rows(gone=range(100, 110), lost=range(110, 240), bad_elsewhere=range(400))

    assert judged_fail_over(short).outcome is Outcome.INCONCLUSIVE
    assert judged_fail_over(bad_before).outcome is Outcome.INCONCLUSIVE


def test_without_a_lost_endpoint_fail_over_does_not_apply() -> None:
    rows = outage_rows(gone=range(0), lost=range(0))

    (found,) = judge_fail_over(workload(1, 1, fail_over={"within_s": 5}), rows, [], t0_ns=T0_NS)

    assert found.outcome is None
    assert judge_fail_over(workload(1, 1, fail_over={}), rows, [], t0_ns=T0_NS) == []


def test_an_objective_that_allows_much_does_not_take_chance_for_recovery() -> None:
    rows = outage_rows(gone=range(100, 300), lost=range(300, 400), count=600)
    events = [event("endpoint.lost", 15.0), event("endpoint.back", 20.0)]
    load = workload(1, 1, fail_over={"within_s": 20}, slos=[], failed_share_max=0.49)

    (found,) = judge_fail_over(load, rows, read_outages(events, rows), t0_ns=T0_NS)

    (times,) = found.evidence["outages"]
    assert times["recovered_after_s"] == pytest.approx(199 * GAP_S - 0.02)  # after the last one that failed
    assert found.outcome is Outcome.PASS


def test_a_stretch_is_so_long_that_the_lost_endpoint_would_show_in_it() -> None:
    assert stretch_length(0.5, allowed=0.0) == 14
    assert stretch_length(0.1, allowed=0.0) == 88
    assert stretch_length(0.001, allowed=0.0) == 9206
    assert 50 < stretch_length(0.5, allowed=0.25) < 65


def test_an_endpoint_that_was_lost_fails_unless_it_may_disappear() -> None:
    rows = outage_rows(gone=range(100, 110), lost=range(110, 400))
    outages = read_outages([event("endpoint.lost", 5.5)], rows)
    endpoints = [{"name": "a", "may_disappear": True}, {"name": "b"}]

    first, second = judge_presence(workload(1, 1, fail_over={}), outages, t0_ns=T0_NS)
    (allowed, _) = judge_presence(workload(fail_over={}, endpoints=endpoints), outages, t0_ns=T0_NS)

    assert (first.outcome, second.outcome) == (Outcome.FAIL, Outcome.PASS)
    assert "and it stayed away" in first.observed
    assert allowed.outcome is Outcome.PASS


def test_what_an_endpoint_leaves_as_it_may_counts_against_the_whole_alone() -> None:
    rows = outage_rows(gone=range(100, 110), lost=range(110, 400))
    rows[20] = replace(rows[20], error="http_5xx", status=500)  # long before
    endpoints = [{"name": "a", "may_disappear": True}, {"name": "b"}]
    load = workload(fail_over={}, endpoints=endpoints, slos=[])
    outages = read_outages([event("endpoint.lost", 5.5)], rows)

    findings = judge_errors_of(groups_of(load, rows, outages, whole="endpoints:all"), load)

    assert [finding.observed for finding in findings] == [
        "6 of 400 requests failed (refused 5, http_5xx 1)",
        "1 of 50 requests failed (http_5xx 1)",
        "0 of 345 requests failed",
    ]


def test_what_was_under_way_as_a_frozen_endpoint_fell_silent_is_of_its_outage() -> None:
    frozen = [
        replace(row(index, "a", error="timeout"), t_end_ns=T0_NS + 8 * 10**9) for index in range(99, 104)
    ]
    earlier = replace(frozen[0], t_last_ns=frozen[0].t_intended_ns - 10**9, t_end_ns=T0_NS + 9 * 10**9)
    sporadic = row(50, "a", error="reset")
    rows = [row(index, "a") for index in range(40)] + [sporadic, row(60, "a"), *frozen, earlier]

    (outage,) = read_outages([event("endpoint.lost", 8.0)], rows)

    assert outage.lost_ns == T0_NS + round(99 * GAP_S * 1e9) + 20_000_000  # the last sign of life
    assert [is_of_outage(one, [outage]) for one in (frozen[0], earlier, sporadic)] == [True, True, False]


def test_parts_are_made_again_from_the_seed_and_whatever_else_is_no_evidence() -> None:
    load = workload(1, 1)
    routes = Routes(load, seed=1)
    rows = [row(index, "ab"[routes.planned(index)]) for index in range(40)]

    kept = judge_parts(load, rows, [], seed=1, wanted=set(range(40)))
    missing = judge_parts(load, rows[:-1], [], seed=1, wanted=set(range(40)))
    other_seed = judge_parts(load, rows, [], seed=2, wanted=set(range(40)))
    moved = [replace(one, endpoint_name="b") for one in rows]
    alone = judge_parts(load, moved, [], seed=1, wanted=None)
    lost = judge_parts(load, moved, [event("endpoint.lost", -1)], seed=1, wanted=None)
    ignored = judge_parts(load, rows, [event("endpoint.lost", 1)], seed=1, wanted=None)
    both = [event("endpoint.lost", 1), event("endpoint.lost", 1, "b")]
    nobody = judge_parts(load, rows, both, seed=1, wanted=None)

    assert {finding.outcome for finding in kept} == {Outcome.PASS}
    assert {finding.subject for finding in kept} == {"endpoint:a", "endpoint:b"}
    for found in (missing, other_seed, alone):
        assert Outcome.INCONCLUSIVE in {finding.outcome for finding in found}
    assert "although a was not lost" in alone[0].observed
    assert {finding.outcome for finding in lost} == {Outcome.PASS}
    assert "which was lost, although another was there" in ignored[0].observed
    assert {finding.outcome for finding in nobody} == {Outcome.PASS}  # each keeps its part


def test_one_of_many_is_failed_only_where_it_would_be_among_all_of_them() -> None:
    load = workload(1, 1, 1)
    rows = [
        row(index, "abc"[index % 3], error="reset" if index in range(0, 24, 3) else None)
        for index in range(225)
    ]
    groups = [("", rows), *((name, [one for one in rows if one.endpoint_name == name]) for name in "abc")]

    alone = judge_slos(load.slos, groups[1][1])
    together = judge_slos_of(load.slos, groups)
    shares = replace(load, failed_share_max=0.05)
    errors = judge_errors_of(groups_of(shares, rows, [], whole="endpoints:all"), shares)

    assert alone[0].outcome is Outcome.FAIL  # 8 of 75 where 3.75 may: p = 0.035
    assert [finding.outcome for finding in together][1] is Outcome.INCONCLUSIVE
    assert errors[1].outcome is Outcome.INCONCLUSIVE
    assert "as one of 4 subjects" in errors[1].observed


def test_the_smallest_part_says_how_many_requests_a_verdict_takes() -> None:
    (one,) = verdict_sizes(workload(), requests=100)
    (several,) = verdict_sizes(workload(9, 1), requests=100)

    assert several.at_least >= 10 * one.at_least - 10
    assert several.needed[0] >= 10 * one.needed[0]  # and it is one of three that may be FAILed


# The file.

GOOD = "name: x\narrivals: {kind: poisson, rate_per_s: 2}\nduration_s: 5\n"
TYPO = "workload.yaml:6: endpoints.1.wieght: unknown key; did you mean 'weight'?"
TWO = "endpoints:\n  - {name: eu, url: 'http://a'}\n  - {name: us, url: 'https://b'}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + TWO.replace("url: 'https://b'", "wieght: 2"), TYPO),
        (GOOD + TWO.replace("url: 'https://b'", "weight: 0"), "workload.yaml:6: endpoints.1.weight: got 0"),
        (GOOD + TWO.replace("https", "ftp"), "workload.yaml:6: endpoints.1.url: got 'ftp://b'"),
        (GOOD + TWO.replace("us", "eu"), "workload.yaml:4: endpoints: "),
        (GOOD + TWO.replace("name: us, ", ""), "endpoints.1.name: this key is missing"),
        (GOOD + "endpoints: [{name: eu}]\n", "a single one stands under endpoint"),
        (GOOD + "endpoint: {url: 'http://a'}\n" + TWO, "with endpoints each has its own url"),
        (GOOD + "fail_over: {}\n", "workload.yaml:4: fail_over: got {}; there is no other endpoint"),
        (GOOD + TWO.replace("us,", "us, may_disappear: true,"), "'us' may disappear, but only with"),
        (GOOD + TWO + "fail_over: {within: 3}\n", "workload.yaml:7: fail_over.within: unknown key"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "workload.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError) as raised:
        load_workload(path)

    assert said in str(raised.value)


def test_each_has_its_own_and_what_is_common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMON", "one")
    monkeypatch.setenv("OWN", "two")
    (tmp_path / "w.yaml").write_text(
        GOOD + "endpoint: {timeout_s: 7, api_key_env: COMMON, headers: {X-A: a, X-B: b}}\n"
        "endpoints:\n  - {name: eu}\n  - {name: us, api_key_env: OWN, ca_file: ca.pem, headers: {x-a: c}}\n"
    )

    spec = load_workload(tmp_path / "w.yaml")
    first, second = spec.named_endpoints

    assert read_headers(first.spec) == {"Authorization": "Bearer one", "X-A": "a", "X-B": "b"}
    assert read_headers(second.spec) == {"Authorization": "Bearer two", "X-B": "b", "x-a": "c"}
    assert (first.spec.timeout_s, second.spec.timeout_s) == (7, 7)
    assert second.spec.ca_file == str(tmp_path / "ca.pem")
    with pytest.raises(ConfigError, match="the workload has 2 endpoints"):
        override(spec, url="http://elsewhere", duration_s=None)


def test_whatever_takes_one_endpoint_refuses_several_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(GOOD + TWO + "slos: [{metric: goodput, objective: 0.9}]\n")

    with pytest.raises(ConfigError, match="endpoints: find-max searches one endpoint at a time"):
        check_search(load_workload(path))
    with pytest.raises(ConfigError, match="endpoints: plain Locust has one"):
        load_plain(str(path), host=None, seed=1, numbers=itertools.count())


def test_a_worker_elsewhere_wants_the_secrets_of_every_endpoint_allowed(tmp_path: Path) -> None:
    endpoints = [{"name": "a", "api_key_env": "A_KEY"}, {"name": "b", "headers": {"X-B": {"env": "B_KEY"}}}]
    data = {"name": "x", "arrivals": {"kind": "poisson", "rate_per_s": 2}, "duration_s": 5}
    spec = WorkloadSpec.model_validate(data | {"endpoints": endpoints})
    plan = LoadPlan(run=tmp_path, spec=spec, seed=1, url="http://a", model="m", others=(("http://b", "n"),))
    joining = Joining(out=tmp_path, envs=("A_KEY",))

    again = plan_from_json(json.loads(json.dumps(plan_to_json(plan))), run=tmp_path)

    assert [(one.endpoint.name, one.url, one.model) for one in again.destinations] == [
        ("a", "http://a", "m"),
        ("b", "http://b", "n"),
    ]
    with pytest.raises(ConfigError, match="--allow-env B_KEY"):
        check_secrets(again, joining)
    check_secrets(again, replace(joining, envs=("A_KEY", "B_KEY")))


def test_a_client_is_certified_over_tls_where_any_endpoint_speaks_it() -> None:
    urls = ("http://a", "https://b")
    load = {"arrivals": {"kind": "constant", "rate_per_s": 100}, "in_flight_max": 100}
    mixed, plain = (
        workload(endpoints=[{"name": n, "url": u} for n, u in zip("ab", pair, strict=True)], **load)
        for pair in (urls, (urls[0], urls[0]))
    )

    needs = [need_of(one, seed=1) for one in (plain, mixed)]

    assert [one.is_tls for one in needs] == [False, True]
    assert needs[0].events_per_s == needs[1].events_per_s
    assert need_of(plain, seed=1).streams == 200  # in_flight_max is of each endpoint

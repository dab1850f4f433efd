"""Guards: a budget is kept before it is spent, and what does not end is ended."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from loadtests.sending.guards import Guards, judge_guards
from loadtests.sending.repetition import is_repeating
from loadtests.sending.spending import Budget, Prices, Spending, Tokens, most
from loadtests.spec.allowed_hosts import check_host
from loadtests.spec.guard import ErrorStormSpec, GuardsSpec
from loadtests.spec.workload import WorkloadSpec
from probes.errors import ConfigError
from probes.event import Event
from probes.finding import Finding
from probes.outcome import Outcome
from probes.request import Request
from probes.slo import Slo
from tests.probes.rows import answered


@dataclass(frozen=True)
class Speaking:
    """An answer under way."""

    events: int
    text: str = ""

    def tail(self, chars: int) -> str:
        return self.text[-chars:]


def row(index: int, *, error: str | None = None, **columns: Any) -> Request:
    return replace(answered(index), error=error, **columns)


def finding(outcome: Outcome | None) -> Finding:
    return Finding(rule="slo", subject="slo:x", outcome=outcome, observed="", expected="")


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(1, 300), st.floats(0, 1), st.booleans())))
def test_spent_and_under_way_together_never_exceed_the_budget(
    requests: list[tuple[int, int, float, bool]],
) -> None:
    spending = Spending(Budget(tokens=5000))
    for index, (body, output, share, ends) in enumerate(requests):
        at_most = most(body_bytes=body, output_tokens=output, choices=1)
        if spending.admit(index, at_most) or not ends:
            continue
        spending.settle(row(index, tokens_in=int(body * share), tokens_out=int(output * share), events=0))

    assert (spending.spent + spending.reserved).total <= 5000
    assert spending.most_committed.total <= 5000


def test_a_request_counts_at_its_maximum_until_usage_says_less_and_free_when_it_was_turned_away() -> None:
    spending = Spending(Budget(tokens=1000))
    at_most = Tokens(sent=300, received=100)

    assert [spending.admit(index, at_most) for index in range(3)] == ["", "", "tokens"]
    spending.settle(row(0, tokens_in=30, tokens_out=10, events=10))
    assert (spending.spent, spending.reserved) == (Tokens(sent=30, received=10), at_most)
    spending.settle(row(1, error="truncated", tokens_in=None, tokens_out=None))
    assert spending.spent == Tokens(sent=330, received=110)
    assert spending.admit(4, at_most) == ""
    spending.settle(row(4, error="http_429", status=429, tokens_in=None, tokens_out=None))
    assert (spending.spent, spending.reserved) == (Tokens(sent=330, received=110), Tokens())


def test_money_is_counted_by_its_prices_and_shared_by_the_workers() -> None:
    budget = Budget(money=1.0, prices=Prices(sent=1.0, received=10.0))

    assert budget.breach(Tokens(sent=1_000_000), workers=1) == ""
    assert budget.breach(Tokens(sent=1_000_000, received=1), workers=1) == "money"
    assert budget.breach(Tokens(received=60_000), workers=2) == "money"


def test_what_was_spent_before_and_the_budget_are_shared_alike_by_the_workers() -> None:
    spendings = [
        Spending(Budget(tokens=900), workers=3, spent=Tokens(sent=100, received=50)) for _ in range(3)
    ]

    assert sum(spending.spent.total for spending in spendings) in range(150, 157)
    assert [spending.admit(0, Tokens(sent=249)) for spending in spendings] == [""] * 3
    assert [spending.admit(1, Tokens(sent=1)) for spending in spendings] == ["tokens"] * 3


def test_an_error_storm_stops_when_it_is_one_and_not_for_the_clients_own_faults() -> None:
    def stop_after(errors: list[str | None]) -> int | None:
        guards = Guards(GuardsSpec(error_storm=ErrorStormSpec(share=0.5, of_last=20)), slos=())
        return next((n for n, error in enumerate(errors) if guards.take(row(n, error=error))), None)

    assert stop_after([None] * 30 + ["http_5xx"] * 30) == 39
    assert stop_after(["http_5xx"] * 30) == 19
    assert stop_after([None, None, "reset"] * 40) is None
    assert stop_after(["client_limit"] * 60) is None
    assert stop_after(["dropped"] * 60) is None


def test_a_guarded_slo_stops_only_when_it_is_broken_for_certain() -> None:
    slo = Slo(name="quick", metric="ttft_ms", bound=100, objective=0.9)
    first_ms = {"quick": 50, "slow": 500}

    def stop_after(kinds: list[str]) -> int | None:
        guards = Guards(GuardsSpec(slos=("quick",)), slos=(slo,))
        sent = 10**18
        for n, kind in enumerate(kinds):
            if guards.take(row(n, t_sent_ns=sent, t_first_ns=sent + first_ms[kind] * 10**6)):
                return n
        return None

    assert stop_after(["slow"] * 300) == 255
    assert stop_after(["quick"] * 300) is None
    assert stop_after((["quick"] * 9 + ["slow"]) * 60) is None
    assert stop_after((["quick"] * 16 + ["slow"] * 4) * 100) in (255, 511, 1023)


def test_an_answer_beyond_its_limit_is_a_runaway_and_one_in_circles_a_repetition() -> None:
    guards = Guards(GuardsSpec(repeats_share=1.0), slos=(), choices=2)
    circles = Speaking(events=150, text=" and then once more" * 40)

    assert guards.look(Speaking(events=216), output_tokens=100, is_watched=False) is None
    fault = guards.look(Speaking(events=217), output_tokens=100, is_watched=False)
    assert fault is not None
    assert fault[0] == "runaway"
    assert guards.look(circles, output_tokens=300, is_watched=False) is None
    fault = guards.look(circles, output_tokens=300, is_watched=True)
    assert fault is not None
    assert fault[0] == "repetition"
    assert guards.watches(1, output_tokens=127) is False
    assert guards.watches(1, output_tokens=128) is True


@given(st.text(alphabet="abc \n", min_size=1, max_size=64), st.text(max_size=300))
def test_what_ends_in_one_piece_over_and_over_is_repeating(piece: str, before: str) -> None:
    assert is_repeating(before + piece * (1 + 512 // len(piece)))


def test_lists_tables_and_prose_are_not_repeating() -> None:
    assert not is_repeating("".join(f"| row {n} | 0 | 0 |\n" for n in range(100)))
    assert not is_repeating(" ".join(str(n) for n in range(1000)))
    assert not is_repeating("and then once more " * 10)
    assert not is_repeating("x" * 512 + "y")


@pytest.mark.parametrize(
    ("guard", "others", "wanted"),
    [
        ("tokens", [Outcome.INCONCLUSIVE], Outcome.INCONCLUSIVE),
        ("money", [Outcome.PASS, Outcome.INCONCLUSIVE], Outcome.INCONCLUSIVE),
        ("tokens", [Outcome.PASS, None], Outcome.PASS),
        ("seconds", [Outcome.FAIL], Outcome.PASS),
        ("tokens", [], Outcome.INCONCLUSIVE),
        ("tokens", [None], Outcome.INCONCLUSIVE),
        ("error_storm", [Outcome.PASS], Outcome.FAIL),
        ("runaways", [Outcome.PASS], Outcome.FAIL),
        ("slo", [Outcome.INCONCLUSIVE], Outcome.FAIL),
        (None, [Outcome.INCONCLUSIVE], Outcome.PASS),
    ],
)
def test_a_budget_leaves_the_verdict_to_promises_that_are_decided_and_a_failing_server_fails(
    guard: str | None, others: list[Outcome | None], wanted: Outcome
) -> None:
    data = {"guard": guard, "detail": "why"}
    stops = [] if guard is None else [Event(t_ns=0, host="h", source="load", kind="load.guard", data=data)]

    found = judge_guards(stops, spec=GuardsSpec(), decided=[finding(one) for one in others], subject="x")
    assert found.outcome is wanted
    assert bool(found.next_step) == (wanted is not Outcome.PASS)


def test_only_hosts_on_the_list_may_be_loaded() -> None:
    for url in ("http://a.staging:8000", "https://x.a.staging", "http://127.0.0.1:81", "http://[::1]:8000"):
        check_host(url, ("*.staging", "127.0.0.1:*", "::1"))
        check_host(url, ())
    for url in ("http://prod:8000", "http://staging.evil", "http://127.0.0.2:81", "https://A.prod"):
        with pytest.raises(ConfigError, match="allowed_hosts"):
            check_host(url, ("*.staging", "127.0.0.1:*", "::1"))
    check_host("https://API.example", ("api.example:443",))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"guards": {"money_max": 1}}, "price_per_million_tokens"),
        ({"guards": {"slos": ["fast"]}}, "no SLO is named 'fast'"),
        ({"guards": {"slos": ["itl_ms_p99"]}}, "many values"),
        ({"endpoint": {"batch_invariant": True}}, "checked with tasks"),
        ({"tasks": {}, "session": {}}, "session"),
        ({"tasks": {"kinds": ["sum", "sum"]}}, "once"),
        ({"tasks": {"difficulty": [4]}}, "less than or equal to 3"),
    ],
)
def test_guards_and_tasks_that_make_no_sense_are_refused(keys: dict[str, object], said: str) -> None:
    document = {
        "name": "x",
        "arrivals": {"kind": "constant", "rate_per_s": 1},
        "duration_s": 1,
        "slos": [{"metric": "itl_ms", "statistic": "p99", "bound": 10}],
    }

    with pytest.raises(ValidationError, match=said):
        WorkloadSpec.model_validate(document | keys)

"""What a fault cost, counted from request rows."""

from __future__ import annotations

import pytest

from experiments.impact.harm import find_harm
from experiments.impact.recovery import Times, find_times
from probes.json_types import JsonObject
from probes.request import Request
from probes.slo import Slo
from tests.experiments.rows import at, fault, lab_samples, request, traffic

GOODPUT = Slo(name="goodput", metric="goodput", objective=0.95)
LATENCY = Slo(name="ttft", metric="ttft_ms", objective=0.95, bound=500)


def times_of(rows: list[Request]) -> Times:
    return find_times(rows, lab_samples(), faults=[fault()], t_end_ns=at(15), slos=[GOODPUT])


def harm_of(rows: list[Request], *slos: Slo, window_days: float = 30) -> JsonObject:
    return find_harm(rows, {"after": slos}, times_of(rows), window_days=window_days)


def test_budget_burned_is_bad_requests_over_what_the_promise_lets_pass_at_this_rate() -> None:
    broken = [request(0.05 + i / 100, error="reset") for i in range(8)]
    harm = harm_of([*traffic(-5, 15), *broken], GOODPUT, window_days=1)

    assert (harm["requests"], harm["failed"], harm["errors"], harm["bad"]) == (160, 8, {"reset": 8}, 8)
    assert harm["rate_per_s"] == pytest.approx(208 / 19.9, abs=0.01)
    assert harm["budget_share"] == pytest.approx(8 / (208 / 19.9 * 86400 * 0.05), rel=1e-6)
    assert harm["degraded_s"] == 1


def test_what_was_slow_counts_as_bad_and_not_as_failed() -> None:
    slow = [request(1.0 + i / 10, took_s=1.5) for i in range(5)]
    harm = harm_of([*traffic(-5, 15), *slow], LATENCY, GOODPUT)

    assert (harm["failed"], harm["bad"]) == (0, 5)


def test_what_was_bad_before_the_fault_is_not_its_doing() -> None:
    harm = harm_of([*traffic(-5, 15), *(request(-3.0 + i / 10, error="reset") for i in range(9))], GOODPUT)

    assert (harm["failed"], harm["bad"], harm["budget_share"]) == (0, 0, 0.0)


def test_what_the_client_ended_itself_costs_the_service_nothing() -> None:
    harm = harm_of(
        [*traffic(-5, 15), *(request(14.0 + i / 10, error="abandoned") for i in range(4))], GOODPUT
    )

    assert (harm["by_client"], harm["failed"], harm["bad"]) == (4, 0, 0)


def test_without_a_promise_of_goodput_there_is_no_budget() -> None:
    assert "budget_share" not in harm_of(traffic(-5, 15), LATENCY)
    assert "budget_share" not in harm_of([], GOODPUT)

"""Rows in columns read as the rows did, and every rule finds in them what it finds in a list of rows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, fields

import pytest

from probes.distribution import Distribution
from probes.drift import judge_drift
from probes.metric import METRICS, percentile
from probes.request import Request
from probes.request_columns import RequestColumns, batches_of, in_time, keep, pick, to_columns
from probes.slo import GOODPUT, Slo, Window, judge_slos
from probes.traffic import judge_accounting, judge_client_lag, judge_errors, judge_lateness
from probes.warm_up import WarmUp, leave_out

T0_NS = 1_700_000_000_000_000_000
NAMES = [field.name for field in fields(Request)]


def made(count: int, *, seed: int = 1) -> list[Request]:
    """Return rows with something of everything: failures, hang-ups, drops, texts, large and no numbers."""
    chance = random.Random(seed)
    return [_row(index, chance) for index in range(count)]


def _row(index: int, chance: random.Random) -> Request:
    due_ns = T0_NS + index // 2 * 1_000_000
    sent_ns = None if chance.random() < 0.02 else due_ns + chance.randrange(10**6)
    error = chance.choice([None] * 17 + ["http_5xx", "client_bug", "hung_up"]) if sent_ns else "dropped"
    first_ns = sent_ns + chance.randrange(10**8) if sent_ns and error is None else None
    gaps = tuple(chance.choice((0, 20_000, 10**6, 5 * 10**9)) for _ in range(chance.randrange(6)))
    return Request(
        index=index,
        worker=index % 3,
        endpoint="http://127.0.0.1",
        t_intended_ns=due_ns,
        t_sent_ns=sent_ns,
        t_first_ns=first_ns,
        t_last_ns=first_ns and first_ns + sum(gaps) * 1000,
        t_end_ns=first_ns and first_ns + sum(gaps) * 1000 + 5,
        connect_ms=chance.choice((None, 0.1, 2.5)),
        status=200 if error is None else None,
        error=error,
        error_detail=f"row {index}" if error else "",
        replica=chance.choice(("", "a", "b")),
        events=len(gaps) + 1,
        tokens_in=chance.choice((None, -128, 127, 2**40)),
        tokens_out=len(gaps) + 1 if index > 300 else None,
        gaps_us=gaps if first_ns else (),
        reads=3 if first_ns else 0,
        reads_unstamped=chance.randrange(2),
        lag_ms_max=chance.random(),
        first_uncertain_ms=chance.random(),
        is_hung_up=error == "hung_up",
        text=chance.choice(("", "forty-two")),
    )


def columns_of(rows: Sequence[Request]) -> RequestColumns:
    return to_columns(batches_of([asdict(row) for row in rows]))


def told(row: Request) -> list[object]:
    return [tuple(row.gaps_us) if name == "gaps_us" else getattr(row, name) for name in NAMES]


@pytest.mark.parametrize("count", [0, 1, 2, 5000])
def test_every_value_comes_back_by_intended_time_whatever_order_it_came_in(count: int) -> None:
    rows = made(count)
    shuffled = random.Random(2).sample(rows, k=count)

    table = columns_of(shuffled)

    assert len(table) == count
    assert [told(row) for row in table] == [told(row) for row in rows]
    assert [row.is_good for row in table] == [row.is_good for row in rows]


def test_parts_of_it_read_as_parts_of_a_list() -> None:
    rows = made(400)
    table = columns_of(rows)

    late = keep(table, "index", where=lambda index: index % 7 == 0)

    assert [row.index for row in late] == list(range(0, 400, 7))
    assert [told(row) for row in late[3:9][1:]] == [told(row) for row in rows[::7][3:9][1:]]
    assert told(table[-1]) == told(rows[-1])
    assert told(late[2]) == told(rows[14])
    assert [row.index for row in in_time(pick(table, [9, 2, 4]))] == [2, 4, 9]
    with pytest.raises(IndexError):
        table[400]


def test_torn_rows_are_passed_over_and_absent_fields_have_their_defaults() -> None:
    (whole,) = made(1)
    given = {"index": 0, "t_intended_ns": T0_NS, "of_a_newer_version": 1}

    table = to_columns(batches_of([{"index": 5}, given, asdict(whole) | {"t_intended_ns": None}]))

    (row,) = table
    assert (row.index, row.replica, row.choices, list(row.gaps_us), row.text) == (0, "", 1, [], "")


@pytest.mark.parametrize("seed", range(4))
def test_every_rule_finds_the_same_in_columns_as_in_rows(seed: int) -> None:
    rows = made(1500, seed=seed)
    table = columns_of(rows)
    slos = [
        Slo(name="ttft", metric="ttft_ms", objective=0.6, bound=60),
        Slo(name="itl", metric="itl_ms", objective=0.5, bound=30),
        Slo(name="tpot", metric="tpot_ms", objective=0.5, bound=800),
        Slo(
            name="by window",
            metric="ttft_ms",
            objective=0.5,
            bound=60,
            window=Window(length_s=0.01, objective=0.7),
        ),
        Slo(name="good", metric=GOODPUT, objective=0.5),
    ]

    def findings(requests: Sequence[Request]) -> list[object]:
        settled = leave_out(requests, WarmUp(seconds=0.1)).requests
        return [
            *judge_slos(slos, settled),
            *judge_drift(slos, settled),
            judge_errors(requests, slos=(), subject="endpoint:x"),
            judge_lateness(requests, subject="client:load"),
            judge_client_lag(requests, [], subject="client:load"),
            judge_accounting(requests, arrivals=1500, subject="client:load", wanted=range(1, 1501)),
        ]

    assert findings(table) == findings(rows)


def test_a_distribution_gives_the_order_statistics_of_all_values() -> None:
    rows = [row for row in made(800) if row.is_good]
    table = columns_of(rows)

    for name, metric in METRICS.items():
        values = [value for row in rows for value in metric.read(row)]
        found = Distribution(name, table)
        assert len(found) == len(values)
        assert [found.at_share(s) for s in (0.0, 0.5, 0.99, 1.0)] == [
            percentile(values, s) for s in (0.0, 0.5, 0.99, 1.0)
        ]

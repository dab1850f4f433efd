"""Who noticed a fault: the site's alerts, on a clock that is not ours."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from experiments.alerts.noticed import Alerts, AlertsSeen, find_detection, find_skew, judge_alerts
from experiments.alerts.spec import AlertsSpec
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from tests.experiments.rows import T0_NS, at

WANTED = Alerts(url="http://am:9093", filters=('alertname="Down"',), within_s=20)


def question(t_s: float, *, ahead_s: float = 0.0, error: str = "") -> JsonObject:
    """One question, answered within 10 ms by a machine whose clock is ahead."""
    date_s = (at(t_s - 0.005) + round(ahead_s * 1e9)) // 1_000_000_000
    return {
        "t_ns": at(t_s), "t_sent_ns": at(t_s - 0.01), "date_s": None if error else date_s,
        "is_answered": not error, "error": error,
    }  # fmt: skip


def questions(from_s: float, to_s: float, *, ahead_s: float = 0.0) -> list[JsonObject]:
    """Questions every 1.07 s, so that they fall all over the second."""
    count = round((to_s - from_s) / 1.07)
    return [question(from_s + i * 1.07, ahead_s=ahead_s) for i in range(count + 1)]


def alert(t_s: float, *, ahead_s: float = 0.0, seen_s: float | None = None, **labels: str) -> JsonObject:
    """An alert that began at ``t_s`` of our clock."""
    return {
        "labels": {"alertname": "Down", **labels},
        "state": "active",
        "starts_at_ns": at(t_s + ahead_s),
        "t_seen_ns": at(t_s + 0.5 if seen_s is None else seen_s),
    }


def judged(rows: Sequence[JsonObject], *alerts: JsonObject) -> Finding:
    seen = AlertsSeen(wanted=WANTED, rows=tuple(rows), alerts=tuple(alerts))
    return judge_alerts(seen, T0_NS, subject="alertmanager:am", moments={})


def test_an_alert_that_begins_after_the_fault_is_what_noticed_it() -> None:
    found = judged(questions(-10, 30), alert(7.0, replica="r1"), alert(9.0))

    assert found.outcome is Outcome.PASS
    assert "by the site's alert Down (replica=r1)" in found.observed
    assert 6.9 < float(found.observed.split()[2]) < 7.1


def test_an_alert_that_fired_before_the_fault_does_not_count() -> None:
    found = judged(questions(-10, 30), alert(-5.0))

    assert found.outcome is Outcome.FAIL
    assert found.observed.startswith("none fired within 20 s of the fault; 1 that fired before")
    assert found.next_step


def test_an_alert_of_a_clock_that_is_a_minute_ahead_is_put_on_ours() -> None:
    rows, late = questions(-10, 30, ahead_s=60), alert(4.0, ahead_s=60)
    seen = AlertsSeen(wanted=WANTED, rows=tuple(rows), alerts=(late,))

    detection = find_detection(seen, T0_NS)
    assert detection is not None
    assert detection.t_ns == pytest.approx(at(4.0), abs=2e8)
    assert judged(rows, late).outcome is Outcome.PASS
    assert "+59.99 s ± 0.07 s against ours" in judged(rows, late).observed

    early = alert(-3.0, ahead_s=60, seen_s=1.0)  # by its own clock it began 57 s after the fault
    assert judged(rows, early).outcome is Outcome.FAIL


def test_many_answers_bound_the_clock_far_closer_than_the_second_of_a_date() -> None:
    one = find_skew([question(0.3, ahead_s=5.0)])
    many = find_skew(questions(-10, 30, ahead_s=5.0))

    assert one is not None
    assert many is not None
    assert one.high_ns - one.low_ns > 1e9
    assert many.high_ns - many.low_ns < 0.3e9
    assert many.low_ns < 5e9 < many.high_ns


def test_an_alert_within_clock_error_of_the_injection_leaves_it_open() -> None:
    found = judged([question(-2.3), question(10.2), *questions(12, 30)], alert(0.01, seen_s=10.2))

    assert found.outcome is Outcome.INCONCLUSIVE
    assert "within clock error of the injection" in found.observed


def test_an_alert_that_comes_too_late_fails() -> None:
    found = judged(questions(-10, 40), alert(25.0))

    assert found.outcome is Outcome.FAIL
    assert "noticed only after 25" in found.observed


def test_an_alert_whose_clock_error_straddles_the_bound_decides_nothing() -> None:
    assert judged(questions(-10, 40), alert(20.0)).outcome is Outcome.INCONCLUSIVE


def test_without_one_answer_nothing_is_decided_and_the_reason_is_told() -> None:
    rows = [question(t, error="[Errno 111] Connection refused") for t in range(-5, 30)]

    assert judged(rows).outcome is Outcome.INCONCLUSIVE
    assert "could not be asked: [Errno 111] Connection refused" in judged(rows).observed
    assert judged([]).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([*questions(-10, 2), *questions(14, 30)], "not heard for 1"),
        (questions(-10, 8), "it was watched for 8.2 s only"),
        (questions(-10, -5), "it was watched for 0.0 s"),
        (questions(12, 30), "not heard for 12.0 s from +0.0 s on"),
    ],
)
def test_a_silence_in_which_an_alert_could_have_come_leaves_it_open(
    rows: list[JsonObject], said: str
) -> None:
    found = judged(rows)

    assert found.outcome is Outcome.INCONCLUSIVE
    assert said in found.observed


def test_an_alert_seen_after_a_silence_still_says_when_it_began() -> None:
    found = judged([*questions(-10, 2), *questions(14, 30)], alert(6.0, seen_s=14.1))

    assert found.outcome is Outcome.PASS


def test_a_clock_that_was_set_in_between_leaves_it_open() -> None:
    rows = [*questions(-10, 5), *questions(6, 30, ahead_s=30)]

    assert judged(rows, alert(7.0)).outcome is Outcome.INCONCLUSIVE
    assert "fits no one offset" in judged(rows, alert(7.0)).observed


def test_an_alert_that_was_silenced_counts_and_is_called_so() -> None:
    found = judged(questions(-10, 30), alert(7.0) | {"state": "suppressed"})

    assert found.outcome is Outcome.PASS
    assert "suppressed: nobody was told" in found.observed


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "am:9093"},
        {"url": "http://user:secret@am:9093"},
        {"filters": []},
        {"filters": ["Down"]},
        {"within_s": 0},
        {"authorization_env": "Bearer abc.def"},
        {"matchers": ["a=b"]},
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_touched(wrong: JsonObject) -> None:
    right: JsonObject = {"url": "http://am:9093", "filters": ['alertname="Down"'], "within_s": 30}
    AlertsSpec.model_validate(right)

    with pytest.raises(ValueError, match=next(iter(wrong))):
        AlertsSpec.model_validate(right | wrong)

"""Events: one line each, whole or refused."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.event import Event, event_from_line, event_to_line, now

texts = st.text(max_size=30)
events = st.builds(
    Event,
    t_ns=st.integers(0, 2**63 - 1),
    host=texts,
    source=texts,
    kind=texts,
    data=st.dictionaries(
        texts, st.none() | st.booleans() | st.integers() | texts | st.lists(texts, max_size=2)
    ),
)


@given(events)
def test_an_event_comes_back_from_its_line_as_it_was(event: Event) -> None:
    assert event_from_line(event_to_line(event)) == event


@given(events, st.floats(0, 1, exclude_max=True))
def test_a_torn_line_is_refused_never_read_as_another_event(event: Event, share: float) -> None:
    line = event_to_line(event).rstrip("\n")

    with pytest.raises(ValueError):  # noqa: PT011  (JSON's own or ours)
        event_from_line(line[: int(share * len(line))])


@given(st.one_of(st.text(), st.from_regex(r'\{"t_ns":[^}]*\}', fullmatch=True)))
def test_a_garbled_line_is_refused_with_a_value_error_and_nothing_else(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        event_from_line(line)


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        '{"t_ns":1,"host":"a","source":"b"}',
        '{"t_ns":"soon","host":"a","source":"b","kind":"c"}',
        '{"t_ns":[1],"host":"a","source":"b","kind":"c"}',
        '{"t_ns":1,"host":"a","source":"b","kind":"c","data":"text"}',
    ],
)
def test_json_that_is_no_event_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not an event"):
        event_from_line(line)


def test_a_figure_that_is_not_a_number_keeps_the_rest_of_its_line() -> None:
    event = Event(t_ns=1, host="a", source="b", kind="sample", data={"tflops": float("nan"), "ok": 1.5})

    assert event_from_line(event_to_line(event)).data == {"tflops": "nan", "ok": 1.5}


def test_now_is_of_this_host_and_this_moment() -> None:
    before = time.time_ns()
    event = now("agent", "stage.started", stage="matmul")

    assert before <= event.t_ns <= time.time_ns()
    assert (event.host, event.data) == (os.uname().nodename, {"stage": "matmul"})

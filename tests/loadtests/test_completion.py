"""What a completion said: the short way counts what parsing would, and every way to be broken has a name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.completion import Completion


def event(text: str | None, finish_reason: str | None = None, *, ascii_only: bool = True) -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return json.dumps({"id": "x", "choices": [choice]}, ensure_ascii=ascii_only).encode()


def usage(tokens_out: int) -> bytes:
    return json.dumps(
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": tokens_out}}
    ).encode()


def take(*events: bytes) -> Completion:
    completion = Completion()
    for data in events:
        completion.take_event(data)
    return completion


def judge(completion: Completion, *, output_tokens: int = 10) -> str | None:
    return completion.judge_whole(is_streamed=True, output_tokens=output_tokens)[0]


@given(texts=st.lists(st.text(max_size=8), max_size=12), ascii_only=st.booleans())
def test_counting_by_template_equals_parsing_every_event(texts: list[str], ascii_only: bool) -> None:
    completion = take(*(event(text, ascii_only=ascii_only) for text in texts))

    assert completion.events == sum(bool(text) for text in texts)
    assert completion.chars == sum(len(text) for text in texts)
    assert completion.problem is None


@given(data=st.lists(st.binary(max_size=60), max_size=5))
def test_arbitrary_events_are_counted_or_named_as_bad(data: list[bytes]) -> None:
    completion = take(event("one"), *data)

    assert completion.events >= 1
    assert completion.problem in (None, "bad_event", "error_event")


def test_a_content_that_also_stands_elsewhere_in_the_event_gives_no_wrong_template() -> None:
    completion = take(event("index"), event("content"), event("x"), event(None, "stop"))

    assert (completion.events, completion.chars) == (3, len("indexcontentx"))
    assert completion.finish_reason == "stop"


def test_something_broken_between_the_templates_ends_is_parsed_and_named() -> None:
    good = event("one")
    before, _, after = good.partition(b"one")

    completion = take(good, before + b'two"},{"x":"' + after, before + b"\x01" + after)

    assert completion.events == 1
    assert completion.problem == "bad_event"


def test_reasoning_and_tool_calls_are_content_and_a_role_is_not() -> None:
    def delta(**fields: object) -> bytes:
        return json.dumps({"choices": [{"index": 0, "delta": fields}]}).encode()

    completion = take(
        delta(role="assistant", content=""),
        delta(reasoning_content="hm"),
        delta(tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]),
        delta(content=None),
    )

    assert (completion.events, completion.chars) == (2, 5)


def test_a_whole_stream_has_no_problem_and_its_usage() -> None:
    completion = take(event("a"), event("b"), event(None, "stop"), usage(2), b"[DONE]")

    assert judge(completion) is None
    assert (completion.tokens_in, completion.tokens_out) == (3, 2)


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        ([event("a"), event(None, "stop")], "no_done"),
        ([event("a"), b"[DONE]"], "no_finish_reason"),
        ([event(None, "stop"), b"[DONE]"], "empty"),
        ([event("a"), event("b"), event(None, "stop"), usage(1), b"[DONE]"], "usage_mismatch"),
        ([event("a"), event(None, "length"), usage(7), b"[DONE]"], "usage_mismatch"),
        ([event("a"), b'{"error": {"message": "out of memory"}}'], "error_event"),
        ([event("a"), b"{"], "bad_event"),
        ([b"[]"], "bad_event"),
        ([b'{"choices": 3}'], "bad_event"),
        ([event("a"), event(None, "stop"), b"[DONE]", event("b")], "bad_event"),
    ],
)
def test_each_way_of_being_broken_has_its_name(events: list[bytes], kind: str) -> None:
    assert judge(take(*events)) == kind


def test_an_answer_that_was_not_streamed_is_judged_the_same_way() -> None:
    choice = {"message": {"role": "assistant", "content": "four words of text"}, "finish_reason": "stop"}
    completion = Completion()

    completion.take_whole(json.dumps({"choices": [choice], "usage": {"completion_tokens": 4}}).encode())

    assert completion.judge_whole(is_streamed=False, output_tokens=9) == (None, "")
    assert completion.chars == 18

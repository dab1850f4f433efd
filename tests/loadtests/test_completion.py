"""What a completion said: the short way counts what parsing would, and every way to be broken has a name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.reading.completion import Completion


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
        ([event("a"), event(None, "abort"), usage(1), b"[DONE]"], "error_event"),
        ([event("a"), event(None, "error"), usage(1), b"[DONE]"], "error_event"),
    ],
)
def test_each_way_of_being_broken_has_its_name(events: list[bytes], kind: str) -> None:
    assert judge(take(*events)) == kind


def test_a_server_that_never_sends_done_is_held_to_its_finish_reason() -> None:
    def ended(*events: bytes) -> str | None:
        return take(*events).judge_whole(is_streamed=True, output_tokens=9, sends_done=False)[0]

    assert ended(event("a"), event(None, "stop")) is None
    assert ended(event("a")) == "no_finish_reason"
    assert (
        "sends_done"
        in take(event("a"), event(None, "stop")).judge_whole(is_streamed=True, output_tokens=9)[1]
    )


def test_an_answer_that_was_not_streamed_is_judged_the_same_way() -> None:
    choice = {"message": {"role": "assistant", "content": "four words of text"}, "finish_reason": "stop"}
    completion = Completion()

    completion.take_whole(json.dumps({"choices": [choice], "usage": {"completion_tokens": 4}}).encode())

    assert completion.judge_whole(is_streamed=False, output_tokens=9) == (None, "")
    assert completion.chars == 18


def choice_event(index: int, *, text: str = "", finish_reason: str | None = None) -> bytes:
    choice = {"index": index, "delta": {"content": text}, "finish_reason": finish_reason}
    return json.dumps({"choices": [choice]}).encode()


def test_every_one_of_several_choices_needs_its_finish_reason() -> None:
    both = [choice_event(0, text="a"), choice_event(1, text="b"), choice_event(0, finish_reason="stop")]

    assert judge(take(*both, b"[DONE]")) == "no_finish_reason"
    whole = take(*both, choice_event(1, finish_reason="length"), b"[DONE]")
    assert (judge(whole), whole.choices, whole.finish_reason) == (None, 2, "stop,length")


def test_usage_counts_the_tokens_of_all_choices_together() -> None:
    ends = [choice_event(index, text="a", finish_reason="length") for index in (0, 1)]

    assert judge(take(*ends, usage(20), b"[DONE]")) is None
    assert judge(take(*ends, usage(10), b"[DONE]")) == "usage_mismatch"


def test_content_after_the_finish_reason_is_a_bad_event_even_where_the_template_fits() -> None:
    completion = take(event("one"), event("two"), event(None, "stop"), event("two"), b"[DONE]")

    kind, detail = completion.judge_whole(is_streamed=True, output_tokens=10)
    assert (kind, "after its finish_reason" in detail) == ("bad_event", True)


def test_usage_may_come_again_but_never_fall() -> None:
    again = take(event("one"), usage(1), event("two", "stop"), usage(2), usage(2), b"[DONE]")
    fallen = take(event("one"), usage(5), event("two", "stop"), usage(2), b"[DONE]")

    assert (judge(again), judge(fallen)) == (None, "usage_mismatch")


def test_usage_that_leaves_out_a_count_takes_none_back() -> None:
    less = json.dumps({"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": 2}}}).encode()
    completion = take(event("one"), event(" two", "stop"), usage(1), less, b"[DONE]")

    assert (completion.tokens_in, completion.tokens_out, completion.tokens_cached) == (3, 1, 2)
    assert judge(completion) == "usage_mismatch"


@pytest.mark.parametrize("ascii_only", [True, False])
def test_replacement_characters_are_counted_and_do_not_fail(ascii_only: bool) -> None:
    texts = ["one", "t\ufffdo", "three"]
    completion = take(*(event(text, ascii_only=ascii_only) for text in texts), event(None, "stop"), b"[DONE]")

    assert (judge(completion), completion.garbled, completion.events) == (None, 1, 3)


def test_invalid_utf8_inside_a_string_is_a_bad_event() -> None:
    assert judge(take(event("one"), event("x").replace(b'"x"', b'"\xff"'))) == "bad_event"


@given(texts=st.lists(st.text(max_size=8), min_size=1, max_size=8))
def test_the_completions_api_says_its_text_without_a_delta(texts: list[str]) -> None:
    events = [json.dumps({"choices": [{"index": 0, "text": text}]}).encode() for text in texts]
    completion = take(*events)

    assert (completion.events, completion.chars) == (sum(map(bool, texts)), sum(map(len, texts)))
    assert completion.problem is None


def test_cached_tokens_are_taken_from_usage() -> None:
    said = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 8}}
    completion = take(json.dumps({"choices": [], "usage": said}).encode())

    assert (completion.tokens_in, completion.tokens_cached) == (9, 8)


def test_a_server_that_opens_choices_without_end_is_cut_off() -> None:
    completion = take(*(choice_event(index, text="a") for index in range(500)))

    assert (completion.problem, len(completion.finish_reasons)) == ("bad_event", 128)

"""HTTP, event stream and completion together: no split changes what is counted, no bytes break the reader."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from loadtests.reading.completion import Completion
from loadtests.reading.server_sent_events import EventDecoder, EventTooLongError
from loadtests.reading.stream import AnswerDecoder, BadHttpError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CUTS = st.lists(st.integers(min_value=0, max_value=100_000), max_size=12)
TEXTS = st.lists(st.text(max_size=6), max_size=8)
LINE_ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
# Bytes that mean something to one of the three layers, and bytes that do not.
PARTS = st.lists(
    st.sampled_from(
        [
            b"data: ",
            b"data",
            b":",
            b"\r",
            b"\n",
            b"\r\n",
            b"\n\n",
            b"0",
            b"5",
            b"ffffffffffff",
            b"-1",
            b";x=y",
            b"[DONE]",
            b'{"choices": [{"delta": {"content": "a"}}]}',
            b'{"choices": null}',
            b"\xef\xbb\xbf",
            b'{"choices": [{"index": -1, "finish_reason": {}}]}',
            b'{"usage": {"completion_tokens": true}}',
            b"\xff",
        ]
    )
    | st.binary(max_size=4),
    max_size=30,
)


def read(data: bytes, cuts: list[int]) -> tuple[object, ...]:
    """Read an answer in these pieces; return all that a row says of it."""
    answer, events, completion = AnswerDecoder(), EventDecoder(), Completion(keeps_text=True)
    error, last = "", 0
    try:
        for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
            for piece in answer.feed(data[last:cut]):
                for event in events.feed(piece):
                    completion.take_event(event)
            last = cut
    except (BadHttpError, EventTooLongError) as caught:
        error = type(caught).__name__
    judged = completion.judge_whole(is_streamed=True, output_tokens=8)
    tally = (completion.events, completion.chars, "".join(completion.texts), completion.finish_reasons)
    return error, answer.is_complete, judged, *tally, completion.tokens_out, completion.garbled


def stream(texts: list[str], line_end: bytes) -> bytes:
    documents: list[object] = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    documents.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    documents.append({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 8}})
    said = [json.dumps(document, ensure_ascii=True).encode() for document in documents] + [b"[DONE]"]
    chunks = [b"data: " + data + line_end * 2 for data in said]
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


@given(texts=TEXTS, line_end=LINE_ENDS, cuts=CUTS)
def test_no_split_changes_what_is_counted(texts: list[str], line_end: bytes, cuts: list[int]) -> None:
    data = stream(texts, line_end)

    whole = read(data, [])
    assert read(data, cuts) == whole
    assert whole[:2] == ("", True)
    assert whole[3:6] == (sum(map(bool, texts)), sum(map(len, texts)), "".join(texts))


@given(texts=TEXTS)
def test_reading_byte_by_byte_is_reading_the_whole(texts: list[str]) -> None:
    data = stream(texts[:3], b"\n")

    assert read(data, list(range(len(data)))) == read(data, [])


@given(parts=PARTS, is_framed=st.booleans(), cuts=CUTS)
def test_malformed_bytes_end_as_a_named_problem_whatever_the_split(
    parts: list[bytes], is_framed: bool, cuts: list[int]
) -> None:
    body = b"".join(parts)
    data = HEAD + (b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if is_framed and body else body)

    whole, split = read(data, []), read(data, cuts)
    if not whole[0]:  # of what is not HTTP, how much was counted before depends on the split
        assert split == whole
    assert split[0] == whole[0]

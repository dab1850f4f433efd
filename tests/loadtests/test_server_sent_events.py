"""The event decoder against a plain reading of the standard, for every split."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.reading.server_sent_events import EVENT_BYTES_MAX, EventDecoder, EventTooLongError

# What streams are made of: lines of every sort, in every line ending.
FIELDS = st.sampled_from(
    [
        b"data: one",
        b"data:two",
        b"data",
        b"data:  spaced",
        b": comment",
        b"event: x",
        b"id: 1",
        b"",
        b"dat: no",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(FIELDS, ENDS), max_size=14).map(
    lambda lines: b"".join(field + end for field, end in lines)
)


def by_the_standard(stream: bytes) -> list[bytes]:
    """Read the whole stream at once, as the HTML standard's grammar has it."""
    stream = stream.removeprefix(b"\xef\xbb\xbf")
    events, data = [], []
    for line in re.split(rb"\r\n|\r|\n", stream)[:-1]:
        if not line and data:
            events.append(b"\n".join(data))
        if not line:
            data = []
        elif line.partition(b":")[0] == b"data":
            value = line.partition(b":")[2]
            data.append(value[1:] if value.startswith(b" ") else value)
    return events


def decode(stream: bytes, cuts: list[int]) -> list[bytes]:
    decoder, events, last = EventDecoder(), [], 0
    for cut in [*sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]:
        events += decoder.feed(stream[last:cut])
        last = cut
    return events


def feed_often(piece: bytes, times: int) -> None:
    decoder = EventDecoder()
    for _ in range(times):
        decoder.feed(piece)


@given(stream=STREAMS, mark=st.sampled_from([b"", b"\xef\xbb\xbf"]), cuts=st.lists(st.integers(0, 300)))
def test_every_split_gives_the_events_that_the_standard_gives(
    stream: bytes, mark: bytes, cuts: list[int]
) -> None:
    assert decode(mark + stream, cuts) == by_the_standard(mark + stream)


@given(stream=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300)))
def test_arbitrary_bytes_give_what_the_standard_gives(stream: bytes, cuts: list[int]) -> None:
    assert decode(stream, cuts) == by_the_standard(stream)


def test_one_event_for_each_piece_takes_the_short_way_with_the_same_result() -> None:
    decoder = EventDecoder()

    assert decoder.feed(b'data: {"a":1}\n\n') == [b'{"a":1}']
    assert decoder.feed(b": keep-alive\n\n") == []
    assert decoder.feed(b"data: [DONE]\n\n") == [b"[DONE]"]
    assert not decoder.is_mid_event


def test_an_event_that_never_ends_is_refused_at_a_bound() -> None:
    piece = b"x" * 4096

    with pytest.raises(EventTooLongError):
        feed_often(piece, EVENT_BYTES_MAX // 4096 + 2)


def test_an_event_of_endless_lines_is_refused_at_a_bound() -> None:
    line = b"data: " + b"x" * 1000 + b"\n"

    with pytest.raises(EventTooLongError):
        feed_often(line, EVENT_BYTES_MAX // 1000 + 2)

"""The HTTP answer decoder: every split gives the same, and what is not HTTP is said to be not."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.reading.stream import AnswerDecoder, BadHttpError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(pieces: list[bytes], *, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    body = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    return HEAD + body + b"0\r\n" + trailer + b"\r\n"


def decode(data: bytes, cuts: list[int]) -> tuple[bytes, AnswerDecoder]:
    decoder, body, last = AnswerDecoder(), b"", 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        body += b"".join(decoder.feed(data[last:cut]))
        last = cut
    return body, decoder


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=400), max_size=6),
    cuts=st.lists(st.integers(0, 4000), max_size=40),
    extension=st.sampled_from([b"", b";name=value", b" "]),
    trailer=st.sampled_from([b"", b"X-Sum: 1\r\n"]),
)
def test_a_chunked_body_comes_out_the_same_however_it_is_split(
    pieces: list[bytes], cuts: list[int], extension: bytes, trailer: bytes
) -> None:
    body, decoder = decode(chunked(pieces, extension=extension, trailer=trailer), cuts)

    assert body == b"".join(pieces)
    assert decoder.is_complete
    assert decoder.keeps_alive
    assert decoder.surplus == b""


@given(body=st.binary(max_size=300), cuts=st.lists(st.integers(0, 1000), max_size=20))
def test_a_body_of_stated_length_comes_out_the_same_however_it_is_split(body: bytes, cuts: list[int]) -> None:
    got, decoder = decode(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body), cuts)

    assert got == body
    assert decoder.is_complete


@given(cut=st.integers(0, 2000))
def test_an_answer_that_stops_early_is_never_complete(cut: int) -> None:
    data = chunked([b"data: one\n\n", b"data: two\n\n"])
    part = data[: cut % len(data)]

    _, decoder = decode(part, [])

    assert not decoder.end_of_connection()


@given(data=st.binary(max_size=600), cuts=st.lists(st.integers(0, 600), max_size=10))
def test_arbitrary_bytes_are_decoded_or_refused_and_nothing_else(data: bytes, cuts: list[int]) -> None:
    for text in (data, HEAD + data):
        with contextlib.suppress(BadHttpError):
            body, _ = decode(text, cuts)
            assert len(body) <= len(text)


def test_a_body_without_length_ends_with_the_connection() -> None:
    body, decoder = decode(b"HTTP/1.0 200 OK\r\n\r\nhello", [3, 20])

    assert body == b"hello"
    assert not decoder.is_complete
    assert decoder.end_of_connection()
    assert not decoder.keeps_alive


def test_informational_answers_are_passed_over() -> None:
    _, decoder = decode(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", [])

    assert decoder.head is not None
    assert decoder.head.status == 204
    assert decoder.is_complete


def test_what_follows_an_answer_is_surplus_and_the_connection_is_not_used_again() -> None:
    _, decoder = decode(chunked([b"x"]) + b"HTTP/1.1 200 OK\r\n", [])

    assert decoder.surplus.startswith(b"HTTP/1.1")
    assert not decoder.keeps_alive


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad name : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        HEAD + b"0x5\r\nhello\r\n",
        HEAD + b"+5\r\nhello\r\n",
        HEAD + b"5_0\r\n",
        HEAD + b"zz\r\n",
        HEAD + b"5\r\nhelloXX",
        HEAD + b"f" * 2000,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
    ],
)
def test_what_is_not_http_is_refused(data: bytes) -> None:
    with pytest.raises(BadHttpError):
        decode(data, list(range(0, len(data), 997)))

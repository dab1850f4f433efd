"""The chat probe, against the simulated endpoint and against sockets that misbehave."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from probes.child import end_child, python_module, start_child
from probes.endpoint import chat_answers
from probes.errors import ConfigError


@contextlib.contextmanager
def simulated(*arguments: str) -> Iterator[str]:
    """The built-in endpoint, in a process of its own."""
    child = start_child(python_module("loadtests.endpoint", "--name", "replica-0", "--lifeline", *arguments))
    assert child.stdout is not None
    with child.stdout:
        try:
            yield f"http://127.0.0.1:{json.loads(child.stdout.readline())['port']}"
        finally:
            end_child(child)


def read_request(link: socket.socket) -> None:
    """Read a request whole: closing with a part of it unread would reset the connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += link.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    while len(body) < length:
        body += link.recv(65536)


@contextlib.contextmanager
def answering(answer: bytes, *, then: Callable[[socket.socket], None] | None = None) -> Iterator[str]:
    """A server that gives every connection the same bytes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        leaving = threading.Event()

        def serve() -> None:
            while not leaving.is_set():
                with contextlib.suppress(OSError):
                    link, _ = server.accept()
                    with link:
                        link.settimeout(5)
                        read_request(link)
                        link.sendall(answer)
                        if then is not None:
                            then(link)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            leaving.set()
            thread.join()


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
EVENT = b'data: {"choices":[{"delta":{"content":"ok"}}]}\n\n'
STOP = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'


def test_a_good_endpoint_passes_with_what_was_seen() -> None:
    with simulated() as url:
        seen = chat_answers(url)

    assert (seen["outcome"], seen["error"], seen["status"], seen["replica"]) == ("pass", "", 200, "replica-0")
    assert 0 < seen["ttft_ms"] <= seen["e2e_ms"]
    assert seen["chars"] > 0
    assert json.loads(json.dumps(seen)) == seen


def test_a_model_and_an_address_with_v1_are_taken_as_given() -> None:
    with simulated("--model", "llama") as url:
        assert chat_answers(f"{url}/v1/", model="llama")["outcome"] == "pass"


@pytest.mark.parametrize(
    ("fault", "timeout_s", "said"),
    [
        ("cut", 30, "ended without [DONE]"),
        ("close", 30, "IncompleteRead"),
        ("reset", 30, "ConnectionResetError"),
        ("error", 30, "got 500"),
        ("html", 30, "got 200 text/html"),
        ("hang", 1, "no whole answer within 1 s"),
    ],
)
def test_an_answer_that_is_not_whole_fails_and_says_why(fault: str, timeout_s: float, said: str) -> None:
    with simulated("--fault", fault) as url:
        seen = chat_answers(url, model="m", timeout_s=timeout_s, max_tokens=16)

    assert seen["outcome"] == "fail"
    assert said in seen["error"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (STREAM + EVENT + b"data: [DONE]\n\n", "without a finish reason"),
        (STREAM + STOP + b"data: [DONE]\n\n", "without any content"),
        (STREAM + EVENT + STOP, "without [DONE]"),
        (STREAM + b'data: {"error": "x"}\n\n', "not an event of a chat stream"),
        (STREAM + b"data: [1]\n\n", "not an event of a chat stream"),
        (STREAM + EVENT * 5000, "more than 4096 lines"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "BadStatusLine"),
        (b"", "RemoteDisconnected"),
    ],
)
def test_a_stream_that_lacks_something_fails(answer: bytes, said: str) -> None:
    with answering(answer) as url:
        seen = chat_answers(url, model="m", timeout_s=5)

    assert seen["outcome"] == "fail"
    assert said in seen["error"]


def test_a_whole_stream_passes_though_its_connection_just_ends() -> None:
    with answering(STREAM + EVENT + STOP + b"data: [DONE]\n\n") as url:
        assert chat_answers(url, model="m")["outcome"] == "pass"


def test_a_stream_that_trickles_does_not_outlast_the_deadline() -> None:
    def trickle(link: socket.socket) -> None:
        for _ in range(300):  # until the client leaves
            time.sleep(0.1)
            link.sendall(b"d")

    with answering(STREAM, then=trickle) as url:
        began = time.monotonic()
        seen = chat_answers(url, model="m", timeout_s=0.5)
        took_s = time.monotonic() - began

    assert seen["error"] == "no whole answer within 0.5 s"
    assert took_s < 15  # half of what the server would have gone on


def test_an_endpoint_that_refuses_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    seen = chat_answers(f"http://127.0.0.1:{port}")

    assert (seen["outcome"], seen["status"]) == ("fail", None)
    assert "ConnectionRefusedError" in seen["error"]


def test_a_list_of_models_that_is_none_fails() -> None:
    with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") as url:
        assert "wanted a list of models" in chat_answers(url)["error"]


@pytest.mark.parametrize("endpoint", ["", "127.0.0.1:8000", "ftp://x", "http://"])
def test_what_is_no_address_is_the_users_error(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="is no URL"):
        chat_answers(endpoint, model="m")


def test_a_key_comes_from_the_environment_and_its_absence_is_the_users_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)

    with pytest.raises(ConfigError, match="MY_KEY, which is not set"):
        chat_answers("http://127.0.0.1:1", api_key_env="MY_KEY")


def test_the_key_is_sent_and_never_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")
    with simulated() as url:
        seen = chat_answers(url, api_key_env="MY_KEY")

    assert seen["outcome"] == "pass"
    assert "s3cret" not in json.dumps(seen)

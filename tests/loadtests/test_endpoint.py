"""The simulated endpoint as a client meets it: a process of its own on a real socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from loadtests.rules.grading import grade
from loadtests.traffic.tasks import KINDS, make_task
from probes.child import wait_until
from tests.loadtests.endpoints import ask, endpoint

MESSAGES = [{"role": "user", "content": "What is 20 + 22 = ?"}]


def events_of(body: bytes) -> list[dict[str, object]]:
    lines = [line[6:] for line in body.split(b"\n\n") if line.startswith(b"data: {")]
    return [json.loads(line) for line in lines]


def text_of(body: bytes) -> str:
    choices = [choice for event in events_of(body) for choice in event["choices"]]  # type: ignore[attr-defined]
    return "".join(choice["delta"].get("content", "") for choice in choices)


def test_a_stream_has_role_tokens_finish_reason_usage_and_done() -> None:
    with endpoint("--name", "replica-3", "--decode-step-ms", "2") as running:
        options = {"include_usage": True}
        status, fields, body = ask(
            running.port, messages=MESSAGES, max_tokens=5, stream=True, stream_options=options
        )
        events = events_of(body)

    assert (status, fields["x-replica"]) == (200, "replica-3")
    assert fields["Content-Type"].startswith("text/event-stream")
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}  # type: ignore[index]
    assert [len(event["choices"]) for event in events] == [1] * 7 + [0]  # type: ignore[arg-type]
    assert events[-2]["choices"][0]["finish_reason"] == "length"  # type: ignore[index]
    assert events[-1]["usage"] == {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
    assert body.endswith(b"data: [DONE]\n\n")
    assert text_of(body).startswith("42 ")


def test_one_prompt_has_one_answer_streamed_or_not_and_a_wrong_one_is_off_by_one() -> None:
    with endpoint("--decode-step-ms", "2") as good, endpoint("--fault", "wrong") as wrong:
        whole = json.loads(ask(good.port, messages=MESSAGES, max_tokens=4)[2])
        streamed = text_of(ask(good.port, messages=MESSAGES, max_tokens=4, stream=True)[2])
        off = json.loads(ask(wrong.port, messages=MESSAGES, max_tokens=4)[2])

    text = whole["choices"][0]["message"]["content"]
    assert text == streamed
    assert off["choices"][0]["message"]["content"] == text.replace("42", "43")


def test_a_completion_of_one_text_says_what_the_chat_says_in_the_shapes_of_its_own_api() -> None:
    prompt, path = "What is 20 + 22 =", "/v1/completions"
    with endpoint("--decode-step-ms", "2") as running:
        chat = ask(running.port, messages=[{"role": "user", "content": prompt}], max_tokens=4)[2]
        whole = json.loads(ask(running.port, path=path, prompt=prompt, max_tokens=4)[2])
        body = ask(running.port, path=path, prompt=prompt, max_tokens=4, stream=True)[2]
        refused = ask(running.port, path=path, messages=MESSAGES)[0]

    text = json.loads(chat)["choices"][0]["message"]["content"]
    assert (whole["object"], whole["choices"][0]["text"]) == ("text_completion", text)
    assert whole["usage"]["prompt_tokens"] == len(prompt.split())
    choices = [event["choices"][0] for event in events_of(body)]  # type: ignore[index]
    assert "".join(choice["text"] for choice in choices) == text
    assert [choice["finish_reason"] for choice in choices] == [None] * 4 + ["length"]
    assert refused == 400


def test_health_is_503_until_the_model_is_loaded_and_so_are_completions() -> None:
    with endpoint("--start-delay-s", "3") as running:
        early = [ask(running.port, method="GET", path="/health")[0], ask(running.port, messages=MESSAGES)[0]]
        assert wait_until(lambda: ask(running.port, method="GET", path="/health")[0] == 200, timeout_s=20)
        late = ask(running.port, messages=MESSAGES, max_tokens=1)[0]

    assert early == [503, 503]
    assert late == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "wanted"),
    [
        ("GET", "/v1/models", {}, 200),
        ("GET", "/nowhere", {}, 404),
        ("GET", "/v1/chat/completions", {}, 405),
        ("POST", "/v1/chat/completions", {"messages": []}, 400),
        ("POST", "/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 0}, 400),
    ],
)
def test_wrong_requests_get_the_status_that_the_api_has_for_them(
    plain_endpoint: int, method: str, path: str, body: dict[str, object], wanted: int
) -> None:
    assert ask(plain_endpoint, method=method, path=path, **body)[0] == wanted


@pytest.fixture(scope="module")
def plain_endpoint():  # type: ignore[no-untyped-def]
    with endpoint("--decode-step-ms", "2") as running:
        yield running.port


def test_a_connection_carries_several_requests_and_garbage_is_answered_with_400(plain_endpoint: int) -> None:
    link = http.client.HTTPConnection("127.0.0.1", plain_endpoint, timeout=10)
    statuses = []
    for _ in range(3):
        link.request("POST", "/v1/chat/completions", json.dumps({"messages": MESSAGES, "max_tokens": 2}))
        reply = link.getresponse()
        statuses.append((reply.status, bool(reply.read())))
    link.close()
    with socket.create_connection(("127.0.0.1", plain_endpoint), timeout=10) as raw:
        raw.sendall(b"\x16\x03\x01\x00 this is no HTTP\r\n\r\n")
        answer = raw.recv(1000)

    assert statuses == [(200, True)] * 3
    assert answer.startswith(b"HTTP/1.1 400")


@contextlib.contextmanager
def streaming(port: int, *, tokens: int) -> Iterator[None]:
    """Hold a slot: an answer is under way, and its client goes away at the end of the block."""
    body = json.dumps({"messages": MESSAGES, "max_tokens": tokens, "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as link:
        link.sendall(head.encode() + body)
        assert link.recv(100)
        yield


def test_a_full_queue_is_429_with_retry_after() -> None:
    one_slot = ("--slots", "1", "--queue-max", "0", "--decode-step-ms", "200")
    with endpoint(*one_slot) as running, streaming(running.port, tokens=9999):
        status, fields, _ = ask(running.port, messages=MESSAGES)

    assert (status, fields["Retry-After"]) == (429, "1")


def test_health_of_generation_waits_for_a_token_and_is_well_while_the_queue_is_full() -> None:
    with endpoint("--decode-step-ms", "300", "--slots", "1", "--queue-max", "0") as running:
        began = time.monotonic()
        idle = ask(running.port, method="GET", path="/health_generate")[0]
        took_s = time.monotonic() - began
        with streaming(running.port, tokens=9999):
            full = ask(running.port, messages=MESSAGES, max_tokens=1)[0]
            alive = ask(running.port, method="GET", path="/health_generate")[0]

    assert (idle, full, alive) == (200, 429, 200)
    assert took_s >= 0.3


def test_a_client_that_goes_away_frees_its_slot() -> None:
    with endpoint("--slots", "1", "--queue-max", "0", "--decode-step-ms", "10") as running:
        with streaming(running.port, tokens=9999):  # for 100 s, if nobody went away
            assert ask(running.port, messages=MESSAGES, max_tokens=1)[0] == 429

        assert wait_until(lambda: ask(running.port, messages=MESSAGES, max_tokens=1)[0] == 200, timeout_s=20)


@pytest.mark.parametrize("kind", ["cut", "close", "reset", "hang"])
def test_a_spoiled_stream_begins_well_and_has_no_done(kind: str) -> None:
    body = json.dumps({"messages": MESSAGES, "max_tokens": 10, "stream": True}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    received, end = b"", ""
    with (
        endpoint("--fault", kind, "--decode-step-ms", "2") as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=20) as raw,
    ):
        raw.sendall(head + body)
        while not end:
            if received.endswith(b"0\r\n\r\n") or (kind == "hang" and received.count(b'"content":"') >= 2):
                raw.settimeout(0.5)  # nothing more has to come
            try:
                piece = raw.recv(65536)
                received, end = received + piece, "" if piece else "closed"
            except (ConnectionResetError, TimeoutError) as error:
                end = type(error).__name__

    assert received.count(b'"content":"') >= 2
    assert b"[DONE]" not in received
    assert received.endswith(b"0\r\n\r\n") == (kind == "cut")
    wanted = {"reset": "ConnectionResetError", "close": "closed"}
    assert end == wanted.get(kind, "TimeoutError")


@pytest.mark.parametrize(
    ("kind", "wanted"), [("error", (500, "application/json")), ("html", (200, "text/html"))]
)
def test_a_fault_in_the_head_is_what_it_says(kind: str, wanted: tuple[int, str]) -> None:
    with endpoint("--fault", kind) as running:
        status, fields, _ = ask(running.port, messages=MESSAGES)

    assert (status, fields["Content-Type"]) == wanted


def test_a_port_in_use_is_one_clear_line_and_exit_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-P", "-m", "overproof", "load", "endpoint", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}: cannot listen there: Address already in use" in done.stderr


@pytest.mark.parametrize(
    "wrong", [["--slots", "0"], ["--step-work-ms", "-1"], ["--decode-step-ms", "0"], ["--fault", "cuts"]]
)
def test_an_option_out_of_range_is_one_clear_line_and_exit_2(wrong: list[str]) -> None:
    command = [sys.executable, "-P", "-m", "loadtests.endpoint", *wrong]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert wrong[0] in done.stderr


@pytest.mark.parametrize("how", ["lifeline", "SIGTERM"])
def test_it_leaves_when_its_parent_goes_or_asks(how: str) -> None:
    with endpoint() as running:
        if how == "lifeline":
            assert running.child.stdin is not None
            running.child.stdin.close()
        else:
            running.child.send_signal(signal.SIGTERM)

        assert running.child.wait(timeout=10) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_checked_task_is_answered_rightly_streamed_or_not_and_wrongly_on_demand(kind: str) -> None:
    task = make_task(3, kind=kind, difficulty=2, seed=5)
    messages = [{"role": "user", "content": task.prompt}]
    with (
        endpoint("--decode-step-ms", "1") as good,
        endpoint("--fault", "wrong") as wrong,
        endpoint("--fault", "short") as short,
    ):
        whole = json.loads(ask(good.port, messages=messages, max_tokens=256)[2])["choices"][0]
        streamed = text_of(ask(good.port, messages=messages, max_tokens=256, stream=True)[2])
        off, cut = (
            json.loads(ask(one.port, messages=messages, max_tokens=256)[2])["choices"][0]
            for one in (wrong, short)
        )

    assert whole["finish_reason"] == off["finish_reason"] == cut["finish_reason"] == "stop"
    assert whole["message"]["content"] == streamed
    assert grade(task, streamed).is_right
    assert not grade(task, off["message"]["content"]).is_right
    assert not grade(task, cut["message"]["content"]).is_right

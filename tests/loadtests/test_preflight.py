"""Before the load: what is wrong with an endpoint is said in one clear line, and replicas are counted."""

from __future__ import annotations

import itertools
import json
import re
import socket
import time
from collections.abc import Callable

import pytest

from loadtests.preflight import ask, check_endpoint, count_replicas, judge_replicas, require_replicas
from loadtests.spec.workload import EndpointSpec
from probes.errors import TargetError
from probes.outcome import Outcome
from tests.loadtests.endpoints import raw_server

Answer = Callable[[str, dict[str, object]], tuple[int, dict[str, object], str]]


def http_server(answer: Answer) -> Callable[[socket.socket], None]:
    """Speak enough HTTP to answer one request per connection; ``answer`` gets path and body."""

    def behave(connection: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head.lower())
        while length is not None and len(body) < int(length[1]):
            body += connection.recv(65536)
        status, document, extra = answer(head.split()[1].decode(), json.loads(body) if body else {})
        data = json.dumps(document).encode()
        text = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        connection.sendall(f"{text}{extra}Connection: close\r\n\r\n".encode() + data)

    return behave


def behind(names: list[str | None]) -> Callable[[socket.socket], None]:
    """Answer as a balancer would that takes its replicas in turn; a replica without name sends no header."""
    turns = itertools.cycle(names)

    def answer(path: str, body: dict[str, object]) -> tuple[int, dict[str, object], str]:
        name = next(turns)
        return 200, {"choices": []}, "" if name is None else f"x-replica: {name}\r\n"

    return http_server(answer)


def test_replicas_are_counted_until_all_have_answered() -> None:
    with raw_server(behind(["a", "b", "c"])) as port:
        seen = count_replicas(f"http://127.0.0.1:{port}", EndpointSpec(), model="m", expected=3)

    assert seen == {"expected": 3, "asked": 3, "failed": 0, "replicas": {"a": 1, "b": 1, "c": 1}}
    assert judge_replicas(seen, expected=3, subject="endpoint:x").outcome is Outcome.PASS


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"])
def test_a_server_that_never_comes_to_an_end_of_its_answer_is_waited_for_no_longer_than_its_time(
    begin: bytes,
) -> None:
    def drip(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(begin)
        for byte in itertools.cycle(b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 10_000):
            connection.sendall(bytes((byte,)))
            time.sleep(0.05)

    with raw_server(drip) as port:
        began_s = time.monotonic()
        reply = ask(f"http://127.0.0.1:{port}", EndpointSpec(timeout_s=0.5), "GET", "/v1/models", None)
        took_s = time.monotonic() - began_s

    assert reply is None
    assert took_s < 10


def test_a_service_with_a_replica_missing_is_not_loaded() -> None:
    with raw_server(behind(["a", "b"])) as port:
        url = f"http://127.0.0.1:{port}"
        seen = count_replicas(url, EndpointSpec(), model="m", expected=3)
        with pytest.raises(TargetError, match=r"2 replicas answered 25 requests: a \(13\), b \(12\), expe"):
            require_replicas(url, seen)

    assert judge_replicas(seen, expected=3, subject="endpoint:x").outcome is Outcome.INCONCLUSIVE


def test_replicas_that_nobody_names_are_not_known_and_that_is_no_pass() -> None:
    with raw_server(behind([None])) as port:
        url = f"http://127.0.0.1:{port}"
        seen = count_replicas(url, EndpointSpec(), model="m", expected=2)
        require_replicas(url, seen)

    found = judge_replicas(seen, expected=2, subject="endpoint:x")
    assert (found.outcome, seen["replicas"]) == (Outcome.INCONCLUSIVE, {})
    assert "no answer names its replica by x-replica" in found.observed
    assert judge_replicas(None, expected=2, subject="endpoint:x").outcome is Outcome.INCONCLUSIVE


def test_a_wrong_model_is_told_with_the_models_that_are_there() -> None:
    def answer(path: str, body: dict[str, object]) -> tuple[int, dict[str, object], str]:
        if path == "/v1/models":
            return 200, {"data": [{"id": "llama"}, {"id": "qwen"}]}, ""
        return (200 if body["model"] in ("llama", "qwen") else 404), {"error": "no such model"}, ""

    with raw_server(http_server(answer)) as port:
        url = f"http://127.0.0.1:{port}"
        assert check_endpoint(url, EndpointSpec()) == "llama"
        with pytest.raises(TargetError, match=r"HTTP 404 .*\(no model 'lama' there, but 'llama', 'qwen'\)"):
            check_endpoint(url, EndpointSpec(model="lama"))


def test_who_is_not_authorised_is_told_which_key_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "secret-value")
    with raw_server(http_server(lambda path, body: (401, {}, ""))) as port:
        url = f"http://127.0.0.1:{port}"
        with pytest.raises(TargetError, match=r"not authorised; give a key by endpoint\.api_key_env"):
            check_endpoint(url, EndpointSpec())
        with pytest.raises(TargetError, match="the key from SOME_KEY is refused") as refused:
            check_endpoint(url, EndpointSpec(api_key_env="SOME_KEY"))

    assert "secret-value" not in str(refused.value)


def test_a_port_that_wants_tls_and_one_where_nobody_listens_are_told_apart() -> None:
    def speaks_tls(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"\x15\x03\x03\x00\x02\x02\x46")

    with raw_server(speaks_tls) as port, pytest.raises(TargetError, match="speaks TLS there, not plain HTTP"):
        check_endpoint(f"http://127.0.0.1:{port}", EndpointSpec())
    with pytest.raises(TargetError, match="cannot be reached: Connection refused; is it running"):
        check_endpoint(f"http://127.0.0.1:{port}", EndpointSpec())

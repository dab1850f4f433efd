"""NCCL's RAS: a server that speaks its protocol with a document of the form that NCCL's source writes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from burnin.node.ras import ask_ras, read_status

_STATUS = {
    "nccl_version": "2.29.2",
    "communicators_count": 2,
    "communicators": [
        {"hash": "0x1", "size": 1, "ranks": [], "missing_ranks": []},
        {
            "hash": "0x2",
            "size": 4,
            "ranks": [
                {"rank": 0, "host": "10.0.0.1", "collective_counts": {"AllReduce": 12, "AllGather": 3}},
                {"rank": 1, "host": "10.0.0.1", "collective_counts": {"AllReduce": 12, "AllGather": 2}},
                {"rank": 2, "host": "10.0.0.2", "collective_counts": {"AllReduce": 12, "AllGather": 3}},
            ],
            "missing_ranks": [
                {
                    "rank": 3,
                    "host": "10.0.0.2",
                    "pid": 7,
                    "status": {"unresponsive": True, "considered_dead": False},
                }
            ],
        },
    ],
    "ras": {"collection_time_sec": 0.1, "timeouts_count": 1},
}


def _serve(listening: socket.socket, answers: dict[str, bytes]) -> None:
    line, _ = listening.accept()
    with line, line.makefile("rb") as asked:
        for words in asked:
            key = words.decode().strip()
            line.sendall(answers.get(key, b"ERROR: Unknown command\n"))
            if key == "VERBOSE STATUS":
                return


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, bytes]], None]]:
    threads = []
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        monkeypatch.setenv("NCCL_RAS_ADDR", f"127.0.0.1:{listening.getsockname()[1]}")

        def start(answers: dict[str, bytes]) -> None:
            threads.append(threading.Thread(target=_serve, args=(listening, answers)))
            threads[0].start()

        yield start
    for thread in threads:
        thread.join(timeout=5)


_GREETING = {
    "CLIENT PROTOCOL 2": b"SERVER PROTOCOL 2\n",
    "TIMEOUT 1": b"OK\n",
    "SET FORMAT json": b"OK\n",
}


def test_missing_ranks_and_those_behind_are_told(serve: Callable[[dict[str, bytes]], None]) -> None:
    serve(_GREETING | {"VERBOSE STATUS": json.dumps(_STATUS).encode()})

    told = ask_ras(within_s=3)

    assert told == {
        "nccl": "2.29.2",
        "size": 4,
        "missing": [{"rank": 3, "host": "10.0.0.2", "unresponsive": True, "considered_dead": False}],
        "behind": [1],
    }


def test_an_older_nccl_without_json_is_no_evidence(serve: Callable[[dict[str, bytes]], None]) -> None:
    serve({**_GREETING, "SET FORMAT json": b"ERROR: Unknown command\n"})

    assert "answered b'ERROR: Unknown command" in ask_ras(within_s=3)["error"]


def test_a_ras_that_says_nothing_more_is_given_up(serve: Callable[[dict[str, bytes]], None]) -> None:
    serve({**_GREETING, "SET FORMAT json": b""})

    assert "TimeoutError" in ask_ras(within_s=1)["error"]


def test_where_nothing_listens_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_RAS_ADDR", "127.0.0.1:9")

    assert "ConnectionRefusedError" in ask_ras(within_s=1)["error"]


@pytest.mark.parametrize("text", ["[]", "{}", '{"communicators": 3}', "RAS client: …"])
def test_what_is_no_status_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_status(text)

"""A second run with the same seed is told from a first one, over a real server that has a prefix cache."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from probes.finding import Finding
from probes.outcome import Outcome
from reports.run import load_run
from tests.loadtests.endpoints import raw_server

WORKLOAD = """
name: cached
arrivals: {kind: constant, rate_per_s: 10}
duration_s: 1
prompt:
  input_tokens: {kind: constant, value: 80}
  output_tokens: {kind: constant, value: 1}
endpoint: {model: m, stream: false, timeout_s: 20}
"""
TEMPLATE_TOKENS = 40  # before what the user says, the same in all requests
BLOCK = 16


def with_prefix_cache() -> Callable[[socket.socket], None]:
    """Return a server that counts, in whole blocks, how much of a prompt's beginning it has seen before."""
    seen: set[tuple[str, ...]] = set()

    def usage(words: list[str]) -> dict[str, object]:
        tokens = ["template"] * TEMPLATE_TOKENS + words
        beginnings = [tuple(tokens[:end]) for end in range(BLOCK, len(tokens) + 1, BLOCK)]
        hits = sum(beginning in seen for beginning in beginnings)
        seen.update(beginnings)
        details = {"cached_tokens": hits * BLOCK}
        return {"prompt_tokens": len(tokens), "completion_tokens": 1, "prompt_tokens_details": details}

    def behave(connection: socket.socket) -> None:
        while received := connection.recv(65536):
            head, _, body = received.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head.lower())
            while length is not None and len(body) < int(length[1]):
                body += connection.recv(65536)
            asked = json.loads(body)["messages"][0]["content"].split() if body else []
            choice = {"message": {"content": "x"}, "finish_reason": "length"}
            data = json.dumps({"data": [], "choices": [choice], "usage": usage(asked)}).encode()
            length_field = f"Content-Length: {len(data)}\r\n\r\n".encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + length_field + data)

    return behave


def load(workload: Path, port: int, path: Path, *, seed: int) -> list[Finding]:
    command = [sys.executable, "-P", "-m", "overproof", "load", "run", str(workload), "--no-calibration"]
    where = ["--path", str(path), "--endpoint", f"http://127.0.0.1:{port}", "--seed", str(seed)]
    subprocess.run([*command, *where], capture_output=True, timeout=60, check=False)
    return [finding for finding in load_run(path).findings if finding.rule == "prefix-cache"]


def test_a_seed_that_the_servers_cache_has_met_is_inconclusive_unless_hits_are_wanted(tmp_path: Path) -> None:
    workload = tmp_path / "workload.yaml"
    workload.write_text(WORKLOAD)
    wanted = tmp_path / "wanted.yaml"
    wanted.write_text(WORKLOAD.replace("prompt:\n", "prompt:\n  defeat_prefix_cache: false\n"))
    with raw_server(with_prefix_cache()) as port:
        (first,) = load(workload, port, tmp_path / "first", seed=1)
        (again,) = load(workload, port, tmp_path / "again", seed=1)
        hits_wanted = load(wanted, port, tmp_path / "hits", seed=1)

    assert (first.outcome, again.outcome) == (Outcome.PASS, Outcome.INCONCLUSIVE)
    assert first.evidence["tokens_sent"] == pytest.approx(800, abs=40)
    assert first.evidence["tokens_cached"] == 0
    assert again.evidence["tokens_cached"] > 100
    assert "another --seed" in again.next_step
    assert hits_wanted == []

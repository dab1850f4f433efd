"""A load test of a server that nobody here wrote, with its own ideas of the protocol."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from probes.child import end_child, wait_until
from probes.request import Request
from reports.table import read_requests
from tests.processes import start_job

pytestmark = pytest.mark.needs("foreign-server/bin/transformers")

SERVER_BIN = Path(sys.prefix) / "foreign-server" / "bin"
START_TIMEOUT_S = 90.0  # its imports alone take ten seconds on an idle machine
WORKLOAD = """
name: foreign
endpoint: {{model: {model}, {more}}}
arrivals: {{kind: constant, rate_per_s: 3}}
duration_s: 5
prompt:
  input_tokens: {{kind: constant, value: 40}}
  output_tokens: {{kind: constant, value: 12}}
slos:
  - {{metric: ttft_ms, statistic: p80, bound: 60000}}
  - {{metric: goodput, objective: 0.8}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where it listens and what it serves."""

    url: str
    model: str
    folder: Path

    def load(self, name: str, more: str) -> tuple[int, list[Request], dict[str, str]]:
        """Run a load test; return its exit code, its rows and what each rule came to."""
        folder = self.folder / name
        folder.mkdir()
        (folder / "w.yaml").write_text(WORKLOAD.format(model=self.model, more=more))
        job = start_job(["load", "run", "w.yaml", "--endpoint", self.url, "--json"], folder)
        exit_code = job.wait(timeout_s=90)
        said = json.loads(job.text().splitlines()[-1])
        findings = {f"{f['rule']} {f['subject']}": str(f["outcome"]) for f in said["findings"]}
        return exit_code, read_requests(folder / said["run"]), findings


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("foreign")
    model = folder / "tiny"
    make = Path(__file__).parent / "foreign_server" / "make_model.py"
    subprocess.run([SERVER_BIN / "python", make, model], check=True, capture_output=True)
    (folder / "cache").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = ["--host=127.0.0.1", f"--port={port}"]
    with (folder / "server.log").open("w") as log:
        child = subprocess.Popen(
            [SERVER_BIN / "transformers", "serve", model, "--device=cpu", *address],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(folder / "cache")},
        )  # fmt: skip
    try:
        assert wait_until(lambda: _is_well(port) or child.poll() is not None, timeout_s=START_TIMEOUT_S)
        assert child.poll() is None, (folder / "server.log").read_text()
        yield Server(url=f"http://127.0.0.1:{port}", model=str(model), folder=folder)
    finally:
        end_child(child)


def _is_well(port: int) -> bool:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    with contextlib.closing(link), contextlib.suppress(OSError, http.client.HTTPException):
        link.request("GET", "/health")
        return link.getresponse().status == 200
    return False


def test_its_streams_are_read_whole_and_their_tokens_agree_with_its_usage(server: Server) -> None:
    exit_code, rows, findings = server.load("streams", "sends_done: false")

    assert len(rows) == 15
    assert [row.error for row in rows if row.error] == []
    assert {row.tokens_out for row in rows} == {12}
    assert all(row.t_sent_ns < row.t_first_ns <= row.t_last_ns <= row.t_end_ns for row in rows)  # type: ignore[operator]
    # Whether it keeps its promises is this machine's affair today; that we could tell is ours.
    own = {name: outcome for name, outcome in findings.items() if "client:" in name}
    assert findings["slo slo:goodput"] != "fail"
    assert exit_code in (0, 3), findings
    assert own["stream-integrity-control client:load"] == "pass"


def test_that_it_never_sends_done_is_named_with_what_to_do_about_it(server: Server) -> None:
    exit_code, rows, findings = server.load("strict", "sends_done: true")

    assert {row.error for row in rows} == {"no_done"}
    assert all("endpoint.sends_done: false" in (row.error_detail or "") for row in rows)
    assert findings["slo slo:goodput"] == "fail"
    assert exit_code == 1


def test_answers_that_are_not_streamed_are_read_too(server: Server) -> None:
    _, rows, findings = server.load("whole", "stream: false")

    assert {(row.error, row.tokens_out) for row in rows} == {(None, 12)}
    assert findings["slo slo:goodput"] != "fail"


def test_a_model_that_it_does_not_serve_ends_before_the_load_with_its_own_words(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "w.yaml").write_text(WORKLOAD.format(model="another", more="stream: true"))
    job = start_job(["load", "run", "w.yaml", "--endpoint", server.url], tmp_path)

    assert job.wait(timeout_s=60) == 3
    assert "Server is pinned to" in job.text()

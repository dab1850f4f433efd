"""The locustfile as any Locust user starts it: options, table, exit codes, web page."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import loadtests
from loadtests.reading.control import PLANTED
from loadtests.sending.plain_users import WORKER_STRIDE
from probes.child import wait_until
from tests.loadtests.crews import free_port
from tests.loadtests.endpoints import RunningEndpoint, endpoint, raw_server
from tests.loadtests.test_load_run import listening_of

LOCUSTFILE = Path(loadtests.__file__).with_name("locustfile.py")
LOCUST = [sys.executable, "-P", "-m", "locust", "-f", str(LOCUSTFILE)]
ROWS = {"time to first token", "gap between tokens", "time per output token", "tokens/s of one answer"}
WORKLOAD = """
name: plain
arrivals: {kind: closed, users: 1, think: {kind: constant, mean_s: 0.05}}
duration_s: 1
prompt:
  input_tokens: {kind: constant, value: 16}
  output_tokens: {kind: constant, value: 12}
"""


@pytest.fixture(scope="module")
def fast_endpoint() -> Iterator[RunningEndpoint]:
    with endpoint("--decode-step-ms", "4", "--slots", "64") as running:
        yield running


def locust(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    return subprocess.run(
        [*LOCUST, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_users_rate_time_and_host_count_as_in_any_locustfile_and_our_times_are_rows_of_the_table(
    fast_endpoint: RunningEndpoint, tmp_path: Path
) -> None:
    workload = tmp_path / "workload.yaml"
    workload.write_text(WORKLOAD)
    table = tmp_path / "table"
    done = locust(
        *("--headless", "-u", "3", "-r", "10", "-t", "3s", "--host", fast_endpoint.url),
        *("--workload", str(workload), "--json-file", str(table)),
        *("--csv", str(tmp_path / "csv")),
    )
    entries = {entry["name"]: entry for entry in json.loads(table.with_suffix(".json").read_text())}

    assert done.returncode == 0, done.stderr
    assert set(entries) == ROWS | {"/v1/chat/completions"}
    requests = entries["/v1/chat/completions"]["num_requests"]
    assert requests > 10
    assert entries["/v1/chat/completions"]["num_failures"] == 0
    assert entries["time to first token"]["num_requests"] == requests
    assert entries["gap between tokens"]["num_requests"] == 11 * requests
    first, gaps, whole = (
        entries[name]["total_response_time"]
        for name in ("time to first token", "gap between tokens", "/v1/chat/completions")
    )
    assert gaps / (11 * requests) > 3
    assert 0.8 * whole < first + gaps < 1.01 * whole  # of one answer, all in milliseconds
    # As Locust last wrote them: our rows are in no sum of requests.
    lines = [line.split(",") for line in (tmp_path / "csv_stats.csv").read_text().splitlines()]
    counts = {line[1]: line[2] for line in lines[1:]}
    assert counts["Aggregated"] == counts["/v1/chat/completions"] == counts["time to first token"]


def test_failed_requests_make_locust_exit_with_1_and_a_wrong_host_with_its_reason(tmp_path: Path) -> None:
    common = ("--headless", "-u", "2", "-L", "ERROR", "-t")
    with endpoint("--decode-step-ms", "4", "--fault", "cut:1") as running:
        cut = locust(*common, "8s", "--host", running.url)  # time to fail at least once, on any machine
    refused = locust(*common, "2s", "--host", running.url)
    nowhere = locust(*common, "2s")

    assert (cut.returncode, refused.returncode, nowhere.returncode) == (1, 3, 2)
    assert "no_done" in cut.stderr + cut.stdout
    assert "cannot be reached: Connection refused" in refused.stderr
    assert "no endpoint: give --host http://host:8000" in nowhere.stderr


def test_two_workers_send_no_prompt_twice_and_the_completions_api_is_asked_as_the_workload_says(
    tmp_path: Path,
) -> None:
    asked: list[tuple[bytes, str]] = []

    def answer(connection: socket.socket) -> None:
        while received := connection.recv(65536):
            head, _, body = received.partition(b"\r\n\r\n")
            length = int((head.lower().partition(b"content-length: ")[2] or b"0").split()[0])
            while len(body) < length:
                body += connection.recv(65536)
            if b'"stream":true' in body:
                asked.append((head.split()[1], json.loads(body)["prompt"]))
                connection.sendall(b"".join(PLANTED[0].parts))
            else:
                choice = b'{"choices":[{"text":"x","finish_reason":"stop"}]}'
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (len(choice), choice)
                )

    workload = tmp_path / "workload.yaml"
    workload.write_text(WORKLOAD + "endpoint: {api: completions, model: m}\n")

    def numbers() -> list[int]:
        return [int(prompt.partition("]")[0].rpartition("-")[2]) for _, prompt in tuple(asked)]

    master_port = str(free_port())
    with raw_server(answer) as port:
        process = subprocess.Popen(
            [
                *(*LOCUST, "--headless", "--processes", "2", "-u", "4", "-r", "10", "-L", "ERROR"),
                *("--master-bind-port", master_port, "--master-port", master_port),
                *("--host", f"http://127.0.0.1:{port}", "--workload", str(workload)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            have_both_asked = wait_until(
                lambda: {number // WORKER_STRIDE for number in numbers()} == {0, 1} and len(asked) > 8,
                timeout_s=60,
            )
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)

    assert have_both_asked
    assert {path for path, _ in asked} == {b"/v1/completions"}
    assert len(set(numbers())) == len(asked)


@pytest.mark.needs("chromium")
def test_the_web_page_listens_on_loopback_alone_and_shows_our_rows(
    fast_endpoint: RunningEndpoint, tmp_path: Path
) -> None:
    from playwright.sync_api import sync_playwright

    port = free_port()
    process = subprocess.Popen(
        [*LOCUST, "--web-port", str(port), "--host", fast_endpoint.url, "-L", "ERROR"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    page_url = f"http://127.0.0.1:{port}/"
    try:
        assert wait_until(lambda: listening_of(process.pid) != set(), timeout_s=20)
        listening = listening_of(process.pid)
        form = urllib.parse.urlencode({"user_count": 3, "spawn_rate": 10}).encode()
        with urllib.request.urlopen(page_url + "swarm", form, timeout=10) as reply:
            assert json.load(reply)["success"]
        assert wait_until(lambda: "tokens/s of one answer" in stats(page_url), timeout_s=15)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1300, "height": 800})
            page.goto(page_url)
            page.get_by_text("time to first token").first.wait_for(timeout=15_000)
            shown = page.inner_text("body")
            page.screenshot(path=str(tmp_path / "page.png"))
            browser.close()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=15)

    assert listening == {f"0100007F:{port:04X}"}
    assert set(ROWS) <= {row for row in ROWS if row in shown}
    assert process.returncode == 0


def stats(page_url: str) -> str:
    with urllib.request.urlopen(page_url + "stats/requests", timeout=10) as reply:
        return str(reply.read().decode())

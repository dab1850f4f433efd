"""The server's own metrics beside ours: recorded texts over real HTTP, pages that misbehave, a whole run."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from loadtests.watching.server_metrics import (
    Before,
    check_metrics_url,
    fetch_page,
    judge_server_metrics,
    parse_samples,
    read_columns,
    scrape,
    server_metrics,
)
from probes.child import wait_until
from probes.errors import ConfigError
from reports.exporter import SERVED
from reports.live_traffic import read_latest
from reports.record import create_run
from reports.run import load_run, read_ndjson
from reports.table import read_series
from reports.telemetry import telemetry_panels
from tests.loadtests.endpoints import raw_server
from tests.loadtests.noise import is_left_open_by_noise

VLLM = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="m"}} 7.0
vllm:num_requests_running{{engine="1",model_name="m"}} 5.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="m"}} 3.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{engine="0",model_name="m"}} 0.25
vllm:kv_cache_usage_perc{{engine="1",model_name="m"}} 0.35
# TYPE vllm:generation_tokens counter
vllm:generation_tokens_total{{engine="0",model_name="m"}} {tokens}
vllm:generation_tokens_created{{engine="0",model_name="m"}} 1.7e+09
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{{le="0.1",model_name="m"}} 4.0
vllm:time_to_first_token_seconds_bucket{{le="+Inf",model_name="m"}} {count}
vllm:time_to_first_token_seconds_count{{model_name="m"}} {count}
vllm:time_to_first_token_seconds_sum{{model_name="m"}} {sum}
# TYPE python_gc_objects_collected counter
python_gc_objects_collected_total{{generation="0"}} 1.0
"""
SGLANG = """# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="m"} 2
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{model_name="m"} 9
# TYPE sglang:token_usage gauge
sglang:token_usage{model_name="m"} 0.28
# TYPE sglang:cache_hit_rate gauge
sglang:cache_hit_rate{model_name="m"} 0.5
"""
TENSORRT = """# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 6
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 4
# TYPE nv_trt_llm_kv_cache_block_metrics gauge
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm"} 0.75
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm"} 6239
"""


def columns_of(page: str) -> dict[str, float]:
    return read_columns(parse_samples(page), Before(), t_s=1.0)


@contextlib.contextmanager
def page_server(page: Callable[[], str]) -> Iterator[str]:
    """Serve a page over real HTTP; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page().encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_ranks_are_added_up_and_shares_averaged() -> None:
    assert columns_of(VLLM.format(tokens=1, count=4, sum=1)) == {
        "server_running": 12,
        "server_waiting": 3,
        "server_kv_cache_pct": 30,
    }


@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        (SGLANG, (2, 9, 28, 50)),
        (TENSORRT, (6, 4, 75, None)),
        (
            "trtllm_num_requests_running 1\ntrtllm_num_requests_waiting 2\ntrtllm_kv_cache_utilization 0.5\n",
            (1, 2, 50, None),
        ),
    ],
)
def test_other_servers_speak_by_the_same_names(page: str, wanted: tuple[float | None, ...]) -> None:
    found = columns_of(page)
    names = ("server_running", "server_waiting", "server_kv_cache_pct", "server_cache_hit_pct")

    assert tuple(found.get(name) for name in names) == wanted


def test_counters_become_rates_and_histograms_means_from_the_second_page_on() -> None:
    before = Before()
    read_columns(parse_samples(VLLM.format(tokens=1000, count=4, sum=1.0)), before, t_s=10.0)
    second = read_columns(parse_samples(VLLM.format(tokens=1500, count=14, sum=3.0)), before, t_s=12.0)

    assert second["server_generated_token_rate"] == 250
    assert second["server_ttft_ms_mean"] == 200


def test_a_server_that_began_anew_gives_no_negative_rate() -> None:
    before = Before()
    read_columns(parse_samples(VLLM.format(tokens=1000, count=14, sum=3.0)), before, t_s=10.0)
    after = read_columns(parse_samples(VLLM.format(tokens=5, count=1, sum=0.1)), before, t_s=11.0)

    assert "server_generated_token_rate" not in after
    assert "server_ttft_ms_mean" not in after


def answer(data: bytes, *, pause_s: float = 0.0, pieces: int = 1) -> Callable[[socket.socket], None]:
    def behave(connection: socket.socket) -> None:
        connection.recv(65_536)
        size = max(1, len(data) // pieces)
        for start in range(0, len(data), size):
            connection.sendall(data[start : start + size])
            time.sleep(pause_s)

    return behave


NOBODY = "http://127.0.0.1:1/metrics"
OK = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        (answer(b""), "without response"),
        (answer(b"SSH-2.0-OpenSSH\r\n"), "SSH-2.0"),
        (answer(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n"), "HTTP 302"),
        (answer(b"HTTP/1.1 404 No\r\n\r\n"), "HTTP 404"),
        (answer(OK + b"x 1\n" * 400_000), "more than 1000000 bytes"),
        (answer(OK + b"x 1\n" * 200, pause_s=0.05, pieces=200), "not within 0.5 s"),
        (answer(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 200, pause_s=0.05, pieces=200), "not within 0.5 s"),
        (lambda connection: time.sleep(20), "not within 0.5 s"),
    ],
)
def test_a_page_that_misbehaves_ends_within_its_deadline_and_says_why(
    behave: Callable[[socket.socket], None], said: str
) -> None:
    deadline_s = 0.5 if "0.5 s" in said else 30
    began = time.monotonic()
    with raw_server(behave) as port, pytest.raises(ValueError, match=said):
        fetch_page(f"http://127.0.0.1:{port}/metrics", deadline_s=deadline_s, bytes_max=1_000_000)

    assert time.monotonic() - began < 8


@pytest.mark.parametrize("page", ["<html>", "a{b=", "vllm:num_requests_running NaN\n", "\x00\x01", "x 1\n"])
def test_a_page_of_something_else_is_a_problem_in_the_row(page: str) -> None:
    with page_server(lambda: page) as url:
        row = scrape(url, Before())

    assert row["problem"]
    assert not any(key.startswith("server_") for key in row)


@pytest.mark.parametrize(
    "url", ["ftp://h/metrics", "http://", "http://h:0/", "http://u:p@h/", "http://h:x/", "h"]
)
def test_what_is_no_address_is_a_usage_error(url: str) -> None:
    with pytest.raises(ConfigError, match="--metrics-url"):
        check_metrics_url(url)


def test_a_page_that_nobody_serves_leaves_rows_that_say_so_and_a_finding(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="load", spec={}, seed=1) as writer, server_metrics(NOBODY, writer):
        series = writer.path / "series" / "server.ndjson"
        assert wait_until(lambda: any(read_ndjson(series)), timeout_s=20)
    [found] = judge_server_metrics(load_run(writer.path))

    assert found.outcome is None
    assert "0 of" in found.observed
    assert "refused" in found.observed


def test_a_finding_is_there_only_where_metrics_were_asked_for(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="load", spec={}, seed=1) as writer:
        pass

    assert judge_server_metrics(load_run(writer.path)) == []


def test_a_run_records_the_servers_metrics_and_serves_its_own(tmp_path: Path) -> None:
    workload = tmp_path / "w.yaml"
    workload.write_text(
        "name: w\narrivals: {kind: constant, rate_per_s: 20}\nduration_s: 3\ncalibrate_prompts: false\n"
        "calibration: {is_skipped: true}\nslos: [{metric: goodput, objective: 0.5}]\n"
    )
    run, pages = tmp_path / "run", itertools.count(1)

    def page() -> str:
        page = next(pages)
        return VLLM.format(tokens=100 * page, count=10 * page, sum=page)

    with page_server(page) as url:
        options = ["--metrics-url", url, "--metrics-port", "0", "--path", str(run), "--json"]
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "overproof", "load", "run", str(workload), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert wait_until(lambda: "0" in read_latest(run), timeout_s=40)
        address = next(e.data["url"] for e in load_run(run).events_of(SERVED))
        said = urllib.request.urlopen(address, timeout=5).read().decode()
        out, err = process.communicate(timeout=60)

    assert "overproof_load_arrivals_total" in said
    assert (process.returncode, is_left_open_by_noise(load_run(run))) in ((0, False), (3, True)), err
    found = next(f for f in json.loads(out)["findings"] if f["rule"] == "server-metrics")
    assert found["outcome"] is None
    assert "server_running" in found["observed"]
    recorded = load_run(run)
    looks = read_series(recorded, "server")
    between = [
        later["server_generated_token_rate"] * (later["t_ns"] - earlier["t_ns"]) / 1e9
        for earlier, later in itertools.pairwise(looks)
    ]
    assert between
    assert between == pytest.approx([100] * len(between), rel=0.1)
    titles = [panel.title for panel in telemetry_panels(recorded, recorded.header.started_ns)[0]]
    assert "The server's own count: requests that wait in its queue" in titles

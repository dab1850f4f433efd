"""``--metrics-port``: how a load run is going, for Prometheus, on loopback while it runs.

The page is made from what the load processes put into the record, by the controller and only when somebody
asks: it costs the load nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from probes.errors import ConfigError
from probes.json_types import JsonObject
from reports.record import SERIES_FOLDER

SERVED = "load.metrics_served"
_TAIL_BYTES = 4096
# Column of the client's figures: name on the page, whether it is a counter, and what it is.
PAGE = {
    "arrivals": ("overproof_load_arrivals", True, "Requests that the schedule wanted so far."),
    "ended": ("overproof_load_ended", True, "Requests that have ended, well or not."),
    "failed": ("overproof_load_failed", True, "Requests that failed."),
    "dropped": ("overproof_load_dropped", True, "Arrivals dropped at the in-flight limit."),
    "events": ("overproof_load_stream_events", True, "Stream events with content."),
    "in_flight": ("overproof_load_in_flight", False, "Requests under way."),
    "lateness_ms_max": ("overproof_load_lateness_ms", False, "Latest sending of the last second."),
    "lag_ms_max": ("overproof_load_client_lag_ms", False, "Longest wait of received data, last second."),
    "busy_ms_max": ("overproof_load_client_busy_ms", False, "Longest time that the client did not look."),
    "cpu_pct": ("overproof_load_client_cpu_pct", False, "CPU time of the load process."),
}


def read_latest(run: Path) -> dict[str, JsonObject]:
    """Return the last whole row of each load process's figures, by its number."""
    found = {}
    for path in sorted((run / SERIES_FOLDER).glob("client-*.ndjson")):
        row = _last_row(path)
        if row is not None:
            found[path.stem.removeprefix("client-")] = row
    return found


def _last_row(path: Path) -> JsonObject | None:
    """Return the last whole row of a file that is being written; None: it has none yet."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().split(b"\n")
        row = json.loads(lines[-2]) if len(lines) > 1 else None
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) else None


def read_merged(run: Path) -> JsonObject | None:
    """Return the latest figures of all load processes together: the master's, or those of the only one."""
    merged = _last_row(run / SERIES_FOLDER / "load.ndjson")
    if merged is None:
        return read_latest(run).get("0")
    return merged | {"ended": merged.get("rows", 0)}


def render_page(run: Path) -> bytes:
    """Return the page as Prometheus reads it."""
    from prometheus_client import CollectorRegistry, generate_latest

    class Figures:
        """What prometheus-client calls a collector: asked anew for every page."""

        def collect(self) -> Iterator[Any]:
            yield from _families(read_latest(run))

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figures())
    page: bytes = generate_latest(registry)
    return page


def _families(latest: dict[str, JsonObject]) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for column, (name, is_counter, meaning) in PAGE.items():
        make = CounterMetricFamily if is_counter else GaugeMetricFamily
        family = make(name, meaning, labels=["worker"])
        for worker, row in latest.items():
            if isinstance(row.get(column), (int, float)):
                family.add_metric([worker], float(row[column]))
        yield family


@contextlib.contextmanager
def prometheus_page(port: int | None, run: Path) -> Iterator[int | None]:
    """Serve the page on loopback for as long as the block, and yield its port; None: nobody asked for it.

    Raises:
        ConfigError: the port is taken.
    """
    if port is None:
        yield None
        return

    class Handler(BaseHTTPRequestHandler):
        """Answers GET /metrics."""

        timeout = 5  # a client that says nothing holds a thread no longer

        def do_GET(self) -> None:
            is_ours = self.path.partition("?")[0] == "/metrics"
            body = render_page(run) if is_ours else b"see /metrics\n"
            self.send_response(200 if is_ours else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Keep quiet: standard error belongs to the run."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *arguments: object) -> None:
            """A client that goes in the middle is none of the run's business."""

    try:
        server = Server(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--metrics-port {port}: cannot be listened on: {error}") from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)

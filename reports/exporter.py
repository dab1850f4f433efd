"""``--metrics-port``: how a run is going, for Prometheus, while it runs; on loopback unless told otherwise.

The page is made by the controller and only when somebody asks: it costs what is measured nothing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from probes.errors import ConfigError
from reports.live import Progress
from reports.live_metrics import COUNTER, METRICS, Figure, run_figures
from reports.record import RunWriter
from reports.text import one_line

SERVED = "metrics.served"  # event: where the page is
LOOPBACK = "127.0.0.1"

Figures = Callable[[], Iterable[Figure]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsPage:
    """What the command line asks for."""

    port: int | None = None  # None: nobody asked for it; 0: any that is free
    listen: str = LOOPBACK


def render_page(figures: Iterable[Figure]) -> bytes:
    """Return the page as Prometheus reads it."""
    from prometheus_client import CollectorRegistry, generate_latest

    class Once:
        """What prometheus-client calls a collector."""

        def collect(self) -> Iterator[Any]:
            yield from _families(figures)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Once())
    page: bytes = generate_latest(registry)
    return page


def _families(figures: Iterable[Figure]) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    found: dict[str, Any] = {}
    for figure in figures:
        metric = METRICS[figure.name]
        if figure.name not in found:
            make = CounterMetricFamily if metric.kind == COUNTER else GaugeMetricFamily
            found[figure.name] = make(
                metric.name.removesuffix("_total"), metric.meaning, labels=list(metric.labels)
            )
        found[figure.name].add_metric(
            [one_line(figure.labels[label]) for label in metric.labels], figure.value
        )
    yield from found.values()


@contextlib.contextmanager
def served_live(page: MetricsPage, writer: RunWriter, progress: Progress, figures: Figures) -> Iterator[None]:
    """Serve the figures of a job and of its run for as long as the block, and tell where, if somebody asked.

    Raises:
        ConfigError: the port is taken, or the address is not of this machine.
    """

    def of_the_run() -> Iterator[Figure]:
        yield from run_figures(progress, run=writer.header.id, kind=writer.header.kind)
        yield from figures()

    with serve_metrics(page, of_the_run) as url:
        if url is not None:
            writer.event("controller", SERVED, url=url)
            progress.step("metrics", "done", url)
        yield


@contextlib.contextmanager
def serve_metrics(page: MetricsPage, figures: Figures) -> Iterator[str | None]:
    """Serve the page for as long as the block, and yield its address; None: nobody asked for it.

    Raises:
        ConfigError: the port is taken, or the address is not of this machine.
    """
    if page.port is None:
        yield None
        return

    class Handler(BaseHTTPRequestHandler):
        """Answers GET /metrics."""

        timeout = 5  # a client that says nothing holds a thread no longer

        def do_GET(self) -> None:
            is_ours = self.path.partition("?")[0] == "/metrics"
            body = render_page(figures()) if is_ours else b"see /metrics\n"
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
        server = Server((page.listen, page.port), Handler)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--metrics-port {page.port}: cannot be listened on at {page.listen}: {error}"
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
    thread.start()
    try:
        yield f"http://{page.listen}:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)

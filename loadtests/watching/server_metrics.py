"""What the server says of itself while it is loaded: its own metrics, in Prometheus' form, recorded.

A process of its own asks for them, each time within a deadline and up to a size: a slow, dead or hostile page
disturbs nothing but itself, and each time that nothing came stands in the record too.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from probes.child import end_child, python_module, start_child, watch_lifeline
from probes.errors import ConfigError
from probes.event import to_json_line
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.page import fetch, is_web_address
from reports.record import SERIES_FOLDER, RunWriter
from reports.run import Run
from reports.table import read_series, series_names

SERIES = "server"
ASKED = "load.server_metrics"  # event: the page that is asked for
DEADLINE_S = 2.0
BYTES_MAX = 4 * 1024 * 1024
_NICENESS = 10  # parsing a large page must not take the load's CPU time
INTERVAL_S = 1.0
ERROR_CHARS_MAX = 200
_TABLE = Path(__file__).with_suffix(".yaml")
_NAME = re.compile(r"^([^{]+)(?:\{(\w+)=([^}]*)\})?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One figure, and the names that servers have for it."""

    column: str
    kind: str  # "sum", "share", "rate" of a counter, "mean_ms" of a histogram in seconds
    names: tuple[str, ...]


@dataclass(slots=True)
class Before:
    """What counters stood at, last time."""

    t_s: float = 0.0
    totals: dict[str, float] = field(default_factory=dict)


Samples = Mapping[str, Sequence[tuple[Mapping[str, str], float]]]


@cache
def load_wanted() -> tuple[Wanted, ...]:
    """Return the table of figures and names."""
    import yaml

    rows = yaml.safe_load(_TABLE.read_text(encoding="utf-8"))["figures"]
    return tuple(Wanted(column=r["column"], kind=r["kind"], names=tuple(r["names"])) for r in rows)


def check_metrics_url(url: str) -> str:
    """Return the address of a metrics page.

    Raises:
        ConfigError: it is none.
    """
    if not is_web_address(url):
        raise ConfigError(f"--metrics-url {url!r}: wanted an address such as http://host:8000/metrics")
    return url


def fetch_page(url: str, *, deadline_s: float = DEADLINE_S, bytes_max: int = BYTES_MAX) -> str:
    """Return a metrics page.

    Raises:
        ValueError: it did not come whole, in time and within the size; redirects are not followed.
    """
    address = urlsplit(url)
    whole = address._replace(path=address.path or "/metrics").geturl()
    wanted = {"Accept": "text/plain;version=0.0.4"}
    page = fetch(whole, headers=wanted, deadline_s=deadline_s, bytes_max=bytes_max)
    if page.status != 200:
        raise ValueError(f"HTTP {page.status}")
    return page.body.decode("utf-8", errors="replace")


def parse_samples(page: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return the samples of a page, by name, that the table asks for.

    Raises:
        ValueError: the page is not in Prometheus' form.
    """
    from prometheus_client.parser import text_string_to_metric_families

    known = {_NAME.sub(r"\1", name) for wanted in load_wanted() for name in wanted.names}
    known |= {f"{name}_{part}" for name in known for part in ("sum", "count")}
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    try:
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name in known and math.isfinite(sample.value):
                    found.setdefault(sample.name, []).append((dict(sample.labels), float(sample.value)))
    except Exception as error:  # the parser raises whatever it stumbles over
        raise ValueError(f"not in Prometheus' form: {error}") from error
    return found


def read_columns(samples: Samples, before: Before, *, t_s: float) -> dict[str, float]:
    """Return the figures that a page has, and note its counters; a rate needs two pages."""
    span_s, columns = t_s - before.t_s, {}
    is_second = bool(before.totals) and span_s > 0
    totals: dict[str, float] = {}
    for wanted in load_wanted():
        for name in wanted.names:
            if wanted.kind in ("sum", "share"):
                values = _pick(samples, name)
                if values:
                    total = sum(values)
                    columns[wanted.column] = total if wanted.kind == "sum" else 100 * total / len(values)
                    break
                continue
            parts = [name] if wanted.kind == "rate" else [f"{name}_sum", f"{name}_count"]
            picked = [_pick(samples, part) for part in parts]
            if not all(picked):
                continue
            totals |= {part: sum(values) for part, values in zip(parts, picked, strict=True)}
            if is_second and all(part in before.totals for part in parts):
                steps = [totals[part] - before.totals[part] for part in parts]
                rate = _rate(wanted.kind, steps, span_s)
                columns |= {} if rate is None else {wanted.column: rate}
            break
    before.t_s, before.totals = t_s, totals
    return {column: round(value, 6) for column, value in columns.items()}


def _pick(samples: Samples, name: str) -> list[float]:
    matched = _NAME.match(name)
    assert matched is not None
    base, label, wanted = matched.groups()
    return [value for labels, value in samples.get(base, ()) if label is None or labels.get(label) == wanted]


def _rate(kind: str, steps: Sequence[float], span_s: float) -> float | None:
    """Return a rate or a mean of what came between two pages; None: it began anew, or nothing came."""
    if any(step < 0 for step in steps):
        return None
    if kind == "rate":
        return steps[0] / span_s
    return 1000 * steps[0] / steps[1] if steps[1] else None


def scrape(url: str, before: Before) -> JsonObject:
    """Return the row of one look at the page, whatever came of it."""
    t_ns, began_s = time.time_ns(), time.monotonic()
    row: JsonObject = {"t_ns": t_ns, "subject": "server", "problem": ""}
    try:
        columns = read_columns(parse_samples(fetch_page(url)), before, t_s=began_s)
        row |= columns
        if not columns and not before.totals:
            row["problem"] = "the page has no metric by a known name"
    except ValueError as error:
        row["problem"] = str(error)[:ERROR_CHARS_MAX]
    return row | {"scrape_ms": round((time.monotonic() - began_s) * 1000, 3)}


@contextlib.contextmanager
def server_metrics(url: str | None, writer: RunWriter) -> Iterator[None]:
    """Record the server's metrics for as long as the block; None: nobody asked for them."""
    if url is None:
        yield
        return
    writer.event("load", ASKED, url=url)
    (writer.path / SERIES_FOLDER).mkdir(exist_ok=True)
    with (writer.path / "server_metrics.log").open("w") as log:
        child = start_child(
            python_module("loadtests.watching.server_metrics", "--url", url, "--run", str(writer.path)),
            stdout=log,
            stderr=log,
        )
        try:
            yield
        finally:
            end_child(child)


def judge_server_metrics(run: Run) -> list[Finding]:
    """Tell how often the server's metrics came; shown, never merged: no promise is judged by them."""
    asked = run.events_of(ASKED)
    if not asked:
        return []
    rows = read_series(run, SERIES) if SERIES in series_names(run) else []
    came = [row for row in rows if not row.get("problem")]
    problems = sorted({str(row["problem"]) for row in rows if row.get("problem")})
    columns = sorted(
        {key for row in came for key, value in row.items() if key.startswith("server_") and value is not None}
    )
    observed = f"{len(came)} of {len(rows)} looks at {asked[0].data['url']} brought metrics"
    observed += f": {', '.join(columns)}" if columns else ""
    observed += f"; else: {'; '.join(problems[:3])}" if problems else ""
    return [
        Finding(
            rule="server-metrics",
            subject=f"endpoint:{asked[0].data['url']}",
            outcome=None,
            observed=observed if rows else f"{asked[0].data['url']} was never asked: the run ended first",
            expected="the server's own metrics beside ours, where it has any",
            evidence={"looks": len(rows), "came": len(came), "problems": problems[:20]},
        )
    ]


def main() -> None:
    """Look at the page once a second until standard input ends."""
    parser = argparse.ArgumentParser(prog="loadtests.watching.server_metrics")
    parser.add_argument("--url", required=True)
    parser.add_argument("--run", type=Path, required=True)
    options = parser.parse_args()
    watch_lifeline(lambda: os._exit(0))
    os.nice(_NICENESS)
    before, due = Before(), time.monotonic()
    with (options.run / SERIES_FOLDER / f"{SERIES}.ndjson").open("ab", buffering=0) as file:
        while True:
            file.write(to_json_line(scrape(options.url, before)).encode())
            due = max(due + INTERVAL_S, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()

"""Asks once a second how many replicas there are, for as long as the load: a metrics page or Prometheus.

A process of its own, as for the server's metrics: whoever does not answer disturbs nothing, and each look
that brought nothing stands in the record with its reason.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlencode

from loadtests.spec.expect import AutoscaleSpec, ExpectSpec, PageReplicas, PrometheusReplicas
from loadtests.watching.server_metrics import BYTES_MAX, DEADLINE_S, ERROR_CHARS_MAX, INTERVAL_S
from probes.child import end_child, python_module, start_child, watch_lifeline
from probes.errors import ConfigError
from probes.event import to_json_line
from probes.json_types import JsonObject
from probes.page import fetch
from reports.record import SERIES_FOLDER, RunWriter

SERIES = "replicas"
ASKED = "load.replicas_asked"  # event: who is asked

Probe = PageReplicas | PrometheusReplicas


def read_page(probe: PageReplicas, headers: Mapping[str, str]) -> float:
    """Return the sum of a metric's samples on a page.

    Raises:
        ValueError: it did not come, or the metric is not there.
    """
    from prometheus_client.parser import text_string_to_metric_families

    page = _get(probe.url, headers).decode("utf-8", errors="replace")
    # Nothing else of the page is parsed: a large one must take no CPU time from the load.
    lines = "".join(f"{line}\n" for line in page.splitlines() if line.startswith(probe.metric))
    try:
        samples = [one for family in text_string_to_metric_families(lines) for one in family.samples]
    except Exception as error:  # the parser raises whatever it stumbles over
        raise ValueError(f"not in Prometheus' form: {error}") from error
    values = [
        sample.value
        for sample in samples
        if sample.name == probe.metric and probe.labels.items() <= sample.labels.items()
    ]
    if not values:
        raise ValueError(f"the page has no sample of {probe.metric} {probe.labels or ''}".rstrip())
    return float(sum(values))


def read_prometheus(probe: PrometheusReplicas, headers: Mapping[str, str]) -> float:
    """Return the value of a query.

    Raises:
        ValueError: no answer, or not one number: an empty result is not known to be none.
    """
    url = f"{probe.url}/api/v1/query?{urlencode({'query': probe.query})}"
    try:
        data = json.loads(_get(url, headers))["data"]
        result, kind = data["result"], data["resultType"]
        if kind == "vector" and len(result) != 1:
            raise ValueError(f"the query gives {len(result)} series, wanted one: sum() or count() them")
        if kind not in ("vector", "scalar"):
            raise ValueError(f"the query gives a {kind}, wanted one number")
        return float(result[1] if kind == "scalar" else result[0]["value"][1])
    except (KeyError, TypeError, IndexError, json.JSONDecodeError) as error:
        raise ValueError(f"not an answer of Prometheus: {error!r}") from error


def _get(url: str, headers: Mapping[str, str]) -> bytes:
    answer = fetch(url, headers=headers, deadline_s=DEADLINE_S, bytes_max=BYTES_MAX)
    if answer.status != 200:
        raise ValueError(f"HTTP {answer.status}")
    return answer.body


READERS: dict[type[Probe], Callable[..., float]] = {
    PageReplicas: read_page,
    PrometheusReplicas: read_prometheus,
}


def look(probe: Probe, headers: Mapping[str, str]) -> JsonObject:
    """Return the row of one look, whatever came of it; it stands for the moment at which it was begun."""
    row: JsonObject = {"t_ns": time.time_ns(), "subject": "endpoint", "source": probe.kind, "problem": ""}
    try:
        value = READERS[type(probe)](probe, headers)
        if not math.isfinite(value) or value < 0 or value != int(value):
            raise ValueError(f"{value!r} is no number of replicas")
        row |= {"replicas": int(value), "replicas_at_most": int(value)}
    except ValueError as error:
        row["problem"] = str(error)[:ERROR_CHARS_MAX]
    return row


def read_authorization(expected: AutoscaleSpec) -> dict[str, str]:
    """Return the header that the source wants.

    Raises:
        ConfigError: the environment does not hold it.
    """
    name = getattr(expected.replicas, "authorization_env", None)
    if name is None:
        return {}
    value = os.environ.get(name, "").strip()
    if not value or not value.isascii() or not value.isprintable():
        raise ConfigError(f"expect.autoscale.replicas.authorization_env: {name} does not hold one header")
    return {"Authorization": value}


@contextlib.contextmanager
def replica_watch(expected: ExpectSpec | None, writer: RunWriter) -> Iterator[None]:
    """Record the number of replicas for as long as the block, where the workload wants somebody asked."""
    probe = None if expected is None else expected.autoscale.replicas
    if expected is None or not isinstance(probe, PageReplicas | PrometheusReplicas):
        yield
        return
    read_authorization(expected.autoscale)
    writer.event("load", ASKED, kind_of=probe.kind, url=probe.url)
    (writer.path / SERIES_FOLDER).mkdir(exist_ok=True)
    with (writer.path / "replica_watch.log").open("w") as log:
        said = expected.model_dump_json()
        command = python_module(
            "loadtests.watching.replica_watch", "--expect", said, "--run", str(writer.path)
        )
        child = start_child(command, stdout=log, stderr=log)
        try:
            yield
        finally:
            end_child(child)


def main() -> None:
    """Look once a second until standard input ends."""
    parser = argparse.ArgumentParser(prog="loadtests.watching.replica_watch")
    parser.add_argument("--expect", required=True)
    parser.add_argument("--run", type=Path, required=True)
    options = parser.parse_args()
    watch_lifeline(lambda: os._exit(0))
    expected = ExpectSpec.model_validate_json(options.expect).autoscale
    probe, headers, due = expected.replicas, read_authorization(expected), time.monotonic()
    assert isinstance(probe, PageReplicas | PrometheusReplicas)
    with (options.run / SERIES_FOLDER / f"{SERIES}.ndjson").open("ab", buffering=0) as file:
        while True:
            file.write(to_json_line(look(probe, headers)).encode())
            due = max(due + INTERVAL_S, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()

"""The panels of the sampled series: one panel per figure, one line per subject."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

from probes.json_types import JsonObject
from reports.panel import Panel, Point, Series, thin, with_gaps
from reports.run import Run
from reports.table import read_series, series_names

# Columns that say what a row is about, the most telling first, and those that tell its lines apart.
_SUBJECTS = ("subject", "gpu", "uuid", "device", "link", "worker", "replica", "name", "host")
_QUALIFIERS = ("format", "dtype", "size_bytes", "pattern", "path", "phase")
# What a reader looks for first, with the words for it; whatever else was sampled follows by its own name.
_TITLES = {
    "step": "Steps of each rank: what is done again falls back",
    "data_wait_s": "Waiting for data in each step",
    "compute_s": "Work of each rank before the collective, in each step",
    "sync_s": "Waiting for the other ranks in each step",
    "is_serving": "Replicas that serve",
    "replicas": "Replicas that were seen to serve",
    "replicas_ready": "Replicas that serve",
    "matching_alerts": "Alerts of the site that match and fire",
    "server_running": "The server's own count: requests that it works on",
    "server_waiting": "The server's own count: requests that wait in its queue",
    "server_kv_cache_pct": "The server's own figure: KV cache in use",
    "server_cache_hit_pct": "The server's own figure: prompt tokens found in its cache",
    "server_generated_token_rate": "The server's own figure: output tokens per second",
    "server_prompt_token_rate": "The server's own figure: prompt tokens per second",
    "server_preemption_rate": "The server's own figure: preemptions per second",
    "server_ttft_ms_mean": "The server's own figure: mean time to first token",
    "server_itl_ms_mean": "The server's own figure: mean time between tokens",
    "tflops": "Matrix products",
    "busy_tflops": "Matrix products while the device was busy",
    "busy_pct": "Share of time that the device was busy",
    "busbw_gbps": "All-reduce bus bandwidth",
    "temperature_c": "Temperature",
    "memory_temperature_c": "Memory temperature",
    "power_w": "Power",
    "power_limit_w": "Power limit",
    "sm_clock_mhz": "SM clock",
    "mem_clock_mhz": "Memory clock",
    "utilisation_pct": "Utilisation",
    "clock_event_reasons": "Clock event reasons, as bits",
    "busy_ms_max": "Longest time that the load client did not look",
    "cpu_pct": "CPU time of the load client",
    "load_1min": "Load average of the host",
    "cpu_pressure_pct": "CPU pressure of the host",
    "memory_available_bytes": "Memory available on the host",
}
_UNITS = {
    "tflops": "TFLOPS", "gflops": "GFLOPS", "gbps": "GB/s", "c": "°C", "w": "W", "mhz": "MHz", "pct": "%",
    "ms": "ms", "us": "µs", "ns": "ns", "s": "s", "bytes": "GB", "mib": "MiB", "j": "J",
}  # fmt: skip
# Names and counters that are no figures, and what the request rows show better.
_NOT_DRAWN = frozenset(
    {"t_ns", "pid", "start_time", "port", "seed", "index", "iteration", "products", "is_routed"}
    | {"arrivals", "ended", "failed", "dropped", "events", "in_flight", "lag_ms_max", "lateness_ms_max"}
    | {
        "rank",
        "restart",
        "checkpoint_step",
        "replicas_at_most",
        "clock_step_ms",
        "xid",
        "scrape_ms",
        "date_s",
        "t_sent_ns",
    }
)
PANELS_MAX = 16
LINES_MAX = 16  # more lines than this cannot be told apart; the extremes are kept
_ROLES = ("main", "second", "third", "fourth", "faint")

Lines = dict[str, list[Point]]


def telemetry_panels(run: Run, t0_ns: int) -> list[Panel]:
    """Return a panel for each figure that was sampled, the most asked for first."""
    if (
        run.header.kind == "fleet"
    ):  # its tables hold one row for each part of thousands, and no course of time
        return []
    panels = [
        panel for name in series_names(run) for panel in _series_panels(name, read_series(run, name), t0_ns)
    ]
    return sorted(panels, key=lambda panel: _rank(panel.name))[:PANELS_MAX]


def _rank(name: str) -> int:
    column, order = name.rpartition(".")[2], list(_TITLES)
    return order.index(column) if column in order else len(order)


def _series_panels(name: str, rows: Sequence[JsonObject], t0_ns: int) -> Iterator[Panel]:
    figures: dict[str, Lines] = defaultdict(lambda: defaultdict(list))
    claims: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        t_ns = row.get("t_ns")
        if not isinstance(t_ns, int):
            continue
        for column, value in row.items():
            if isinstance(value, bool) and column in _TITLES:
                claims[column][t_ns] += value
            elif _is_figure(column, value):
                scaled = value / 1e9 if _suffix(column) == "bytes" else value
                figures[column][subject_of(row)].append(((t_ns - t0_ns) / 1e9, float(scaled)))
    for column, counts in claims.items():
        points: list[Point] = [((t_ns - t0_ns) / 1e9, count) for t_ns, count in sorted(counts.items())]
        yield _panel(name, column, {"replicas": points}, stepped=True)
    for column, lines in figures.items():
        if _says_something(column, lines):
            yield _panel(name, column, lines, stepped=column.startswith("replicas"))


def _is_figure(column: str, value: object) -> bool:
    if column in _NOT_DRAWN or column in _SUBJECTS or column in _QUALIFIERS or isinstance(value, bool):
        return False
    return isinstance(value, (int, float)) and math.isfinite(value)


def _says_something(column: str, lines: Lines) -> bool:
    """A counter that never moved is not worth a panel; what readers look for is, even when it is flat."""
    return column in _TITLES or any(len({value for _, value in points}) > 1 for points in lines.values())


def subject_of(row: JsonObject) -> str:
    """Return what a row is about, in a word or two; the empty string where no column says so."""
    subject = next((str(row[column]) for column in _SUBJECTS if row.get(column) not in (None, "")), "")
    qualifiers = [str(row[column]) for column in _QUALIFIERS if row.get(column) not in (None, "")]
    return " ".join([subject, *qualifiers]).strip()


def _panel(name: str, column: str, lines: Lines, *, stepped: bool) -> Panel:
    words = column.replace("_", " ")
    shown = _most_telling(lines)
    return Panel(
        name=f"{name}.{column}",
        title=_TITLES.get(column) or f"{words[:1].upper()}{words[1:]} ({name})",
        unit=_UNITS.get(_suffix(column), ""),
        series=tuple(
            Series(
                label=subject or name,
                role=_ROLES[min(index, len(_ROLES) - 1)],
                points=thin(with_gaps(lines[subject])),
                stepped=stepped,
            )
            for index, subject in enumerate(shown)
        ),
        note=f"the {len(shown)} of {len(lines)} with the lowest and highest means"
        if len(shown) < len(lines)
        else "",
    )


def _suffix(column: str) -> str:
    """Return the unit in a column's name, which stands last or before ``max``, ``min`` or a percentile."""
    return next((part for part in reversed(column.split("_")[-2:]) if part in _UNITS), "")


def _most_telling(lines: Lines) -> list[str]:
    """Return the subjects in order; of too many, those with the lowest and the highest mean."""
    if len(lines) <= LINES_MAX:
        return sorted(lines)
    by_mean = sorted(lines, key=lambda s: sum(v or 0.0 for _, v in lines[s]) / len(lines[s]))
    half = LINES_MAX // 2
    return sorted(by_mean[:half] + by_mean[-half:])

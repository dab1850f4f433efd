"""The panels of the sampled series: one panel per figure, one line per subject."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from probes.json_types import JsonObject
from reports.panel import Panel, Point, Series, thin, with_gaps
from reports.run import Run
from reports.table import read_series, series_names

# Columns that say what a row is about, the most telling first.
_SUBJECTS = ("subject", "gpu", "uuid", "device", "link", "worker", "replica", "name", "host")
# What a reader looks for first, with the words for it; whatever else was sampled follows by name.
_TITLES = {
    "tflops": "Matrix products",
    "busbw_gbps": "All-reduce bus bandwidth",
    "replicas_ready": "Replicas ready",
    "ready": "Replicas ready",
    "temperature_c": "Temperature",
    "memory_temperature_c": "Memory temperature",
    "power_w": "Power",
    "sm_clock_mhz": "SM clock",
    "clock_mhz": "Clock",
    "util_pct": "Utilisation",
}
_UNITS = {
    "tflops": "TFLOPS",
    "gflops": "GFLOPS",
    "gbps": "GB/s",
    "c": "°C",
    "w": "W",
    "mhz": "MHz",
    "pct": "%",
    "ms": "ms",
    "us": "µs",
    "s": "s",
    "bytes": "B",
    "mib": "MiB",
    "j": "J",
}
_TIMES = frozenset({"t_ns", "started_ns", "ended_ns", "index", "iteration", "pid", "seed"})
PANELS_MAX = 14
LINES_MAX = 16  # more lines than this cannot be told apart; the extremes are kept


def telemetry_panels(run: Run, t0_ns: int) -> list[Panel]:
    """Return a panel for each numeric column that was sampled."""
    panels = [
        panel for name in series_names(run) for panel in _series_panels(name, read_series(run, name), t0_ns)
    ]
    order = list(_TITLES)
    ranked = sorted(panels, key=lambda p: order.index(_column(p)) if _column(p) in order else len(order))
    return ranked[:PANELS_MAX]


def _column(panel: Panel) -> str:
    return panel.name.rpartition(".")[2]


def _series_panels(name: str, rows: Sequence[JsonObject], t0_ns: int) -> list[Panel]:
    lines: dict[str, dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if not isinstance(row.get("t_ns"), int):
            continue
        t_s = (row["t_ns"] - t0_ns) / 1e9
        for column, value in row.items():
            if _is_figure(column, value):
                lines[column][subject_of(row)].append((t_s, float(value)))
    return [_panel(name, column, subjects) for column, subjects in lines.items()]


def _is_figure(column: str, value: object) -> bool:
    if column in _TIMES or column in _SUBJECTS or isinstance(value, bool):
        return False
    return isinstance(value, (int, float)) and math.isfinite(value)


def subject_of(row: JsonObject) -> str:
    """Return what a row is about, in a word; the empty string where no column says so."""
    return next((str(row[column]) for column in _SUBJECTS if row.get(column) not in (None, "")), "")


def _panel(name: str, column: str, subjects: dict[str, list[Point]]) -> Panel:
    words = column.removesuffix(f"_{_suffix(column)}").replace("_", " ")
    title = _TITLES.get(column) or f"{words[:1].upper()}{words[1:]}"
    shown = _most_telling(subjects)
    roles = ("main", "second", "faint")
    return Panel(
        name=f"{name}.{column}",
        title=f"{title} ({name})" if column not in _TITLES else title,
        unit=_UNITS.get(_suffix(column), ""),
        series=tuple(
            Series(
                label=subject or name,
                role=roles[min(index, 2)],
                points=thin(with_gaps(subjects[subject])),
                stepped=column in ("ready", "replicas_ready"),
            )
            for index, subject in enumerate(shown)
        ),
        note=f"{len(shown)} of {len(subjects)} shown" if len(shown) < len(subjects) else "",
    )


def _suffix(column: str) -> str:
    last = column.rpartition("_")[2]
    return last if last in _UNITS else ""


def _most_telling(subjects: dict[str, list[Point]]) -> list[str]:
    """Return the subjects in order; of too many, those with the lowest and the highest mean."""
    if len(subjects) <= LINES_MAX:
        return sorted(subjects)
    by_mean = sorted(subjects, key=lambda s: sum(v or 0.0 for _, v in subjects[s]) / len(subjects[s]))
    half = LINES_MAX // 2
    return sorted(by_mean[:half] + by_mean[-half:])

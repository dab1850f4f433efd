"""The panels of the sampled series: one panel per figure, one line per subject."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from probes.errors import RecordError
from reports.panel import ROLES, Panel, Point, Series
from reports.run import Run
from reports.series_table import QUALIFIERS, SUBJECTS, SeriesTable, open_series, quoted
from reports.table import series_names
from reports.thinning import thinned_lines

# What holds the clocks of a GPU back, by the columns that say for which part of each second.
HELD_BACK = {
    "held_hw_slowdown_pct": "hardware slowdown",
    "held_hw_thermal_pct": "hardware heat",
    "held_sw_thermal_pct": "software heat",
    "held_power_brake_pct": "power brake",
}
_POWER_CAP = 0x4  # of NVML's clock event reasons; usual at full load
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
    "power_max_w": "Highest power in each second",
    "sm_clock_mhz": "SM clock",
    "sm_clock_min_mhz": "Lowest SM clock in each second",
    "held_pct": "Clocks held back, share of each second",
    "power_limit_w": "Power limit",
    "memory_clock_mhz": "Memory clock",
    "util_pct": "Utilisation",
    "temperature_margin_c": "Margin to the temperature at which clocks fall",
    "busy_ms_max": "Longest time that the load client did not look",
    "cpu_pct": "CPU time of the load client",
    "load_1min": "Load average of the host",
    "cpu_pressure_pct": "CPU pressure of the host",
    "memory_available_bytes": "Memory available on the host",
}
# In words, of figures that nobody looks for first.
_WORDS = {"gbps": "Transfer rate"}
_UNITS = {
    "tflops": "TFLOPS", "gflops": "GFLOPS", "gbps": "GB/s", "c": "°C", "w": "W", "mhz": "MHz", "pct": "%",
    "ms": "ms", "us": "µs", "ns": "ns", "s": "s", "bytes": "GB", "mib": "MiB", "j": "J",
}  # fmt: skip
# Names and counters that are no figures, and what the request rows show better.
_NOT_DRAWN = frozenset(
    {
        *HELD_BACK,
        "event_reasons",
        "t_ns",
        "pid",
        "start_time",
        "port",
        "seed",
        "index",
        "iteration",
        "products",
        "is_routed",
    }
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


def telemetry_panels(run: Run, t0_ns: int) -> tuple[list[Panel], list[str]]:
    """Return a panel for each figure that was sampled, the most asked for first; and what cannot be read."""
    panels: list[Panel] = []
    problems: list[str] = []
    if run.header.kind == "fleet":  # its tables hold a row for each part of thousands, and no course of time
        return panels, problems
    names = gpu_names(run)
    for series in series_names(run):
        try:
            panels += _series_panels(run, series, t0_ns, names)
        except RecordError as error:
            problems.append(str(error))
    titles = Counter(panel.title for panel in panels)
    named = [
        panel
        if titles[panel.title] == 1
        else replace(panel, title=f"{panel.title}: {panel.name.split('.')[0]}")
        for panel in panels
    ]
    return sorted(named, key=lambda panel: _rank(panel.name))[:PANELS_MAX], problems


def gpu_names(run: Run) -> dict[str, str]:
    """Return a short name for each GPU that the record knows by its UUID."""
    inventory = next((event.data for event in run.events_of("nvml.inventory")), {})
    listed = inventory.get("gpus")
    gpus = [gpu for gpu in listed if isinstance(gpu, dict)] if isinstance(listed, list) else []
    return {
        str(gpu["uuid"]): f"gpu:{gpu.get('index', place)}"
        for place, gpu in enumerate(gpus)
        if gpu.get("uuid")
    }


def _rank(name: str) -> int:
    column, order = name.rpartition(".")[2], list(_TITLES)
    return order.index(column) if column in order else len(order)


def _series_panels(run: Run, name: str, t0_ns: int, names: Mapping[str, str]) -> Iterator[Panel]:
    with open_series(run, name) as table:
        held = [column for column in HELD_BACK if column in table.figures]
        if held:
            yield _held_panel(table, name, held, t0_ns)
        for column in table.claims:
            if column in _TITLES:
                counts = f"""
                    SELECT 'replicas' AS line, t_ns, CAST(count_if({quoted(column)}) AS DOUBLE) AS v
                    FROM series WHERE {quoted(column)} IS NOT NULL GROUP BY t_ns
                """  # noqa: S608
                yield _panel(name, column, thinned_lines(table.connection, counts, t0_ns=t0_ns), stepped=True)
        figures = [
            c for c in table.figures if c not in _NOT_DRAWN and c not in SUBJECTS and c not in QUALIFIERS
        ]
        for column, means in _means(table, figures).items():
            shown = _most_telling(means)
            scale = " / 1e9" if _suffix(column) == "bytes" else ""
            points = f"""
                SELECT line, t_ns, {quoted(column)}{scale} AS v FROM series
                WHERE v IS NOT NULL AND line IN (SELECT unnest({_list(shown)}))
            """  # noqa: S608
            lines = thinned_lines(table.connection, points, t0_ns=t0_ns)
            named = {names.get(line, line): lines[line] for line in shown}
            yield _panel(name, column, named, of=len(means), stepped=column.startswith("replicas"))


def _means(table: SeriesTable, figures: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the mean of each line of each figure that says something.

    A counter that never moved is not worth a panel; what readers look for is, even when it is flat.
    """
    if not figures:
        return {}
    wanted = ", ".join(f"avg({c}), min({c}) < max({c})" for c in map(quoted, figures))
    rows = table.connection.execute(f"SELECT line, {wanted} FROM series GROUP BY line").fetchall()  # noqa: S608
    found: dict[str, dict[str, float]] = {}
    for place, figure in enumerate(figures):
        lines = [(row[0], row[1 + 2 * place], row[2 + 2 * place]) for row in rows]
        if figure in _TITLES or any(has_moved for _, _, has_moved in lines):
            found[figure] = {line: mean for line, mean, _ in lines if mean is not None}
    return {figure: means for figure, means in found.items() if means}


def _held_panel(table: SeriesTable, name: str, held: Sequence[str], t0_ns: int) -> Panel:
    """Return for how much of each second the GPU that was held back most was, for each reason."""
    parts = [f"SELECT '{HELD_BACK[c]}' AS line, t_ns, {quoted(c)} AS v FROM series" for c in held]  # noqa: S608
    if "event_reasons" in table.figures:
        seen = f"100.0 * (CAST(event_reasons AS BIGINT) & {_POWER_CAP} > 0)::INT"
        parts.append(f"SELECT 'power cap (seen)' AS line, t_ns, {seen} AS v FROM series")  # noqa: S608
    worst = f"""
        SELECT line, t_ns // 1000000000 * 1000000000 AS t_ns, max(v) AS v
        FROM ({" UNION ALL ".join(parts)}) WHERE v IS NOT NULL GROUP BY ALL
    """  # noqa: S608
    lines = thinned_lines(table.connection, worst, t0_ns=t0_ns)
    panel = _panel(name, "held_pct", lines, stepped=True)
    return replace(panel, note="of the GPU that was held back most in that second, by reason")


def _list(texts: Sequence[str]) -> str:
    return "[" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + "]"


def _panel(
    name: str, column: str, lines: Mapping[str, Sequence[Point]], *, stepped: bool, of: int = 0
) -> Panel:
    words = column.replace("_", " ")
    return Panel(
        name=f"{name}.{column}",
        title=_TITLES.get(column) or f"{_WORDS.get(column, words[:1].upper() + words[1:])} ({name})",
        unit=_UNITS.get(_suffix(column), ""),
        series=tuple(
            Series(
                label=subject or name,
                role=ROLES[index % len(ROLES)],
                is_again=index >= len(ROLES),
                points=tuple(points),
                stepped=stepped,
            )
            for index, (subject, points) in enumerate(lines.items())
        ),
        note=f"the {len(lines)} of {of} with the lowest and highest means" if len(lines) < of else "",
    )


def _suffix(column: str) -> str:
    """Return the unit in a column's name, which stands last or before ``max``, ``min`` or a percentile."""
    return next((part for part in reversed(column.split("_")[-2:]) if part in _UNITS), "")


def _most_telling(means: Mapping[str, float]) -> list[str]:
    """Return the subjects in order; of too many, those with the lowest and the highest mean."""
    if len(means) <= LINES_MAX:
        return sorted(means)
    by_mean = sorted(means, key=lambda line: (means[line], line))
    half = LINES_MAX // 2
    return sorted(by_mean[:half] + by_mean[-half:])

"""What a burn-in shows of each device: identity, verdict, figures; and of the links between them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from probes.errors import RecordError
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome, worst
from reports.fleet_heat import heat_level
from reports.run import Run
from reports.series_table import SeriesTable, open_series, quoted
from reports.table import series_names
from reports.telemetry import HELD_BACK
from reports.text import one_line

BURN_IN = "burnin"  # kind of such a run
DEVICES_MAX = 64
# Columns of the samples of a GPU: what the table says of them, and in which words.
_SENSED = (
    ("temperature_c", "max", "temperature max °C"),
    ("memory_temperature_c", "max", "memory max °C"),
    ("power_max_w", "max", "power max W"),
    ("sm_clock_min_mhz", "min", "SM clock min MHz"),
)
_MATMUL, _BUSY, _LINKS, _BOTH_WAYS = "matmul", "busy_tflops", "links", " both ways"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """One device."""

    name: str
    model: str
    outcome: Outcome | None  # of the findings about it; None: there are none
    findings: int
    against: str  # the rules that did not pass
    figures: Mapping[str, float | None]  # None: it was not read


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkCell:
    """What one device received from another."""

    row: int
    column: int
    gbps: float
    level: int  # of the colours of the fleet's heat map, 1 to 6
    is_broken: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """The table and the heat map; columns that no device has are left out."""

    rows: tuple[DeviceRow, ...]
    columns: tuple[str, ...]
    left_out: int
    links: tuple[str, ...]  # names of the devices that a link joins
    cells: tuple[LinkCell, ...]


def read_devices(run: Run) -> Devices | None:
    """Return what the record says of the devices of a burn-in; None: it is none, or it names none."""
    listed = _listed(run)
    if run.header.kind != BURN_IN or not listed:
        return None
    figures = _figures(run)
    rows = tuple(_row(run, device, figures) for device in listed[:DEVICES_MAX])
    columns = dict.fromkeys(column for row in rows for column in row.figures)
    labels, cells = _links(run, [row.name for row in rows])
    return Devices(
        rows=rows,
        columns=tuple(columns),
        left_out=max(0, len(listed) - DEVICES_MAX),
        links=labels,
        cells=cells,
    )


def _listed(run: Run) -> list[JsonObject]:
    inventory = next((event.data for event in run.events_of("inventory")), {})
    listed = inventory.get("devices")
    return (
        [row for row in listed if isinstance(row, dict) and row.get("name")]
        if isinstance(listed, list)
        else []
    )


def _row(run: Run, device: JsonObject, figures: Mapping[str, Mapping[str, float]]) -> DeviceRow:
    names = {str(device[key]) for key in ("name", "uuid") if device.get(key)}
    about = [finding for finding in run.findings if _is_about(finding, names)]
    outcomes = [finding.outcome for finding in about if finding.counts and finding.outcome is not None]
    against = dict.fromkeys(f.rule for f in about if f.counts and f.outcome not in (Outcome.PASS, None))
    return DeviceRow(
        name=str(device["name"]),
        model=one_line(str(device.get("model") or device.get("uuid") or ""), 60),
        outcome=worst(outcomes) if outcomes else None,
        findings=len(outcomes),
        against=", ".join(against),
        figures={column: next((by[n] for n in names if n in by), None) for column, by in figures.items()},
    )


def _is_about(finding: Finding, names: set[str]) -> bool:
    return finding.subject.partition(":")[2].split("@")[0].split("/")[0] in names


def _figures(run: Run) -> dict[str, dict[str, float]]:
    """Return the figures of the devices, column by column."""
    found: dict[str, dict[str, float]] = {}
    for series, read in ((_MATMUL, _medians), ("gpu", _sensed)):
        if series in series_names(run):
            with contextlib.suppress(RecordError), open_series(run, series) as table:  # the timeline says so
                found |= read(table)
    return found


def _medians(table: SeriesTable) -> dict[str, dict[str, float]]:
    # A core is judged by the time that it really worked, so that is what it is shown by.
    is_busy = _BUSY in table.columns
    column, words = (_BUSY, "TFLOPS while busy") if is_busy else ("tflops", "TFLOPS")
    query = f"SELECT device, format, median({column}) FROM {{}} GROUP BY ALL ORDER BY format"  # noqa: S608
    rows = table.rows(query, "device", "format", column)
    found: dict[str, dict[str, float]] = {}
    for device, dtype, tflops in rows:
        if tflops is not None:
            found.setdefault(f"{dtype} {words}", {})[str(device)] = float(tflops)
    return found


def _sensed(table: SeriesTable) -> dict[str, dict[str, float]]:
    wanted = {words: f"{how}({quoted(c)})" for c, how, words in _SENSED if c in table.figures}
    held = [f"coalesce({quoted(c)}, 0)" for c in HELD_BACK if c in table.figures]
    if held:
        wanted["held back, mean %"] = f"avg(least(100, {' + '.join(held)}))"
    if not wanted:
        return {}
    found: dict[str, dict[str, float]] = {words: {} for words in wanted}
    query = f"SELECT line, {', '.join(wanted.values())} FROM series GROUP BY line"  # noqa: S608
    for line, *values in table.connection.execute(query).fetchall():
        for words, value in zip(wanted, values, strict=True):
            if value is not None:
                found[words][str(line)] = float(value)
    return found


def _links(run: Run, names: Sequence[str]) -> tuple[tuple[str, ...], tuple[LinkCell, ...]]:
    rows: list[tuple[Any, ...]] = []
    query = "SELECT link, receiver, median(gbps) FROM {} GROUP BY ALL"
    if _LINKS in series_names(run):
        with contextlib.suppress(RecordError), open_series(run, _LINKS) as table:  # the timeline says so
            rows = table.rows(query, "link", "receiver", "gbps")
    found = list(_ends(rows))
    labels = [name for name in names if any(name in (sender, receiver) for sender, receiver, _ in found)]
    labels += sorted({end for sender, receiver, _ in found for end in (sender, receiver)} - set(labels))
    usual = median(gbps for *_, gbps in found) if found else 0.0
    broken = {
        f.subject.partition(":")[2] for f in run.findings if f.rule == "link" and f.outcome is Outcome.FAIL
    }
    cells = tuple(
        LinkCell(
            row=labels.index(sender),
            column=labels.index(receiver),
            gbps=gbps,
            level=heat_level(gbps / usual if usual else 0.0),
            is_broken=bool({f"{sender}-{receiver}", f"{receiver}-{sender}"} & broken),
        )
        for sender, receiver, gbps in found
    )
    return tuple(labels[:DEVICES_MAX]), tuple(c for c in cells if max(c.row, c.column) < DEVICES_MAX)


def _ends(rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[str, str, float]]:
    """Yield who sent, who received, and how fast one way; a name may hold a dash itself."""
    for link, receiver, gbps in rows:
        ends, receiver = str(link), str(receiver)
        if gbps is None:
            continue
        if ends.endswith(f"-{receiver}"):
            yield ends.removesuffix(f"-{receiver}"), receiver, float(gbps)
        elif ends.startswith(f"{receiver}-") and not ends.endswith(_BOTH_WAYS):
            yield ends.removeprefix(f"{receiver}-"), receiver, float(gbps)

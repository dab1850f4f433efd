"""Rules on what nccl-tests measured: each size for itself, both ways apart, and only a whole sweep.

The mean that it prints, and the exit code that follows from it, are not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from burnin.expectation import AllreduceFloor
from burnin.rules.figures import floor_for_allreduce
from burnin.rules.nccl_output import IN_PLACE, OUT_OF_PLACE, Row, Sweep
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.kernel_log import pci_key
from probes.outcome import Outcome

WAYS = (OUT_OF_PLACE, IN_PLACE)
ROUNDING_BYTES = 64  # per rank: some collectives round the message down to whole parts
# They have no result in place that could be checked (nccl-tests' sources, read 2026-07).
_NOT_IN_PLACE = ("alltoall_perf", "sendrecv_perf")
_SLOW = (
    "compare with our own all-reduce (side-by-side); look at NVLink errors, PCIe links and NCCL's transport"
)
_AGAIN = "see the program's output in the record, then run it again"


def lacking_in(sweep: Sweep, *, sizes: Sequence[int], addresses: Sequence[str]) -> str:
    """Return what a sweep lacks of what was asked for; empty: nothing.

    ``addresses`` are those of the GPUs under test on the bus.
    """
    told = [row.size_bytes for row in sweep.rows]
    slack = ROUNDING_BYTES * len(addresses)
    is_whole = len(told) == len(sizes) and all(
        0 <= want - got < max(slack, 1) for got, want in zip(told, sizes, strict=True)
    )
    if sweep.reduced_to is not None and sizes and sweep.reduced_to < sizes[-1]:
        return f"it went to {sweep.reduced_to:,} B only: there was not enough memory"
    if not is_whole:
        return f"{len(told)} of {len(sizes)} sizes, the largest {max(told):,} B of {sizes[-1]:,} B"
    if sweep.wrong_in_all is None:
        return "it broke off before its last lines"
    strangers = _other_gpus(sweep.devices, addresses)
    return f"it ran on other GPUs: {strangers}" if strangers else ""


def _other_gpus(devices: Sequence[str], addresses: Sequence[str]) -> str:
    """Compare where the GPUs sit, never their numbers; older versions print the bus alone."""
    wanted = [key for address in addresses if (key := pci_key(address)) is not None]
    if devices and all(":" in device for device in devices):
        is_same = sorted(k for d in devices if (k := pci_key(d)) is not None) == sorted(wanted)
    else:
        is_same = sorted(int(device, 16) for device in devices) == sorted(key[1] for key in wanted)
    return "" if is_same else ", ".join(devices) or "none is named"


def sweep_sizes(smallest: int, largest: int, factor: int) -> list[int]:
    """Return the sizes that a sweep goes through."""
    sizes = [smallest]
    while sizes[-1] * factor <= largest:
        sizes.append(sizes[-1] * factor)
    return sizes


def judge_results(host: str, tool: str, sweep: Sweep, *, lacking: str) -> Finding:
    """Fail a node in whose collective any element was wrong at any size; unchecked is not right."""
    wrong = [
        f"{cell.wrong:g} at {row.size_bytes:,} B {way}"
        for row in sweep.rows
        for way, cell in row.cells().items()
        if sweep.counts_wrong and cell.wrong is not None and cell.wrong != 0
    ]
    unchecked = _unchecked(tool, sweep)
    outcome, step = Outcome.INCONCLUSIVE, _AGAIN
    if wrong or sweep.wrong_in_all:
        outcome, step = Outcome.FAIL, "run our own all-reduce and the links pair by pair: they name the GPU"
        observed = f"wrong elements: {', '.join(wrong[:6]) or sweep.wrong_in_all}"
    elif lacking:
        observed = lacking
    elif not sweep.counts_wrong or unchecked:
        observed = f"results were not checked: {', '.join(unchecked[:6]) or 'it counts no wrong elements'}"
    else:
        outcome, step = Outcome.PASS, ""
        observed = f"no wrong element at any of {len(sweep.rows)} sizes up to {sweep.rows[-1].size_bytes:,} B"
    return Finding(
        rule="vendor-collective",
        subject=f"host:{host}/{tool}",
        outcome=outcome,
        observed=observed,
        expected="every size that was asked for, each result checked, none wrong",
        evidence={"stage": "vendor"},
        next_step=step,
    )


def _unchecked(tool: str, sweep: Sweep) -> list[str]:
    ways = [OUT_OF_PLACE] if tool in _NOT_IN_PLACE else list(WAYS)
    return [
        f"{row.size_bytes:,} B {way}"
        for row in sweep.rows
        for way in ways
        if (cell := row.cells().get(way)) is None or cell.wrong is None
    ]


def judge_busbw(
    host: str,
    sweep: Sweep,
    *,
    way: str,
    gpus: int,
    floors: Sequence[AllreduceFloor],
    algorithm: str | None,
    lacking: str,
) -> Finding:
    """Fail a node that stays below the floor of any size, which names size, algorithm and number of GPUs."""
    judged = []
    for row in sweep.rows:
        floor = floor_for_allreduce(floors, gpus=gpus, size_bytes=row.size_bytes, algorithm=algorithm)
        cell = row.cells().get(way)
        if floor is not None and cell is not None:
            judged.append((cell.busbw_gbps / floor.value, row, cell, floor))
    outcome: Outcome | None
    evidence: JsonObject = {"stage": "vendor", "busbw_gbps": _by_size(sweep.rows, way)}
    expected, step = "a floor for this size, algorithm and number of GPUs", ""
    if lacking:
        outcome, observed, step = Outcome.INCONCLUSIVE, lacking, _AGAIN
    elif not judged:
        outcome, observed = None, f"{_best(sweep.rows, way)}; no floor with a source for these sizes and GPUs"
    else:
        # What is not a number compares with nothing: it must not slip through as the least.
        ratio, row, cell, floor = min(judged, key=lambda each: (not math.isnan(each[0]), each[0]))
        outcome = Outcome.PASS if ratio >= 1 else Outcome.FAIL
        step = "" if outcome is Outcome.PASS else _SLOW
        observed = (
            f"{cell.busbw_gbps:.4g} GB/s at {row.size_bytes:,} B, the least of {len(judged)} against a floor"
        )
        expected = f"at least {floor.value:.4g} GB/s: {floor.why}"
    return Finding(
        rule="vendor-bandwidth",
        subject=f"host:{host}/all_reduce_perf {way}",
        outcome=outcome,
        observed=observed,
        expected=expected,
        unit="GB/s",
        evidence=evidence,
        next_step=step,
    )


def _by_size(rows: Sequence[Row], way: str) -> JsonObject:
    return {str(row.size_bytes): row.cells()[way].busbw_gbps for row in rows if way in row.cells()}


def _best(rows: Sequence[Row], way: str) -> str:
    measured = [(row.cells()[way].busbw_gbps, row.size_bytes) for row in rows if way in row.cells()]
    return "{:.4g} GB/s at {:,} B at best".format(*max(measured)) if measured else "nothing measured"


def compare_sizes(host: str, sweep: Sweep, own: dict[int, float]) -> list[Finding]:
    """Put what nccl-tests measured beside our own figure of the same size; shown, not judged."""
    rows = {row.size_bytes: row for row in sweep.rows}
    return [
        _beside(host, size, busbw, rows[size])
        for size, busbw in sorted(own.items())
        if size in rows and busbw > 0
    ]


def _beside(host: str, size: int, own: float, row: Row) -> Finding:
    theirs = {way: cell.busbw_gbps for way, cell in row.cells().items()}
    told = ", ".join(f"{busbw:.4g} {way} ({busbw / own:.0%} of ours)" for way, busbw in theirs.items())
    return Finding(
        rule="side-by-side",
        subject=f"host:{host}/all-reduce of {size:,} B",
        outcome=None,
        observed=f"ours {own:.4g} GB/s; nccl-tests {told}",
        expected="shown: both by the same formula of bus bandwidth, ours in place",
        unit="GB/s",
        evidence={"stage": "vendor", "size_bytes": size, "own": own} | theirs,
    )

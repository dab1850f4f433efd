"""A campaign: where each node stands in acceptance, what moved, what was swapped, and who keeps coming back.

Its file is append-only and made from runs; nodes and GPUs are followed by serial number, which a new name or
slot does not change.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from burnin.fleet.acting import PROFILES
from burnin.fleet.acting_log import DONE, DRAIN
from burnin.fleet.campaign_entry import CampaignEntry, Gpu, entries_of, entry_from_json
from burnin.fleet.lemon import Lemon, judge_lemon
from probes.errors import ConfigError, SuiteError
from probes.event import to_json_line
from reports.reacceptance import runs_after
from reports.record import RUN_FILE, open_for_append, write_whole
from reports.run import load_run, read_ndjson

LATEST = "latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """One node as its runs have left it."""

    node: str  # serial number of the chassis, else its name
    host: str  # its name in the last run
    passed: str  # the furthest profile that it passed with the GPUs that it has now; empty: none
    outcome: str  # of the last run
    state: str
    runs: int
    last_ns: int
    changes: tuple[str, ...]  # what moved and what was swapped, the newest first
    lemon: Lemon


def update_campaign(runs: Path, file: Path) -> tuple[list[CampaignEntry], list[str]]:
    """Add what the runs below a folder say and the file lacks; return all, and what could not be read.

    Raises:
        RecordError: the file cannot be written.
    """
    known = load_campaign(file)
    held = {(entry.run, entry.host): entry for entry in known}
    problems, lines = [], []
    for folder in _folders(runs):
        try:
            found = list(entries_of(load_run(folder)))
        except (SuiteError, KeyError, TypeError, ValueError) as error:
            problems.append(f"{folder}: {error}")
            continue
        for entry in found:
            if held.get((entry.run, entry.host)) != entry:  # new, or judged anew since
                held[entry.run, entry.host] = entry
                lines.append(to_json_line(asdict(entry)))
    if lines:
        _append(file, lines)
    return list(held.values()), problems


def _folders(runs: Path) -> list[Path]:
    """Return the folders of runs, and of those that a game day keeps within its own: they follow it."""
    own = sorted(path.parent for path in runs.glob(f"*/{RUN_FILE}") if path.parent.name != LATEST)
    return [folder for run in own for folder in (run, *runs_after(run))]


def _append(file: Path, lines: Sequence[str]) -> None:
    import os

    descriptor = open_for_append(file)
    try:
        write_whole(descriptor, "".join(lines).encode(), file)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_campaign(file: Path) -> list[CampaignEntry]:
    """Return what a campaign's file holds; of a host in a run, the last line counts.

    Raises:
        ConfigError: a line is of something else.
    """
    found: dict[tuple[str, str], CampaignEntry] = {}
    for row in read_ndjson(file):
        try:
            entry = entry_from_json(row)
        except (TypeError, KeyError) as error:
            raise ConfigError(f"{file}: holds a line that is none of a campaign: {error}") from error
        found[entry.run, entry.host] = entry
    return list(found.values())


def read_drains(log: Path) -> dict[str, list[int]]:
    """Return when each host was drained on a verdict, by the log of what was done."""
    found: dict[str, list[int]] = {}
    for row in read_ndjson(log):
        if row.get("action") == DRAIN and row.get("state") == DONE:
            found.setdefault(str(row["host"]), []).append(int(row["t_ns"]))
    return found


def campaign_state(
    entries: Iterable[CampaignEntry], drains: Mapping[str, Sequence[int]], *, now_ns: int
) -> list[NodeState]:
    """Return where every node stands: lemons first, then those that did not pass."""
    ordered = sorted(entries, key=lambda entry: (entry.t_ns, entry.run, entry.host))
    serial_of = {entry.host: entry.serial for entry in ordered if entry.serial}
    nodes: dict[str, list[CampaignEntry]] = {}
    for entry in ordered:  # a run that never got in has no serial number: the name's last one is meant
        nodes.setdefault(entry.serial or serial_of.get(entry.host, entry.host), []).append(entry)
    moves = _moves(ordered)
    states = []
    for node, own in nodes.items():
        hosts = {entry.host for entry in own}
        drained = [t_ns for host in hosts for t_ns in drains.get(host, ())]
        changes = [text for host, text in reversed(moves) if host in hosts]
        last = next((entry for entry in reversed(own) if not entry.is_gameday), own[-1])
        states.append(
            NodeState(
                node=node,
                host=last.host,
                passed=_passed(own),
                outcome=last.outcome,
                state=last.state,
                runs=len(own),
                last_ns=last.t_ns,
                changes=(*_renamed(own), *changes),
                lemon=judge_lemon(own, drained, now_ns=now_ns),
            )
        )
    return sorted(
        states, key=lambda s: (not s.lemon.is_lemon, s.outcome == "pass", -len(s.lemon.raised), s.host)
    )


def _passed(own: Sequence[CampaignEntry]) -> str:
    """Return the furthest profile passed since the node last failed or got another GPU."""
    best, serials = "", None
    for entry in own:
        now = frozenset(gpu.serial for gpu in entry.gpus)
        if entry.outcome == "fail" or (now and serials is not None and now != serials):
            best = ""
        serials = now or serials
        if entry.outcome == "pass" and entry.profile in PROFILES:
            best = max(best, entry.profile, key=lambda name: PROFILES.index(name) if name in PROFILES else -1)
    return best


def _renamed(own: Sequence[CampaignEntry]) -> list[str]:
    names = list(dict.fromkeys(entry.host for entry in own))
    return [f"was called {', '.join(names[:-1])}"] if len(names) > 1 else []


def _moves(ordered: Sequence[CampaignEntry]) -> list[tuple[str, str]]:
    """Return each move of a GPU with the host that it concerns, the oldest first."""
    at: dict[str, tuple[str, Gpu]] = {}  # serial -> where it was seen last
    held: dict[tuple[str, str], str] = {}  # host and slot -> serial
    moves: list[tuple[str, str]] = []
    for entry in ordered:
        for gpu in entry.gpus:
            place = (entry.host, gpu.slot)
            before, there = at.get(gpu.serial), held.get(place)
            if before is not None and (before[0], before[1].slot) != place:
                came = f"GPU {gpu.serial} came from {before[0]} slot {before[1].slot}"
                said = f"{came} to {entry.host} slot {gpu.slot}"
                moves += [(entry.host, said), *([(before[0], said)] if before[0] != entry.host else [])]
            elif there is not None and there != gpu.serial:
                moves.append((entry.host, f"slot {gpu.slot}: GPU {there} was swapped for {gpu.serial}"))
            at[gpu.serial], held[place] = (entry.host, gpu), gpu.serial
    return moves


def render_campaign(states: Sequence[NodeState], *, as_json: bool, most: int) -> str:
    """Return the table, the nodes that matter first, or one JSON document."""
    if as_json:
        return json.dumps({"nodes": [asdict(state) for state in states]}) + "\n"
    head = ("node", "passed", "last run", "runs", "lemon", "what moved, what speaks against it")
    rows = [head, *(_row(state) for state in states[:most])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
    cells = ([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]] for row in rows)
    lines = ["  ".join(line).rstrip() for line in cells]
    if len(states) > most:
        lines.append(f"and {len(states) - most:,} more; --json has all")
    counts = {name: sum(1 for s in states if s.passed == name) for name in reversed(PROFILES)}
    passed = ", ".join(f"{count:,} passed {name}" for name, count in counts.items() if count)
    lemons = sum(1 for state in states if state.lemon.is_lemon)
    lines.append(f"{len(states):,} nodes: {passed or 'none passed'}; {lemons} lemons")
    return "\n".join(lines) + "\n"


def _row(state: NodeState) -> tuple[str, ...]:
    said = [f"{name} {state.lemon.signals[name]:g}" for name in state.lemon.raised]
    name = state.host if state.node == state.host else f"{state.host} ({state.node})"
    last = state.outcome if state.state == "finished" else f"{state.outcome} ({state.state})"
    is_lemon = "lemon" if state.lemon.is_lemon else ""
    return name, state.passed or "-", last, str(state.runs), is_lemon, "; ".join([*said, *state.changes[:3]])

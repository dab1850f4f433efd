"""Which runs have to do with a game day: those of the nodes that it hit or ran on, before, during and after.

From the records alone. A node is the same where two records hold its name, or its address, letter by letter;
nothing is resolved, guessed or taken for near enough.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from probes.errors import SuiteError
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.reacceptance import runs_after
from reports.record import RUN_FILE
from reports.run import Run, load_run
from reports.verdict import KIND_TITLES, format_duration

GAMEDAY = "gameday"
_GROUPS = (("burnin", "fleet"), ("load", "findmax"))  # of each the last before and the first after are told
_LOAD = "load"  # folder of the traffic of a game day
RUNS_MAX = 200  # that lie beside a game day, the latest


@dataclass(frozen=True, slots=True, kw_only=True)
class Related:
    """One run that has to do with a game day."""

    title: str
    run_id: str
    path: Path
    outcome: Outcome
    nodes: tuple[str, ...]  # that both name
    when: str  # seen from the game day


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where and when a run was."""

    run: Run
    nodes: frozenset[str]
    start_ns: int
    end_ns: int


def related_runs(day: Run, others: Iterable[Run]) -> tuple[Related, ...]:
    """Return the runs inside a game day and of its nodes: meanwhile, the last before, the first after."""
    own = next(_places(day), None)
    if day.header.kind != GAMEDAY or own is None:
        return ()
    found = [_related(place, place.nodes, "inside it") for run in _inside(day) for place in _places(run)]
    beside = (place for run in others if run.path != day.path for place in _places(run))
    places = [place for place in beside if place.nodes & own.nodes]
    for kinds in _GROUPS:
        near = [place for place in places if place.run.header.kind in kinds]
        found += [
            _related(place, place.nodes & own.nodes, _when(own, place))
            for place in sorted(near, key=lambda place: place.start_ns)
            if _is_told(own, place, near)
        ]
    return tuple(found)


def runs_beside(run: Run) -> list[Run]:
    """Return the runs that lie in the same folder, the latest; what cannot be opened is none."""
    folders = (path for path in sorted(run.path.parent.iterdir(), reverse=True) if not path.is_symlink())
    found: list[Run] = []
    for folder in folders:
        if len(found) == RUNS_MAX:
            break
        if (folder / RUN_FILE).exists():
            with contextlib.suppress(SuiteError):
                found.append(load_run(folder))
    return found


def _inside(day: Run) -> Iterator[Run]:
    for folder in (day.path / _LOAD, *runs_after(day.path)):
        with contextlib.suppress(SuiteError):
            yield load_run(folder)


def _places(run: Run) -> Iterator[_Place]:
    """Yield where and when a run was; nothing for one whose record is broken."""
    with contextlib.suppress(SuiteError, OSError, KeyError, TypeError, ValueError, AttributeError):
        yield _place(run)


def _place(run: Run) -> _Place:
    last_ns = run.events[-1].t_ns if run.events else run.header.started_ns
    return _Place(
        run=run,
        nodes=frozenset(nodes_of(run)),
        start_ns=run.header.started_ns,
        end_ns=max(last_ns, run.header.started_ns),
    )


def nodes_of(run: Run) -> set[str]:
    """Return names and addresses of the nodes that a run tested, loaded or broke, as its record has them."""
    if run.header.kind == "burnin":
        return {run.header.host}
    if run.header.kind == "fleet":
        return set() if run.header.spec.get("simulated") else set(_of_fleet(run))
    if run.header.kind == GAMEDAY:
        return set(_of_gameday(run))
    return set(_of_load(run))


def _of_fleet(run: Run) -> Iterator[str]:
    for host in (run.header.spec.get("fleet") or {}).get("hosts") or ():
        yield str(host["name"])
        if (host.get("access") or {}).get("address"):
            yield str(host["access"]["address"])


def _of_load(run: Run) -> Iterator[str]:
    """Yield the nodes of the endpoints that answered; one at a loopback address is on the client's own."""
    for event in run.events_of("endpoint.answered"):
        host = urlsplit(str(event.data.get("url") or "")).hostname
        if host:
            yield run.header.host if _is_loopback(host) else host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _of_gameday(run: Run) -> Iterator[str]:
    """Yield the nodes that were hit, those that held what was hit, and those that the traffic went to."""
    for event in run.events_of("fault.armed"):
        captured: JsonObject = event.data.get("captured") or {}
        if captured.get("host"):
            yield str(captured["host"]["name"])
        yield from (str(pod["node"]) for pod in captured.get("hit_pods") or () if pod.get("node"))
        if str(captured.get("kube_fault", "")).startswith("node."):
            yield from (str(victim["name"]) for victim in captured.get("victims") or ())
    if run.header.spec.get("training"):
        yield run.header.host  # the training job of a lab runs beside its controller
    if (run.path / _LOAD / RUN_FILE).exists():
        yield from _of_load(load_run(run.path / _LOAD))


def _is_told(day: _Place, place: _Place, near: Sequence[_Place]) -> bool:
    """Whether a run was at the same time, or no other one of some node came between it and the game day."""
    if _overlap_ns(day, place) > 0:
        return True
    for node in day.nodes & place.nodes:
        of_node = [one for one in near if node in one.nodes]
        before = [one for one in of_node if one.end_ns <= day.start_ns]
        after = [one for one in of_node if one.start_ns >= day.end_ns]
        if place in (
            max(before, key=lambda one: one.end_ns, default=None),
            min(after, key=lambda one: one.start_ns, default=None),
        ):
            return True
    return False


def _overlap_ns(day: _Place, place: _Place) -> int:
    return min(day.end_ns, place.end_ns) - max(day.start_ns, place.start_ns)


def _when(day: _Place, place: _Place) -> str:
    overlap_ns = _overlap_ns(day, place)
    if overlap_ns > 0:
        return f"at the same time, for {format_duration(overlap_ns / 1e9)}"
    if place.end_ns <= day.start_ns:
        return f"ended {format_duration((day.start_ns - place.end_ns) / 1e9)} before it began"
    return f"began {format_duration((place.start_ns - day.end_ns) / 1e9)} after its end"


def _related(place: _Place, nodes: frozenset[str], when: str) -> Related:
    run = place.run
    name = str(run.header.spec.get("name") or run.header.spec.get("profile") or "")
    return Related(
        title=f"{KIND_TITLES.get(run.header.kind, run.header.kind)} {name}".strip(),
        run_id=run.header.id,
        path=run.path,
        outcome=run.outcome,
        nodes=tuple(sorted(nodes)),
        when=when,
    )

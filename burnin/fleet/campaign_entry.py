"""What a campaign keeps of one host in one run: a line that outlives the run's folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from burnin.fleet.summary import summarise
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.fleet_sheet import FLEET, is_simulated
from reports.fleet_tables import FleetTables
from reports.fleet_verdicts import read_verdicts
from reports.gameday_sheet import GAMEDAY
from reports.reacceptance import OWN_DOING
from reports.reacceptance import RULE as REACCEPTED
from reports.run import Run

GAME_DAY = "game day"  # state of a host in one
NEVER_NS = 2**63 - 1  # end of a fault that nobody saw undone


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU where it was seen."""

    serial: str
    slot: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignEntry:
    """One host in one run."""

    run: str
    t_ns: int
    profile: str
    host: str
    serial: str  # of the chassis; empty: not read
    outcome: str
    state: str
    rules: tuple[str, ...] = ()  # of its own burn-in that failed, one for each finding
    fleet_rules: tuple[str, ...] = ()  # by which the fleet accused it
    gpus: tuple[Gpu, ...] = ()
    t_end_ns: int = 0  # 0: an older line does not say
    faults_ns: tuple[tuple[int, int], ...] = ()  # of a game day: while its faults may have been on the host
    trouble: tuple[str, ...] = ()  # of a game day: what the host itself did wrong

    @property
    def is_gameday(self) -> bool:
        """Whether a game day tells of the host: it says nothing of how good its hardware is."""
        return self.state == GAME_DAY


def entries_of(run: Run) -> Iterator[CampaignEntry]:
    """Yield what a run says of each host; nothing for a rehearsal, a self-test, or one that still goes on."""
    if is_simulated(run) or run.state == "running" or run.header.spec.get("self_test"):
        return
    if run.header.kind == FLEET:
        yield from _of_fleet(run)
    elif run.header.kind == "burnin":
        yield _of_host(run)
    elif run.header.kind == GAMEDAY:
        yield from _of_gameday(run)


def _of_host(run: Run) -> CampaignEntry:
    tables = summarise(run)
    prints = tables.get("fingerprint", [])
    slots = {row["part"]: str(row["value"]) for row in prints if row["key"] == "slot"}
    serial = next((str(r["value"]) for r in prints if r["key"] == "serial" and not r["part"]), "")
    gpus = {
        (str(row["serial"]), slots.get(row["gpu"], ""), str(row["model"]))
        for row in tables.get("gpu_result", [])
    }
    failed = [
        f.rule for f in run.findings if f.counts and f.outcome is Outcome.FAIL and "because" not in f.evidence
    ]
    return CampaignEntry(
        run=run.header.id,
        t_ns=run.header.started_ns,
        t_end_ns=_end_of(run),
        profile=str(run.header.spec.get("profile", "")),
        host=run.header.host,
        serial=serial,
        outcome=run.outcome.value,
        state="finished" if run.state == "finished" else "interrupted",
        rules=tuple(failed),
        gpus=tuple(Gpu(serial=s, slot=slot, model=model) for s, slot, model in sorted(gpus) if s),
    )


def _of_gameday(run: Run) -> Iterator[CampaignEntry]:
    """Yield when each host was under faults of ours, and what was the host's own doing; never our fault."""
    undone = {str(event.data["id"]): event.t_ns for event in run.events_of("undo.verified")}
    faults: dict[str, list[tuple[int, int]]] = {}
    for event in run.events_of("fault.armed"):
        captured = event.data["captured"]
        for victim in captured["victims"] if "host_fault" in captured else ():
            until_ns = undone.get(str(event.data["id"]), NEVER_NS)
            faults.setdefault(str(victim["name"]), []).append((event.t_ns, until_ns))
    trouble = {
        str(finding.evidence["host"]): tuple(map(str, finding.evidence[OWN_DOING]))
        for finding in run.findings
        if finding.rule == REACCEPTED
    }
    for host, spans in faults.items():
        yield CampaignEntry(
            run=run.header.id,
            t_ns=run.header.started_ns,
            t_end_ns=_end_of(run),
            profile="",
            host=host,
            serial="",
            outcome=Outcome.INCONCLUSIVE.value,
            state=GAME_DAY,
            faults_ns=tuple(spans),
            trouble=trouble.get(host, ()),
        )


def _end_of(run: Run) -> int:
    return max((event.t_ns for event in run.events[-1:]), default=run.header.started_ns)


_RULES = """
SELECT host, list(rule ORDER BY rule) FROM host_finding
WHERE outcome = 'fail' AND NOT coalesce(is_explained, false) GROUP BY host
"""
_GPUS = """
WITH slots AS (SELECT host, part AS gpu, max(value) AS slot FROM fingerprint WHERE key = 'slot' GROUP BY ALL),
seen AS (SELECT host, gpu, max(serial) AS serial, max(model) AS model FROM gpu_result GROUP BY host, gpu)
SELECT host, list([serial, coalesce(slot, ''), coalesce(model, '')] ORDER BY slot, serial) FROM seen
LEFT JOIN slots USING (host, gpu) WHERE serial <> '' GROUP BY host
"""
_SERIALS = "SELECT host, max(value) FROM fingerprint WHERE key = 'serial' AND part = '' GROUP BY host"


def _of_fleet(run: Run) -> Iterator[CampaignEntry]:
    with FleetTables(run) as tables:
        rules = {
            str(host): tuple(map(str, found))
            for host, found in tables.rows(_RULES)
            if isinstance(found, list)
        }
        gpus = {str(host): found for host, found in tables.rows(_GPUS) if isinstance(found, list)}
        serials = {str(host): str(serial) for host, serial in tables.rows(_SERIALS)}
        verdicts = read_verdicts(run, tables)
    for verdict in verdicts:
        accused = [f.rule for f in verdict.because if f.outcome is Outcome.FAIL and f.rule != "host"]
        yield CampaignEntry(
            run=run.header.id,
            t_ns=run.header.started_ns,
            t_end_ns=_end_of(run),
            profile=str(run.header.spec.get("profile", "")),
            host=verdict.host,
            serial=serials.get(verdict.host, ""),
            outcome=verdict.outcome.value,
            state=verdict.state,
            rules=rules.get(verdict.host, ()),
            fleet_rules=tuple(dict.fromkeys(accused)),
            gpus=tuple(
                Gpu(serial=s, slot=slot, model=model) for s, slot, model in gpus.get(verdict.host, [])
            ),
        )


def entry_from_json(data: JsonObject) -> CampaignEntry:
    """Read a line back."""
    known = {name: data[name] for name in CampaignEntry.__slots__ if name in data}
    known |= {name: tuple(known.get(name, ())) for name in ("rules", "fleet_rules", "trouble")}
    known["faults_ns"] = tuple((int(begin), int(end)) for begin, end in known.get("faults_ns", ()))
    return CampaignEntry(**known | {"gpus": tuple(Gpu(**gpu) for gpu in data.get("gpus", ()))})

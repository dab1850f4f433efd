"""A simulated run of a fleet: the same record, isolation, judging and report as a real one, on its own clock.

Nothing of it is a measurement, and the record says so in its spec and in the names of everything.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from burnin.fleet.fleet_json import fleet_to_json
from burnin.fleet.host import Fleet
from burnin.fleet.network.depth import DEPTHS
from burnin.fleet.network.stage import run_network
from burnin.fleet.simulation.cluster import simulated_fleet
from burnin.fleet.simulation.fabric import SIZES_STOOD_FOR, SimulatedNetwork
from burnin.fleet.simulation.fault import (
    BAD_LEAF,
    CORRUPTS,
    DEAD,
    FLAPPING,
    SLOW_GPU,
    SLOW_NIC,
    Fault,
    draw_faults,
)
from burnin.fleet.simulation.fault_file import load_faults
from burnin.fleet.simulation.host_rows import host_rows
from burnin.fleet.topology import topology_of
from reports.live import Progress
from reports.record import RunWriter, create_run
from reports.run import Run, load_run
from reports.session import recording

DEFAULT_KINDS = (DEAD, SLOW_GPU, CORRUPTS, SLOW_NIC, FLAPPING, BAD_LEAF)
SHARE = 0.01
HOSTS_MIN, HOSTS_MAX = 2, 20_000
BURN_S = {"gate": 60.0, "quick": 120.0, "intake": 1800.0, "soak": 86_400.0}


def run_simulation(
    hosts: int,
    *,
    profile: str,
    seed: int,
    out: Path,
    is_quiet: bool,
    faults_file: Path | None = None,
    is_healthy: bool = False,
) -> Run:
    """Rehearse the burn-in of a fleet that does not exist; return its judged run.

    Without a file of faults, 1 % of the parts of each usual kind are bad, at least one of each, by ``seed``.

    Raises:
        ConfigError: the file of faults or the run folder is wrong.
    """
    fleet = simulated_fleet(hosts)
    topology = topology_of(fleet, (host.name for host in fleet.hosts), seed=seed)
    faults: Sequence[Fault] = ()
    if faults_file is not None:
        faults = load_faults(faults_file, topology)
    elif not is_healthy:
        faults = draw_faults(topology, share=SHARE, kinds=DEFAULT_KINDS, seed=seed)
    spec = {
        "simulated": True,
        "note": "SIMULATED: no such hosts exist, nothing was measured",
        "profile": profile,
        "fleet": fleet_to_json(fleet),
        "faults": [asdict(fault) for fault in faults],
    }
    writer = create_run(out, kind="fleet", spec=spec, seed=seed)
    judge = importlib.import_module("burnin.fleet.judging").judge_run
    with recording(writer, judge), Progress(f"SIMULATED fleet of {hosts}", quiet=is_quiet) as progress:
        writer.event("controller", "fleet", **fleet_to_json(fleet))
        progress.step("hosts", "running", f"{hosts} simulated hosts")
        _write_hosts(writer, fleet, faults, profile, seed)
        progress.step("hosts", "done", f"{hosts} simulated hosts")
        network = SimulatedNetwork(
            topology=topology, faults=faults, seed=seed, sweep_s=SIZES_STOOD_FOR * DEPTHS[profile].length_s
        )
        able = [host.name for host in fleet.hosts if host.name not in _dead(faults)]
        progress.step("network", "running")
        outcome = run_network(writer, fleet, network, profile=profile, seed=seed, able_hosts=able)
        minutes = network.clock_s / 60
        progress.step("network", "done", f"{outcome.rounds} rounds, {minutes:.0f} simulated minutes")
    return load_run(writer.path)


def _dead(faults: Sequence[Fault]) -> set[str]:
    """Return the hosts that are found dead before the network stage."""
    return {fault.hosts[0] for fault in faults if fault.kind == DEAD}


def _write_hosts(writer: RunWriter, fleet: Fleet, faults: Sequence[Fault], profile: str, seed: int) -> None:
    dead = _dead(faults)
    length_s = BURN_S[profile]
    now_ns = writer.header.started_ns
    for host in fleet.hosts:
        tables = host_rows(host, faults, seed=seed)
        for table, rows in tables.items():
            for row in rows:
                writer.sample(table, {"t_ns": now_ns, "host": host.name, **row})
        is_lost = host.name in dead
        has_failed = any(row["outcome"] == "fail" for row in tables.get("host_finding", ()))
        place = host.place
        row = {
            "t_ns": now_ns,
            "host": host.name,
            "state": "lost" if is_lost else "finished",
            "outcome": "inconclusive" if is_lost else "fail" if has_failed else "pass",
            "run": "",
            "seconds": length_s,
            "clock_offset_s": 0.0,
            "detail": "simulated: no answer any more" if is_lost else "simulated",
        }
        row |= {name: getattr(place, name) for name in ("rack", "pdu", "hall", "switch", "nvlink_domain")}
        writer.sample("host", row)

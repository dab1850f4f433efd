"""The burn-in of a fleet, from the command line to the judged run."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from burnin.burn import BurnRequest, load_plan, plan_run
from burnin.fleet.archive import build_archive
from burnin.fleet.bundles import BUNDLE, collect_bundles
from burnin.fleet.cluster import CLUSTER, look_at_cluster
from burnin.fleet.conductor import HOSTS_MAX, Conductor
from burnin.fleet.fleet_file import load_fleet
from burnin.fleet.fleet_json import fleet_from_json, fleet_to_json
from burnin.fleet.fleet_table import HEADERS, FleetTable
from burnin.fleet.host import Fleet, Host
from burnin.fleet.host_run import HostJob, HostResult
from burnin.fleet.judges import Judges
from burnin.fleet.judging import judge_fleet
from burnin.fleet.launchers.all import Launchers
from burnin.fleet.network.record import TABLE as NET_TABLE
from burnin.fleet.open_files import hosts_that_fit
from burnin.fleet.permitted import ask_permission
from burnin.fleet.resume import set_aside
from burnin.fleet.together import Earlier, Together, earlier_of, in_thread, run_together
from burnin.fleet.training import TrainingPlan
from burnin.launcher import agent_program, longest_s
from burnin.node.order import Order, order_from_json, order_to_json
from probes.child import process_start_time
from probes.errors import ConfigError
from probes.json_types import JsonObject
from probes.ssh import CONNECTS_MAX
from reports.exporter import served_live
from reports.live import Progress
from reports.record import RunWriter, create_run
from reports.run import RESUMED, Run, load_run
from reports.session import recording
from reports.table import read_series

TOGETHER = "together"  # key of the record's spec
CONTROLLER_SILENCE_S = 10.0  # after which an agent leaves
TOGETHER_S_MAX = 4 * 3600.0  # what a job of Slurm's is asked for beyond the hosts' own burn-ins
START_WITHIN_S = 90.0  # login shells and wrappers that take a minute have been seen


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetLimits:
    """How much at once, and how long."""

    hosts_max: int = HOSTS_MAX
    connects_max: int = CONNECTS_MAX
    start_within_s: float = START_WITHIN_S


def burn_fleet(
    request: BurnRequest,
    *,
    fleet_file: Path | None,
    resume: Path | None,
    limits: FleetLimits,
    wanted: Together,
    launcher: str | None = None,
) -> Run:
    """Burn in a fleet, or go on with a run of one, and return the judged run.

    ``launcher`` takes the place of what the fleet file says of each host; None: the file is followed.

    Raises:
        ConfigError: a file, the SSH configuration or the run folder is wrong.
        TargetError: whoever is to say which hosts are free does not answer.
        RecordError: the record can no longer be written.
        Interrupted: somebody stopped it.
    """
    if resume is not None:
        if fleet_file is not None or launcher is not None:
            raise ConfigError("--resume: the run knows its fleet; leave the fleet file and --launcher out")
        return _resume(resume, limits, request)
    assert fleet_file is not None
    plan = load_plan(request)
    if request.is_self_test:
        raise ConfigError("--self-test is for this machine; leave it out with a fleet")
    order, spec = plan_run(request, plan)
    order = replace(order, controller_silence_s=CONTROLLER_SILENCE_S)
    fleet, cluster = look_at_cluster(ask_permission(with_launcher(load_fleet(fleet_file), launcher)))
    training = TrainingPlan.from_json(plan.training.to_json()) if plan.training else wanted.training
    spec[TOGETHER] = {"network": wanted.is_network_wanted, "train": training and training.to_order()}
    spec |= {"fleet": fleet_to_json(fleet), "order": order_to_json(order), BUNDLE: plan.bundle}
    spec |= {CLUSTER: cluster} if cluster else {}
    writer = create_run(request.out, kind="fleet", spec=spec, seed=request.seed)
    _run(writer, fleet, order, fleet.hosts, {}, Earlier(), limits, request)
    return load_run(writer.path)


def wanted_of(spec: JsonObject) -> Together:
    """Return which stages of many hosts a run is to have."""
    said = spec.get(TOGETHER, {})
    return Together(
        is_network_wanted=bool(said.get("network", True)),
        training=TrainingPlan.from_json(said["train"]) if said.get("train") else None,
    )


def with_launcher(fleet: Fleet, launcher: str | None) -> Fleet:
    """Return the fleet with every host reached the same way; None: as its file says."""
    if launcher is None:
        return fleet
    hosts = tuple(replace(host, access=replace(host.access, launcher=launcher)) for host in fleet.hosts)
    return replace(fleet, hosts=hosts)


def _resume(path: Path, limits: FleetLimits, request: BurnRequest) -> Run:
    """Hosts that finished are kept, the others run again."""
    run = load_run(path)
    if run.header.kind != "fleet":
        raise ConfigError(f"{path}: is a {run.header.kind} run; only a fleet's can be resumed")
    if run.state == "running":
        raise ConfigError(f"{path}: is still running, as pid {run.header.pid}")
    fleet, _ = look_at_cluster(ask_permission(fleet_from_json(run.header.spec["fleet"])), resumed=run)
    order = order_from_json(run.header.spec["order"])
    earlier = earlier_of(run, read_series(run, NET_TABLE))
    kept = set_aside(run, fleet)
    writer = RunWriter(run.path, run.header)
    owner = {"pid": os.getpid(), "start_time": process_start_time(os.getpid())}
    writer.event("controller", RESUMED, **owner, kept=sorted(kept))
    missing = [host for host in fleet.hosts if host.name not in kept]
    _run(writer, fleet, order, missing, kept, earlier, limits, request)
    return load_run(run.path)


def _run(
    writer: RunWriter,
    fleet: Fleet,
    order: Order,
    hosts: Sequence[Host],
    kept: Mapping[str, HostResult],
    earlier: Earlier,
    limits: FleetLimits,
    request: BurnRequest,
) -> None:
    with (
        recording(writer, judge_fleet),
        Progress(f"fleet {fleet.name}", quiet=request.is_quiet) as progress,
        Judges() as judges,
        contextlib.ExitStack() as shown,
    ):
        writer.event("controller", "fleet", **fleet_to_json(fleet))
        time_limit_s = longest_s(order) + TOGETHER_S_MAX
        with Launchers(
            fleet, run=writer.header.id, connects_max=limits.connects_max, time_limit_s=time_limit_s
        ) as launchers:
            conductor = Conductor(
                fleet=fleet,
                order=order,
                job=_job(writer, limits),
                writer=writer,
                launcher_of=launchers.of,
                hosts_max=hosts_that_fit(limits.hosts_max),
            )
            table = FleetTable(conductor.lines, progress)
            conductor.on_change = table.tell
            shown.enter_context(served_live(request.metrics, writer, progress, table.figures))
            progress.show_table(HEADERS, table.rows)
            for result in kept.values():
                assert result.path is not None
                conductor.note(result, judges.judge(result.path))
            conductor.run(hosts, judges)
            stop = threading.Event()
            progress.step("hosts together", "running")
            in_thread(
                lambda: run_together(
                    writer,
                    fleet,
                    order,
                    able=sorted(conductor.able),
                    wanted=wanted_of(writer.header.spec),
                    launcher_of=launchers.of,
                    earlier=earlier,
                    start_within_s=limits.start_within_s,
                    tell=lambda text: progress.step("hosts together", "running", text),
                    stop=stop,
                ),
                stop=stop,
                on_stop=launchers.close,
            )
            progress.step("hosts together", "done")
            if writer.header.spec.get(BUNDLE):
                progress.step(BUNDLE, "running", "of hosts that failed")
                in_thread(
                    lambda: collect_bundles(
                        writer,
                        fleet.hosts,
                        launchers.of,
                        build_archive(),
                        stop=stop,
                        start_within_s=limits.start_within_s,
                    ),
                    stop=stop,
                    on_stop=launchers.close,
                )
                progress.step(BUNDLE, "done")


def _job(writer: RunWriter, limits: FleetLimits) -> HostJob:
    spec = writer.header.spec
    carried = {key: value for key, value in spec.items() if key not in ("fleet", "order", TOGETHER, BUNDLE)}
    return HostJob(
        fleet_run=writer.path,
        program=agent_program(),
        seed=writer.header.seed,
        spec={**carried, "fleet": writer.header.id},
        start_within_s=limits.start_within_s,
        stop=threading.Event(),
    )

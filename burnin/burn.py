"""One burn-in from its plan to its judged record."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from burnin.bundle import collect_bundle, is_wanted
from burnin.judging import judge_run
from burnin.launcher import launch
from burnin.live_table import HEADERS, DeviceTable
from burnin.node.order import Order, SeededFault, order_to_json
from burnin.node.vendor_tools import STAGE as VENDOR
from burnin.override import SPEC_KEY, load_override, override_to_json
from burnin.plan import PlanSpec, VendorSpec
from burnin.self_test import SPEC_KEY as SELF_TEST
from burnin.self_test import self_test_order
from probes.errors import ConfigError
from probes.event import SAMPLE, Event
from probes.json_types import JsonObject
from probes.spec import load_spec
from reports.exporter import MetricsPage, served_live
from reports.live import Progress
from reports.record import create_run
from reports.run import Run, load_run
from reports.session import recording


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnRequest:
    """What the command line asks for; None leaves it to the plan file, and that to the profile."""

    plan_file: Path | None
    profile: str | None
    device: str | None
    duration_s: float | None
    out: Path
    seed: int
    is_quiet: bool
    seeded_faults: tuple[SeededFault, ...] = ()
    expectations_file: Path | None = None  # None: judged by what is shipped
    is_self_test: bool = False  # prove the detectors and load nothing
    with_vendor_tools: bool = False
    with_bundle: bool = False  # after a FAIL
    metrics: MetricsPage = field(default_factory=MetricsPage)  # of our own figures, for Prometheus


def run_burnin(request: BurnRequest) -> Run:
    """Burn in this machine and return the judged run.

    Raises:
        ConfigError: the plan file or the run folder is wrong.
        RecordError: the record can no longer be written.
        Interrupted: somebody stopped it.
    """
    plan = load_plan(request)
    if plan.training is not None:
        raise ConfigError(f"{request.plan_file}: training takes the hosts of a fleet; name a FLEET file")
    order, spec = plan_run(request, plan)
    writer = create_run(request.out, kind="burnin", spec=spec, seed=request.seed)
    with recording(writer, judge_run), Progress("burn-in", quiet=request.is_quiet) as progress:
        for stage in order.stages:
            progress.step(stage.name, "waiting")
        devices = DeviceTable(order)
        progress.show_table(HEADERS, devices.rows)
        with served_live(request.metrics, writer, progress, devices.figures):
            launch(order, writer, on_event=lambda event: _show(progress, order, devices, event))
    run = load_run(writer.path)
    if plan.bundle and not request.is_self_test and is_wanted(run):
        collect_bundle(run.path)
    return run


def plan_run(request: BurnRequest, plan: PlanSpec) -> tuple[Order, JsonObject]:
    """Return what an agent is to do, and what the record says about it."""
    order = plan.to_order(seed=request.seed, seeded_faults=request.seeded_faults)
    if request.is_self_test:
        order = self_test_order(order)
    spec: JsonObject = {"profile": plan.profile, "order": order_to_json(order)}
    if request.expectations_file is not None:
        override = load_override(request.expectations_file)
        spec[SPEC_KEY] = override_to_json(override, request.expectations_file)
    if request.is_self_test:
        spec[SELF_TEST] = True
    return order, spec


def load_plan(request: BurnRequest) -> PlanSpec:
    """Read the plan file, if there is one, and put the command line's wishes on top."""
    plan = load_spec(request.plan_file, PlanSpec) if request.plan_file is not None else PlanSpec()
    wishes: dict[str, object] = {
        "profile": request.profile,
        "device": request.device,
        "duration_s": request.duration_s,
    }
    if request.with_vendor_tools and plan.vendor is None:
        wishes["vendor"] = VendorSpec()
    if request.with_bundle:
        wishes["bundle"] = True
    return plan.model_copy(update={name: wish for name, wish in wishes.items() if wish is not None})


def _show(progress: Progress, order: Order, devices: DeviceTable, event: Event) -> None:
    data = event.data
    devices.note(event)
    stage = str(data.get("stage", ""))
    if event.kind == "stage.started" and order.stage(stage):
        most = "at most " if stage == VENDOR else ""  # its tools take what they take
        progress.step(stage, "running", f"{most}{data['length_s']:.0f} s" if data["length_s"] else "")
    elif event.kind == "stage.finished" and order.stage(stage):
        progress.step(stage, "done")
    elif event.kind == "inventory":
        models = sorted({str(device["model"]) for device in data["devices"]})
        progress.step(
            "devices", "done", f"{len(data['devices'])} × {data['device_kind']} ({', '.join(models)})"
        )
    elif event.kind == SAMPLE and order.stage(event.source):
        progress.step(event.source, "running", devices.stage_detail())
    elif event.kind in (
        "worker.stalled",
        "worker.late",
        "worker.died",
        "worker.failed",
        "gpu.lost",
        "gpu.xid",
    ):
        progress.step(str(data.get("device") or data.get("gpu")), "fail", event.kind)

"""``overproof burnin``: stress the hardware and judge what it did."""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from burnin.fleet.commands import add_commands
from probes.errors import ConfigError
from probes.outcome import Outcome

app = typer.Typer(
    help="Burn in the hardware of this machine or of a fleet and give each device a verdict.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class ProfileChoice(StrEnum):
    """The profiles that ``burnin.plan`` describes."""

    GATE = "gate"
    QUICK = "quick"
    INTAKE = "intake"
    SOAK = "soak"


class DeviceChoice(StrEnum):
    """What to stress."""

    AUTO = "auto"
    CUDA = "cuda"
    CPU = "cpu"


class LauncherChoice(StrEnum):
    """How hosts are reached."""

    LOCAL = "local"
    SSH = "ssh"
    SLURM = "slurm"
    KUBERNETES = "kubernetes"


@app.callback()
def burnin() -> None:
    """Burn in the hardware of this machine or of a fleet and give each device a verdict."""


@app.command()
def run(
    fleet: Annotated[
        Path | None, typer.Argument(metavar="FLEET", help="YAML file of hosts; this machine without it.")
    ] = None,
    profile: Annotated[
        ProfileChoice | None,
        typer.Option(help="gate: 1 minute; quick (the default): 2; intake: 30 minutes; soak: 24 hours."),
    ] = None,
    device: Annotated[
        DeviceChoice | None,
        typer.Option(help="auto takes the NVIDIA GPUs, and the CPU where there are none."),
    ] = None,
    duration_s: Annotated[
        float | None, typer.Option(min=4, help="Seconds of load, instead of the profile's.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="YAML file that says what differs from a profile.")
    ] = None,
    expectations: Annotated[
        Path | None, typer.Option(help="YAML file of own figures per model, thresholds and XIDs.")
    ] = None,
    with_vendor_tools: Annotated[
        bool,
        typer.Option("--with-vendor-tools", help="Run dcgmi and nccl-tests too, and judge their output."),
    ] = False,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="After a FAIL collect bug report, BMC log and kernel log.")
    ] = False,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Prove every detector by a seeded fault, and load nothing.")
    ] = False,
    simulate: Annotated[
        int | None,
        typer.Option(min=2, max=20_000, metavar="HOSTS", help="Rehearse with hosts that do not exist."),
    ] = None,
    simulate_faults: Annotated[
        Path | None, typer.Option(help="YAML file of what is wrong with them, instead of a draw.")
    ] = None,
    simulate_healthy: Annotated[
        bool, typer.Option("--simulate-healthy", help="Nothing is wrong with them.")
    ] = False,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with a fleet's run: only what is missing.")
    ] = None,
    launcher: Annotated[
        LauncherChoice | None,
        typer.Option(help="How every host of the fleet is reached, instead of what the file says."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the Jobs that the launcher kubernetes would create, and no more."
        ),
    ] = False,
    network: Annotated[
        bool, typer.Option(help="Have the hosts of a fleet exchange data, once each has done its own.")
    ] = True,
    train: Annotated[
        bool, typer.Option("--train", help="Have the hosts of a fleet train a small model together.")
    ] = False,
    hosts_max: Annotated[int, typer.Option(min=1, help="Hosts of a fleet that run at once.")] = 512,
    connections_max: Annotated[
        int, typer.Option(min=1, help="Hosts of a fleet that are logged in to at once.")
    ] = 32,
    start_within_s: Annotated[
        float, typer.Option(min=1, help="Seconds for a host to log us in, and for its shell to begin.")
    ] = 90.0,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve this run's figures to Prometheus on loopback; 0: any."),
    ] = None,
    metrics_listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where --metrics-port is served, instead of loopback.")
    ] = "127.0.0.1",
    out: Annotated[Path, typer.Option(help="Folder that receives the run.")] = Path("runs"),
    seed: Annotated[int, typer.Option(help="Seed of every operand and of every seeded fault.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    lifeline: Annotated[bool, typer.Option("--lifeline", hidden=True, help="Stop when stdin ends.")] = False,
    seed_fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STAGE:KIND@DEVICE",
            help="Fault to plant and see found, such as matmul:bit_flip@cpu:1; may be repeated.",
        ),
    ] = None,
) -> Outcome | None:
    """Load each device of this machine or of a fleet, check every result, judge devices and sensors."""
    from burnin.burn import BurnRequest, run_burnin
    from burnin.node.seeding import parse_seeded_fault
    from reports.exporter import MetricsPage
    from reports.terminal import print_result

    if lifeline:
        from probes.child import stop_with_parent

        stop_with_parent()
    if simulate is not None:
        from burnin.fleet.simulation.run import run_simulation

        if fleet is not None or resume is not None:
            raise ConfigError("--simulate: such a fleet is made up; leave FLEET and --resume out")
        recorded = run_simulation(
            simulate,
            profile=profile.value if profile else "quick",
            seed=seed,
            out=out,
            is_quiet=as_json,
            faults_file=simulate_faults,
            is_healthy=simulate_healthy,
        )
        print_result(recorded, as_json=as_json)
        return recorded.outcome
    request = BurnRequest(
        plan_file=plan,
        profile=profile and profile.value,
        device=device and device.value,
        duration_s=duration_s,
        expectations_file=expectations,
        is_self_test=self_test,
        with_vendor_tools=with_vendor_tools,
        with_bundle=bundle,
        metrics=MetricsPage(port=metrics_port, listen=metrics_listen),
        out=out,
        seed=seed,
        is_quiet=as_json,
        seeded_faults=tuple(parse_seeded_fault(text) for text in seed_fault or ()),
    )
    if dry_run:
        from burnin.fleet.dry_run import render_dry_run

        typer.echo(render_dry_run(request, fleet_file=fleet, launcher=launcher and launcher.value), nl=False)
        return None
    if fleet is not None or resume is not None:
        from burnin.fleet.fleet_burn import FleetLimits, burn_fleet
        from burnin.fleet.together import Together
        from burnin.fleet.training import TrainingPlan

        limits = FleetLimits(hosts_max=hosts_max, connects_max=connections_max, start_within_s=start_within_s)
        launcher_name = launcher and launcher.value
        recorded = burn_fleet(
            request,
            fleet_file=fleet,
            resume=resume,
            limits=limits,
            wanted=Together(is_network_wanted=network, training=TrainingPlan() if train else None),
            launcher=launcher_name,
        )
        print_result(recorded, as_json=as_json)
        return recorded.outcome
    if find_spec("torch") is None:
        raise ConfigError("a burn-in needs torch: pip install 'overproof[burnin]'")
    recorded = run_burnin(request)
    if self_test:
        from burnin.self_test import render_self_test

        typer.echo(render_self_test(recorded, as_json=as_json), nl=False)
    else:
        print_result(recorded, as_json=as_json)
    return recorded.outcome


@app.command()
def certify(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a burn-in, of one machine or a fleet.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the certificate, instead of the run's own.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="File of the certificate, or of a list of a fleet's."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> Outcome:
    """Write a one-page certificate for each node that passed; refuse, with the reason, for others."""
    import sys

    from burnin.certify import certify as certify_run
    from burnin.certify import render_certified
    from reports.run import load_run

    recorded = load_run(run)
    if recorded.header.kind == "fleet":
        from burnin.fleet.certify_fleet import certify_fleet, render_certified_fleet, write_list

        fleet = certify_fleet(recorded, out=out)
        if html is not None:
            write_list(recorded, fleet, page=html)
        sys.stdout.write(render_certified_fleet(fleet, as_json=as_json))
        return fleet.outcome
    certified = certify_run(recorded, out=out, page=html)
    if certified.path is None:
        sys.stderr.write(f"overproof: no certificate: {certified.reason}\n")
    sys.stdout.write(render_certified(certified, as_json=as_json))
    return certified.outcome


add_commands(app)

"""``overproof load``: load tests, and the simulated endpoint on its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from probes.errors import ConfigError
from probes.outcome import Outcome

app = typer.Typer(
    help="Load an inference endpoint and judge what came back.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    workload: Annotated[
        Path, typer.Argument(help="YAML file of the workload, or the name of one of ours: demo.")
    ],
    endpoint: Annotated[
        str | None, typer.Option(help="Address to load; without one the built-in simulated endpoint.")
    ] = None,
    duration_s: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds in which requests arrive, instead of the file's.")
    ] = None,
    calibrates: Annotated[
        bool,
        typer.Option(
            "--calibration/--no-calibration",
            help="Find out right before the load how well this client measures.",
        ),
    ] = True,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve this run's figures to Prometheus on loopback; 0: any."),
    ] = None,
    metrics_listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where --metrics-port is served, instead of loopback.")
    ] = "127.0.0.1",
    metrics_url: Annotated[
        str | None, typer.Option(help="The server's own metrics page, to be recorded beside the load.")
    ] = None,
    is_dry: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what would be sent and cost at most, and send nothing."),
    ] = False,
    processes: Annotated[
        int, typer.Option(min=0, max=64, help="Load processes on this machine; they share the schedule.")
    ] = 1,
    expect_workers: Annotated[
        int, typer.Option(min=0, max=512, help="Load processes of other machines: `overproof load worker`.")
    ] = 0,
    listen: Annotated[
        str, typer.Option(help="Address on which workers of other machines are waited for.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port for them.")] = 5557,
    join_s: Annotated[
        float, typer.Option(min=1, help="Seconds within which every load process has to be ready.")
    ] = 120.0,
    out: Annotated[Path, typer.Option(help="Folder that receives the run.")] = Path("runs"),
    seed: Annotated[int, typer.Option(help="Seed of arrivals and prompts.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    path: Annotated[Path | None, typer.Option(hidden=True, help="The run's own folder.")] = None,
    lifeline: Annotated[bool, typer.Option("--lifeline", hidden=True, help="Stop when stdin ends.")] = False,
    in_gameday: Annotated[
        bool, typer.Option("--in-gameday", hidden=True, help="A game day judges it.")
    ] = False,
) -> Outcome | None:
    """Send the workload's requests at its rate, whatever the endpoint does, and judge the answers."""
    from loadtests.load_run import Finish, LoadRequest, run_load
    from loadtests.processes.crew import Crew
    from loadtests.spec.workload import load_workload, override
    from probes.child import stop_with_parent
    from reports.exporter import MetricsPage
    from reports.terminal import print_result

    spec = override(load_workload(workload), url=endpoint, duration_s=duration_s, calibrates=calibrates)
    if is_dry:
        from loadtests.dry_run import plan_dry, render_dry

        dry = plan_dry(spec, seed=seed)
        typer.echo(render_dry(dry, as_json=as_json))
        return None
    if not processes + expect_workers:
        raise ConfigError("--processes 0 needs --expect-workers: nobody would send anything")
    finish = Finish()
    if lifeline:
        stop_with_parent()
    request = LoadRequest(
        spec=spec,
        out=out,
        seed=seed,
        path=path,
        is_in_gameday=in_gameday,
        is_quiet=as_json,
        metrics=MetricsPage(port=metrics_port, listen=metrics_listen),
        metrics_url=metrics_url,
        crew=Crew(processes=processes, joining=expect_workers, listen=listen, port=port, join_s=join_s),
    )
    recorded = run_load(request, finish)
    print_result(recorded, as_json=as_json)
    return recorded.outcome


@app.command(name="find-max")
def find_max(
    workload: Annotated[Path, typer.Argument(help="YAML file of the workload; its rate is tried first.")],
    endpoint: Annotated[
        str | None, typer.Option(help="Address to load; without one the built-in simulated endpoint.")
    ] = None,
    within_s: Annotated[
        float, typer.Option(min=20, max=24 * 3600, help="Seconds that the whole search may take.")
    ] = 300.0,
    precision: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share by which both ends of the interval may differ.")
    ] = 0.05,
    calibrates: Annotated[
        bool,
        typer.Option(
            "--calibration/--no-calibration",
            help="Find out right before each step how well this client measures.",
        ),
    ] = True,
    metrics_url: Annotated[
        str | None, typer.Option(help="The server's own metrics page: it tells whether requests queue.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder that receives the run.")] = Path("runs"),
    seed: Annotated[int, typer.Option(help="Seed of arrivals and prompts.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> Outcome:
    """Search for the highest arrival rate that meets the workload's SLOs."""
    from loadtests.load_run import Finish
    from loadtests.search.find_max import Search, print_steps
    from loadtests.search.find_max import find_max as run_search
    from loadtests.spec.workload import load_workload, override
    from reports.terminal import print_result

    search = Search(
        spec=override(load_workload(workload), url=endpoint, duration_s=None, calibrates=calibrates),
        out=out,
        seed=seed,
        within_s=within_s,
        precision=precision,
        is_quiet=as_json,
        metrics_url=metrics_url,
    )
    recorded = run_search(search, Finish())
    if not as_json:
        print_steps(recorded)
    print_result(recorded, as_json=as_json)
    return recorded.outcome


@app.command()
def worker(
    master: Annotated[str, typer.Option(help="Host or address where `overproof load run` waits.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Its port.")] = 5557,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Load processes on this machine.")] = 1,
    allow_env: Annotated[
        list[str] | None,
        typer.Option(help="Variable of this machine whose value the endpoint may get; may be repeated."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for rows until the master has them.")] = Path("runs"),
    lifeline: Annotated[bool, typer.Option("--lifeline", hidden=True, help="Stop when stdin ends.")] = False,
) -> None:
    """Send a share of a load that is run from another machine."""
    from loadtests.processes.joining import run_workers
    from probes.child import stop_with_parent

    if lifeline:
        stop_with_parent()
    run_workers(master=master, port=port, processes=processes, out=out, allowed_envs=allow_env or [])


@app.command()
def calibrate(
    processes: Annotated[int, typer.Option(min=1, max=64, help="Client processes at the same time.")] = 1,
    max_events_per_s: Annotated[
        float, typer.Option(min=100, max=1e6, help="Highest rate to try, of all processes together.")
    ] = 120_000,
    error_ms_max: Annotated[
        float, typer.Option(min=0.01, help="How far off times may be at p99, in milliseconds.")
    ] = 1.0,
    is_tls: Annotated[
        bool, typer.Option("--tls", help="Over TLS, which costs more to read: for https:// endpoints.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder that receives the run.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> Outcome:
    """Find out what this machine's client can measure, and how well, against known send times."""
    from loadtests.calibration.curve import print_curve, run_calibration
    from reports.terminal import print_result

    recorded = run_calibration(
        out=out,
        processes=processes,
        events_per_s_max=max_events_per_s,
        error_ms_max=error_ms_max,
        is_tls=is_tls,
        is_quiet=as_json,
    )
    if not as_json:
        print_curve(recorded)
    print_result(recorded, as_json=as_json)
    return recorded.outcome


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
)
def endpoint(context: typer.Context) -> None:
    """Serve the built-in simulated endpoint until Ctrl-C."""
    from loadtests.endpoint.process import run_endpoint

    run_endpoint(context.args)

"""overproof: the command line. Mounts the sub-commands and maps what happened to exit codes.

Nothing heavy is imported before a command needs it: ``overproof --help`` answers in under 200 ms.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from probes.errors import ConfigError, Interrupted, RecordError, SuiteError, TargetError
from probes.interrupt import interrupt_on_signals
from probes.outcome import Outcome, worst

if TYPE_CHECKING:
    from reports.run import Run
    from reports.session import Judge

EXIT_CODE = {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.INCONCLUSIVE: 3}
EXIT_USAGE, EXIT_UNREACHABLE, EXIT_CRASHED, EXIT_INTERRUPTED = 2, 3, 4, 130

# The module of each job that has ``judge_run(run) -> list[Finding]``.
JUDGES = {
    "burnin": "burnin.judging",
    "fleet": "burnin.fleet.judging",
    "load": "loadtests.judging",
    "calibration": "loadtests.calibration.curve",
    "findmax": "loadtests.search.max_rate",
    "gameday": "experiments.judging",
}
# The modules that know what a run of a kind has shown to be found or healed, and what the job brings about.
COVERAGE = {"burnin": "burnin.coverage", "fleet": "burnin.coverage", "gameday": "experiments.coverage"}
# ``schema KIND``: module and pydantic model behind each kind of file.
SCHEMAS = {
    "workload": ("loadtests.spec.workload", "WorkloadSpec"),
    "plan": ("burnin.plan", "PlanSpec"),
    "fleet": ("burnin.fleet.fleet_file", "FleetSpec"),
    "faults": ("burnin.fleet.simulation.fault_file", "FaultFileSpec"),
    "expectations": ("burnin.override", "OverrideSpec"),
    "slo": ("probes.slo_spec", "SloSpec"),
    "experiment": ("experiments.experiment", "ExtensionSpec"),
    "result": ("reports.result", "ResultSpec"),
}

_HERE = Path(__file__).parent
DEMO = {
    "burn-in": ["burnin", "run", "--profile", "quick", "--duration-s", "25"],
    "load": ["load", "run", str(_HERE / "loadtests" / "workloads" / "demo.yaml")],
    "game day": ["gameday", "run", str(_HERE / "experiments" / "catalogue" / "local" / "replica-kill.yaml")],
}

HtmlFile = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="File that receives a page to read and print.")
]

app = typer.Typer(
    name="overproof",
    help="Proof-test AI clusters: burn in the hardware, load the service, break it on purpose.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def judge(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a recorded run.")],
    expectations: Annotated[
        Path | None, typer.Option(help="YAML file of own figures, thresholds and XIDs, for a burn-in.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> Outcome:
    """Judge a recorded run again with today's rules, and render its report anew."""
    from reports.run import load_run

    if expectations is not None:
        _keep_expectations(load_run(run), expectations)
    return _render(run, is_judged_anew=True, as_json=as_json)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a recorded run, finished or not.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> Outcome:
    """Render the report of a recorded run from what its folder holds."""
    return _render(run, is_judged_anew=False, as_json=as_json)


def _render(path: Path, *, is_judged_anew: bool, as_json: bool) -> Outcome:
    """Render a recorded run; one that ended before it was judged, as after kill -9, is judged first."""
    from reports.publish import publish
    from reports.run import load_run
    from reports.session import rejudge
    from reports.terminal import print_result

    recorded = load_run(path)
    if is_judged_anew or not recorded.findings:
        rejudge(recorded, _judge_of(recorded))
        recorded = load_run(path)
    publish(recorded)
    print_result(recorded, as_json=as_json)
    return recorded.outcome


def _keep_expectations(run: Run, path: Path) -> None:
    """Put a user's figures into the record of a burn-in; no other job has any."""
    if run.header.kind == "fleet":
        importlib.import_module("burnin.fleet.rejudge_hosts").rejudge_hosts(run, path)
        return
    if run.header.kind != "burnin":
        raise ConfigError(
            f"--expectations: {run.path} is a {run.header.kind} run; only a burn-in has figures"
        )
    importlib.import_module("burnin.override").keep_override(run, path)


def _judge_of(run: Run) -> Judge:
    module = JUDGES.get(run.header.kind)
    if module is None:
        raise ConfigError(f"{run.path}: kind {run.header.kind!r} is unknown; one of {', '.join(JUDGES)}")
    found: Judge = importlib.import_module(module).judge_run
    return found


@app.command()
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="BASE... RUN",
            help="Run folders, baseline files or folders of runs; the last one is compared with the others.",
        ),
    ],
    margin_pct: Annotated[
        float | None, typer.Option(min=0.1, max=100, help="Changes within it are none; else by figure.")
    ] = None,
    run_to_run_pct: Annotated[
        float | None,
        typer.Option(
            min=0, max=100, help="Known deviation between like runs, instead of what base runs show."
        ),
    ] = None,
    html: HtmlFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> Outcome:
    """Compare a load run with earlier ones: better, worse, same or unclear; exit 1 if anything is worse."""
    from reports.compare import Tolerance, compare
    from reports.compare_text import comparison_document, github_summary, render_lines
    from reports.run_figures import load_bases, load_figures

    if len(runs) < 2:
        raise ConfigError("compare: give at least one BASE and then the RUN")
    run = load_figures(runs[-1])
    if len(run) != 1:
        raise ConfigError(f"compare: {runs[-1]}: the RUN must be one run, this holds {len(run)}")
    tolerance = Tolerance(
        margin=None if margin_pct is None else margin_pct / 100,
        run_to_run=None if run_to_run_pct is None else run_to_run_pct / 100,
    )
    comparison = compare(load_bases(runs[:-1], run[0]), run[0], tolerance=tolerance)
    if html is not None:
        from reports.compare_page import render_comparison
        from reports.page import write_page
        from reports.run_figures import folders_of

        write_page(html, render_comparison(comparison, page=html, runs=folders_of(runs)))
    github_summary(comparison)
    text = json.dumps(comparison_document(comparison)) if as_json else "\n".join(render_lines(comparison))
    sys.stdout.write(text + "\n")
    return comparison.outcome


@app.command()
def baseline(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Runs of one workload, best five or more.")
    ],
    out: Annotated[Path, typer.Option(help="File that receives the baseline, to be committed.")],
) -> None:
    """Write what later runs are compared with into one small file: figures and their noise, no requests."""
    from reports.record import write_atomically
    from reports.run_figures import baseline_document, load_figures

    figures = [figure for path in runs for figure in load_figures(path)]
    document = baseline_document(figures)
    try:
        write_atomically(out, json.dumps(document, indent=1, sort_keys=True) + "\n")
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from error
    sys.stdout.write(f"{out}\n")


@app.command()
def history(
    runs: Annotated[Path, typer.Argument(metavar="[RUNS]", help="Folder of runs.")] = Path("runs"),
    html: HtmlFile = None,
    last: Annotated[int, typer.Option(min=1, max=10_000, help="Runs to look at, the latest.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show all runs of a folder, workload by workload, what changed between them, and the trend."""
    from reports.history import build_history, history_document, render_lines

    groups = build_history(runs, last=last)
    if html is not None:
        from reports.history_page import render_history
        from reports.page import write_page

        write_page(html, render_history(groups, folder=str(runs), page=html))
    text = json.dumps(history_document(groups)) if as_json else "\n".join(render_lines(groups))
    sys.stdout.write(text + "\n")


@app.command()
def coverage(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUNS]...", help="Runs, or folders of runs, that may have shown something."),
    ] = None,
    table: Annotated[str, typer.Option(help="Only this published table, such as llama3.")] = "",
    shown_min_pct: Annotated[
        float, typer.Option(min=0, max=100, help="Exit 1 where less than this is shown, of any table.")
    ] = 0.0,
    html: HtmlFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> Outcome:
    """Show how much of what really breaks can be found, brought about, and was shown found or healed."""
    from probes.detectors import detectors
    from probes.failure_categories import failure_categories
    from reports.coverage import compute_coverage
    from reports.coverage_runs import gather, open_runs
    from reports.coverage_text import coverage_document, render_lines

    jobs = {kind: importlib.import_module(module) for kind, module in COVERAGE.items()}
    opened = open_runs(runs or [])
    gathered = gather(opened, {kind: job.shown_by for kind, job in jobs.items()})
    computed = compute_coverage(
        failure_categories().only(table) if table else failure_categories(),
        detects=detectors().all(),
        injections=[injection for job in dict.fromkeys(jobs.values()) for injection in job.injections()],
        shown=gathered.shown,
        runs=gathered.runs,
        not_counted=gathered.not_counted,
    )
    if html is not None:
        from reports.coverage_page import render_coverage
        from reports.page import write_page

        folders = {run.header.id: run.path for run in opened}
        write_page(html, render_coverage(computed, page=html, runs=folders))
    text = json.dumps(coverage_document(computed)) if as_json else "\n".join(render_lines(computed))
    sys.stdout.write(text + "\n")
    is_enough = all(t.shown_share * 100 >= shown_min_pct for t in computed.tables)
    return Outcome.PASS if is_enough else Outcome.FAIL


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder that receives the three runs.")] = Path("runs"),
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> Outcome:
    """Burn in, load and break this machine: the three jobs in at most 3 minutes, no GPU, no cluster."""
    from reports.run import load_run
    from reports.terminal import print_results

    runs = []
    for job in DEMO:
        _demo_job(job, out, seed)
        runs.append(load_run(out / "latest"))
    print_results(runs, as_json=as_json)
    return worst(run.outcome for run in runs)


def _demo_job(job: str, out: Path, seed: int) -> None:
    """Run one job of the demo for real; its own result goes to stderr, like all that is not the demo's."""
    arguments = [*DEMO[job], "--out", str(out), "--seed", str(seed)]
    sys.stderr.write(f"\n{job}: overproof {' '.join(arguments)}\n")
    with contextlib.redirect_stdout(sys.stderr):
        app(args=arguments, prog_name="overproof", standalone_mode=False)


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"One of: {', '.join(SCHEMAS)}.")],
) -> None:
    """Print the JSON Schema of a file, for editors, or of the result that --json prints."""
    if kind not in SCHEMAS:
        raise ConfigError(f"schema: kind {kind!r} is unknown; one of {', '.join(SCHEMAS)}")
    module, model = SCHEMAS[kind]
    shape = getattr(importlib.import_module(module), model)
    sys.stdout.write(json.dumps(shape.model_json_schema(), indent=2) + "\n")


@app.command()
def version(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show the versions of overproof, Python, kernel, NVIDIA driver, PyTorch and the libraries in use."""
    from reports.versions import render_lines, version_document

    document = version_document()
    sys.stdout.write((json.dumps(document) if as_json else "\n".join(render_lines(document))) + "\n")


def mount() -> None:
    """Add each job's commands; their files import only typer until a command runs."""
    for name, module in {
        "burnin": "burnin.cli",
        "load": "loadtests.cli",
        "gameday": "experiments.cli",
    }.items():
        app.add_typer(importlib.import_module(module).app, name=name)
    app.add_typer(importlib.import_module("experiments.lab.cli").app, name="lab")


def main() -> None:
    """Run the command line and leave with the exit code that design and README promise."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command and return its exit code; nothing escapes as a traceback."""
    interrupt_on_signals()
    try:
        mount()
        result = app(args=arguments, prog_name="overproof", standalone_mode=False)
    except Interrupted as stop:
        return _say(f"interrupted by {stop.signal_name}", stop, EXIT_INTERRUPTED)
    except (TargetError, RecordError) as error:
        return _say(str(error), error, EXIT_UNREACHABLE)
    except SuiteError as error:
        return _say(str(error), error, EXIT_USAGE)
    except typer.Exit as end:
        return int(end.exit_code)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f": {error.filename}" if error.filename else ""
            return _say(f"no room left on the disk{where}", error, EXIT_UNREACHABLE)
        return _unexpected(error)
    return EXIT_CODE[result] if isinstance(result, Outcome) else int(result or 0)


def _unexpected(error: BaseException) -> int:
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # a wrong flag, seen by click
        context = getattr(error, "ctx", None)
        usage = f"{context.get_usage()}\n" if context is not None else ""
        return _say(usage + error.format_message(), error, EXIT_USAGE)
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return _say("interrupted", error, EXIT_INTERRUPTED)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else EXIT_CRASHED
    return _say(
        f"overproof itself crashed: {type(error).__name__}: {error}; trace: {_keep_trace(error)}", error, 4
    )


def _say(text: str, error: BaseException, code: int) -> int:
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    sys.stderr.write(f"overproof: {text}{notes}\n")
    return code


def _keep_trace(error: BaseException) -> str:
    descriptor, path = tempfile.mkstemp(prefix="overproof-trace-", suffix=".txt")
    with os.fdopen(descriptor, "w") as file:
        file.write("".join(traceback.format_exception(error)))
    return path


if __name__ == "__main__":
    main()

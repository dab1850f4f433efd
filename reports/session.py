"""One execution of one job, from its first line in the record to its report.

Whatever ends the run (its own end, Ctrl-C, a full disk, a bug of ours), the record is closed, judged and
rendered from what is there.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from probes.errors import Interrupted, RecordError, SuiteError
from probes.finding import Finding
from probes.outcome import Outcome
from reports.publish import publish
from reports.record import EVENTS_FILE, REQUESTS_FOLDER, SERIES_FOLDER, RunWriter, write_findings
from reports.run import CRASHED, FINISHED, INTERRUPTED, RESUMED, STOPPED, Run, count_unreadable, load_run
from reports.table import seal

Judge = Callable[[Run], list[Finding]]
UNREADABLE = "record.unreadable"
_NOTE = "record: "


@contextlib.contextmanager
def recording(writer: RunWriter, judge: Judge) -> Iterator[RunWriter]:
    """Run the body as the job that this record is about; afterwards judge and render, whatever happened.

    Children must have been ended by the body: only then may their parts be sealed.
    """
    try:
        with writer:
            yield writer
            writer.event("controller", FINISHED)
    except BaseException as error:
        _note_end(writer, error)
        _name_record(error, writer.path)
        raise
    finally:
        conclude(writer, judge)


def conclude(writer: RunWriter, judge: Judge) -> Run:
    """Seal, judge and render; on a disk that is still full, do as much of it as fits."""
    with contextlib.suppress(RecordError), writer:
        for part, lines in seal(writer.path).items():
            writer.event("record", UNREADABLE, part=part, lines=lines)
    run = load_run(writer.path)
    with contextlib.suppress(RecordError, OSError):
        rejudge(run, judge)
        publish(load_run(writer.path))
    return load_run(writer.path)


def rejudge(run: Run, judge: Judge) -> list[Finding]:
    """Judge a recorded run, perhaps again, and put the findings into its folder."""
    findings = [*_judged(run, judge), judge_completeness(run)]
    write_findings(run.path, findings)
    return findings


def _judged(run: Run, judge: Judge) -> list[Finding]:
    try:
        return judge(run)
    except Exception as error:  # a rule that breaks must neither pass nor hide the record
        is_damaged = isinstance(error, RecordError)
        return [
            Finding(
                rule="judging",
                subject=f"run:{run.header.id}",
                outcome=Outcome.INCONCLUSIVE,
                observed=str(error) if is_damaged else f"a rule broke: {type(error).__name__}: {error}",
                expected="every rule can read this record",
                evidence={"trace": traceback.format_exc()},
                next_step="put that file back from a copy of the record, or run it again"
                if is_damaged
                else "report this with the run folder; after an update, judge it again",
            )
        ]


def judge_completeness(run: Run) -> Finding:
    """A run that did not reach its end has not shown what it was to show."""
    resumed_ns = max((event.t_ns for event in run.events_of(RESUMED)), default=0)
    ends = [event for event in run.events_of(INTERRUPTED, STOPPED, CRASHED) if event.t_ns >= resumed_ns]
    lost = _lost_lines(run)
    if ends:
        reason = ends[-1].data.get("signal") or ends[-1].data.get("reason")
        observed = f"{ends[-1].kind.removeprefix('run.')}: {reason}"
    elif lost:
        observed = f"lines of the record cannot be read: {lost}"
    else:
        observed = {"finished": "ran to its end", "running": "still running"}.get(
            run.state, "the process is gone"
        )
    is_complete = run.state == "finished" and not ends and not lost
    return Finding(
        rule="completeness",
        subject=f"run:{run.header.id}",
        outcome=Outcome.PASS if is_complete else Outcome.INCONCLUSIVE,
        observed=observed,
        expected="the run reaches its end and every line of its record can be read",
        next_step="" if is_complete else "run it again",
    )


def _lost_lines(run: Run) -> str:
    """Name the parts of the record that have torn lines: what they held cannot have passed."""
    lost = {str(e.data.get("part")): e.data.get("lines") for e in run.events_of(UNREADABLE)}
    unsealed = (*run.path.glob(f"{SERIES_FOLDER}/*.ndjson"), *run.path.glob(f"{REQUESTS_FOLDER}/*.ndjson"))
    for file in (run.path / EVENTS_FILE, *unsealed):
        lines = count_unreadable(file)
        if lines:
            lost[file.name] = lines
    return ", ".join(f"{lines} in {part}" for part, lines in lost.items())


def _name_record(error: BaseException, path: Path) -> None:
    """Tell whoever reads the error where the record is; of a record within a record, only the outer one."""
    others = [note for note in getattr(error, "__notes__", []) if not note.startswith(_NOTE)]
    error.__notes__ = [*others, f"{_NOTE}{path}"]


def _note_end(writer: RunWriter, error: BaseException) -> None:
    """Put the end on the timeline, if the disk still takes a line."""
    with contextlib.suppress(RecordError), writer:
        if isinstance(error, (Interrupted, KeyboardInterrupt)):
            writer.event("controller", INTERRUPTED, signal=getattr(error, "signal_name", "SIGINT"))
        elif isinstance(error, SuiteError):
            writer.event("controller", STOPPED, reason=str(error))
        else:
            trace = "".join(traceback.format_exception(error))
            writer.event("controller", CRASHED, reason=f"{type(error).__name__}: {error}", trace=trace)

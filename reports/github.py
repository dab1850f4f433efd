"""What GitHub Actions shows of a run beside its log: the summary on the job page, and annotations.

Both stay within its limits: a page of more than 1 MiB a step is refused whole, and of annotations it keeps
ten of each kind a step and fifty a job.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from probes.errors import RecordError
from probes.finding import Finding
from probes.outcome import Outcome
from reports.run import Run
from reports.text import one_line
from reports.verdict import KIND_TITLES

# Set by it, absent elsewhere: that we run there, and where it wants Markdown for its job page.
GITHUB_ACTIONS, GITHUB_SUMMARY = "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"
SUMMARY_BYTES_MAX = 1024 * 1024  # of all that a step writes
ANNOTATIONS_MAX = 10  # of one kind, of a step
_CUT = "\n\n(cut here: GitHub shows 1 MiB a step; the whole is in `summary.md` of the run)\n"
_KINDS = {Outcome.FAIL: "error", Outcome.INCONCLUSIVE: "warning"}


def append_github_summary(text: str) -> None:
    """Append the summary to the job page where GitHub Actions asks for one, as far as it takes it.

    Raises:
        RecordError: it asks, and the file cannot be written.
    """
    wanted = os.environ.get(GITHUB_SUMMARY)
    if not wanted:
        return
    try:
        with Path(wanted).open("ab") as file:
            file.write(_fitting(f"{text}\n".encode(), SUMMARY_BYTES_MAX - file.tell()))
    except OSError as error:
        raise RecordError(
            f"{wanted} (from ${GITHUB_SUMMARY}): cannot be written: {error.strerror}"
        ) from error


def _fitting(text: bytes, room: int) -> bytes:
    """Return the text, or as many of its lines as there is room for, and a note that it is cut."""
    if len(text) <= room:
        return text
    cut = _CUT.encode()
    kept = text[: max(0, room - len(cut))]
    kept = kept[: kept.rfind(b"\n") + 1]
    return kept + cut if len(cut) <= room else b""


def annotate(run: Run) -> None:
    """Have GitHub Actions show what did not pass where people look first; elsewhere nothing happens."""
    if os.environ.get(GITHUB_ACTIONS) != "true":
        return
    for line in render_annotations(run):
        sys.stderr.write(line + "\n")


def render_annotations(run: Run) -> list[str]:
    """Return a command for each finding that failed or is undecided; of too many the rest is counted."""
    title = KIND_TITLES.get(run.header.kind, run.header.kind)
    lines = []
    for outcome, kind in _KINDS.items():
        found = [finding for finding in run.findings if finding.counts and finding.outcome is outcome]
        shown = found if len(found) <= ANNOTATIONS_MAX else found[: ANNOTATIONS_MAX - 1]
        lines += [_command(kind, f"{title}: {f.rule} {f.subject}", _told(f)) for f in shown]
        if len(shown) < len(found):
            rest = f"and {len(found) - len(shown)} more: see report.html"
            lines.append(_command(kind, f"{title}: {outcome.value}", rest))
    return lines


def _told(finding: Finding) -> str:
    parts: Sequence[str] = (finding.observed, f"expected: {finding.expected}", f"next: {finding.next_step}")
    return "\n".join(one_line(part) for part in parts if not part.endswith(": "))


def _command(kind: str, title: str, text: str) -> str:
    """Return a workflow command; what comes from a target cannot end it or begin another."""
    named = _escaped(one_line(title)).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={named}::{_escaped(text)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

"""``junit.xml``: the form that CI systems read. FAIL is a failure there, INCONCLUSIVE an error.

Kept to what GitLab, Jenkins and Buildkite all take: names are unique (GitLab drops the second of two), no
``system-out`` (a large one breaks GitLab's parser), properties first, and nothing that XML cannot carry.
"""

from __future__ import annotations

import datetime
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from itertools import accumulate

from probes.finding import Finding
from probes.outcome import Outcome
from reports.run import Run
from reports.text import plain
from reports.verdict import duration_s

CASES_MAX = 20_000  # GitLab stops at 250 000 XML objects
BYTES_MAX = 28_000_000  # and at 30 MB a file
TEXT_CHARS_MAX = 2000
_CASE_EXTRA_BYTES = 40  # of line ends and indents


def render_junit(run: Run) -> str:
    """Return the findings of a run as one test suite."""
    findings, cases = _bounded(run)
    suite = ElementTree.Element("testsuite", _counts(run, findings))
    _add_properties(suite, run, len(run.findings) - len(findings))
    suite.extend(cases)
    if run.outcome is Outcome.INCONCLUSIVE and not _has_error(findings):
        suite.append(_verdict_case(run))
    # The schema that Jenkins' xunit plugin checks against allows ``skipped`` on a suite, not on all of them.
    root = ElementTree.Element("testsuites", {k: suite.attrib[k] for k in ("tests", "failures", "errors")})
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _bounded(run: Run) -> tuple[list[Finding], list[ElementTree.Element]]:
    """Return the findings kept, and their cases: up to what parsers take, what did not pass first."""
    names: dict[str, int] = {}
    cases = ((finding, _case(run, finding, names)) for finding in run.findings)
    sized = [(finding, case, _bytes(case)) for finding, case in cases]
    if len(sized) > CASES_MAX or sum(size for *_, size in sized) > BYTES_MAX:
        sized.sort(key=lambda row: row[0].outcome in (Outcome.PASS, None) or row[0].waiver is not None)
        sizes = accumulate(size for *_, size in sized)
        sized = [row for row, total in zip(sized[:CASES_MAX], sizes, strict=False) if total <= BYTES_MAX]
    return [finding for finding, *_ in sized], [case for _, case, _ in sized]


def _bytes(case: ElementTree.Element) -> int:
    return len(ElementTree.tostring(case, encoding="utf-8", xml_declaration=False)) + _CASE_EXTRA_BYTES


def _has_error(findings: Sequence[Finding]) -> bool:
    return any(f.counts and f.outcome is Outcome.INCONCLUSIVE for f in findings)


def _counts(run: Run, findings: Sequence[Finding]) -> dict[str, str]:
    extra = int(run.outcome is Outcome.INCONCLUSIVE and not _has_error(findings))
    started = datetime.datetime.fromtimestamp(run.header.started_ns / 1e9, tz=datetime.UTC)
    return {
        "name": f"overproof.{clean(run.header.kind)}",
        "tests": str(len(findings) + extra),
        "failures": str(sum(f.counts and f.outcome is Outcome.FAIL for f in findings)),
        "errors": str(sum(f.counts and f.outcome is Outcome.INCONCLUSIVE for f in findings) + extra),
        "skipped": str(sum(not f.counts for f in findings)),
        "time": f"{duration_s(run) or 0.0:.3f}",
        "timestamp": started.strftime("%Y-%m-%dT%H:%M:%S"),
        "hostname": clean(run.header.host),
    }


def _add_properties(suite: ElementTree.Element, run: Run, left_out: int) -> None:
    properties = ElementTree.SubElement(suite, "properties")
    values = {
        "run": run.header.id,
        "outcome": run.outcome.value,
        "state": run.state,
        "seed": str(run.header.seed),
        "schema_version": str(run.header.schema_version),
        **{f"version.{name}": version for name, version in run.header.versions.items()},
    }
    if left_out:
        values["findings_left_out"] = str(left_out)
    for name, value in values.items():
        ElementTree.SubElement(properties, "property", {"name": clean(name), "value": clean(value)})


def _case(run: Run, finding: Finding, names: dict[str, int]) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase",
        {
            "classname": f"overproof.{clean(run.header.kind)}",
            "name": _unique(f"{clean(finding.rule)} {clean(finding.subject)}".strip(), names),
            "time": "0",
        },
    )
    if finding.waiver is not None:
        waiver = finding.waiver
        reason = f"waived by {waiver.owner} until {waiver.expires}: {waiver.reason}; {finding.observed}"
        ElementTree.SubElement(case, "skipped", {"message": clean(reason)})
    elif finding.outcome is None:
        ElementTree.SubElement(case, "skipped", {"message": clean(f"not applicable: {finding.observed}")})
    elif finding.outcome is not Outcome.PASS:
        tag = "failure" if finding.outcome is Outcome.FAIL else "error"
        child = ElementTree.SubElement(
            case, tag, {"message": clean(finding.observed), "type": finding.outcome.value}
        )
        child.text = clean(_explain(finding))
    return case


def _verdict_case(run: Run) -> ElementTree.Element:
    """A run without one undecided finding can still be undecided: it did not finish, or judged nothing."""
    case = ElementTree.Element(
        "testcase",
        {"classname": f"overproof.{clean(run.header.kind)}", "name": "verdict of the run", "time": "0"},
    )
    message = f"the run is {run.state} and has {len(run.findings)} findings"
    ElementTree.SubElement(case, "error", {"message": message, "type": Outcome.INCONCLUSIVE.value})
    return case


def _unique(name: str, names: dict[str, int]) -> str:
    """Return a name that no case before has; ``names`` holds, for each, the last number that was tried."""
    unique, number = name, names.get(name, 0)
    while unique in names:
        number += 1
        unique = f"{name} #{number}"
    names[name] = max(number, 1)
    names.setdefault(unique, 1)
    return unique


def _explain(finding: Finding) -> str:
    lines = [f"observed: {finding.observed}", f"expected: {finding.expected}"]
    if finding.next_step:
        lines.append(f"next: {finding.next_step}")
    return "\n".join(lines)


def clean(text: str) -> str:
    """Return text that XML 1.0 can carry, of bounded length."""
    kept = "".join(character for character in plain(text) if character not in "\ufffe\uffff")
    return kept if len(kept) <= TEXT_CHARS_MAX else kept[: TEXT_CHARS_MAX - 1] + "…"

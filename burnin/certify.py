"""Certificates: one page for a node that passed, and a refusal with the reason for one that did not."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from burnin.evidence import Evidence, subject_of
from burnin.judging import judge_run
from burnin.override import override_of
from probes.errors import ConfigError
from probes.finding import Finding, verdict
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.certificate import (
    CERTIFICATE_PREFIX,
    Certificate,
    Part,
    Shown,
    digest_of,
    record_digests,
    render_certificate,
    sums_text,
)
from reports.html import report_link
from reports.record import write_atomically
from reports.run import Run
from reports.session import judge_completeness
from reports.verdict import duration_s, format_duration, is_control

_IDENTITY = {"serial": "serial", "vbios": "VBIOS", "pci_bus_id": "PCI"}
_VERSIONS = ("overproof", "torch", "cuda", "driver", "nccl", "nvidia-ml-py", "python", "kernel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """A certificate that was written, or why there is none."""

    outcome: Outcome
    path: Path | None  # None: refused
    reason: str


def certify(run: Run, *, out: Path | None = None, page: Path | None = None) -> Certified:
    """Write the certificate of a run into its folder, into ``out`` or as ``page``, if the node passed.

    The record is judged anew: what stands in its findings is not taken on trust.

    Raises:
        ConfigError: this is no burn-in, or the certificate cannot be written.
    """
    if run.header.kind != "burnin":
        raise ConfigError(f"{run.path}: a {run.header.kind} run; only a burn-in can be certified")
    findings = [*judge_run(run), judge_completeness(run)]
    refusal = _refusal(run, findings)
    if refusal is not None:
        return refusal
    certificate = build_certificate(run, findings)
    path = page or (out or run.path) / f"{_stem(run.header.host)}.html"
    try:
        write_atomically(path.with_name(f"{_stem(run.header.host)}.sha256"), sums_text(certificate.files))
        linked = replace(certificate, report=report_link(run.path, page=path))
        write_atomically(path, render_certificate(linked))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    return Certified(outcome=Outcome.PASS, path=path, reason="")


def _stem(host: str) -> str:
    """Return the name of a host's certificate without its ending."""
    return CERTIFICATE_PREFIX + re.sub(r"[^\w.-]", "_", host)


def _refusal(run: Run, findings: Sequence[Finding]) -> Certified | None:
    """Return why there is no certificate; None: nothing speaks against it."""
    outcome = verdict(findings)
    decided = [f for f in findings if f.counts and f.outcome is outcome]
    if run.header.spec.get("self_test"):
        return Certified(outcome=Outcome.INCONCLUSIVE, path=None, reason="a self-test loads nothing")
    if outcome is not Outcome.PASS:
        own = [f for f in decided if "because" not in f.evidence] or decided
        told = "; ".join(f"{f.rule} of {f.subject}: {f.observed:.160}" for f in own[:3])
        more = f"; and {len(own) - 3} more" if len(own) > 3 else ""
        return Certified(outcome=outcome, path=None, reason=f"the node did not pass: {told}{more}")
    if run.outcome is not Outcome.PASS:
        reason = f"judged again it passes, but its record says {run.outcome}: overproof judge {run.path}"
        return Certified(outcome=run.outcome, path=None, reason=reason)
    return None


def build_certificate(run: Run, findings: Sequence[Finding]) -> Certificate:
    """Gather what the certificate of a run that passed says."""
    evidence = Evidence(run)
    files = record_digests(run)
    kind = "cores of this machine, which stood in for GPUs" if evidence.is_cpu else "GPUs"
    started = datetime.datetime.fromtimestamp(run.header.started_ns / 1e9, tz=datetime.UTC)
    return Certificate(
        host=run.header.host,
        run_id=run.header.id,
        title="Certificate of a burn-in",
        sentence=f"passed its burn-in: {len(evidence.devices)} devices ({kind}), "
        f"{sum(1 for f in findings if f.counts)} findings, none failed, none undecided.",
        facts=(
            ("Tested", f"{started:%Y-%m-%d %H:%M} UTC"),
            ("Lasted", format_duration(duration_s(run))),
            ("Profile", str(run.header.spec.get("profile", "unknown"))),
            ("Seed", str(run.header.seed)),
            ("Judged by", override_of(run)[1] or "the figures and thresholds that are shipped"),
        ),
        parts=tuple(_part(evidence, device, findings) for device in evidence.devices),
        stages=tuple(_stages(evidence)),
        rules=tuple(_rules(findings)),
        proven=tuple(_proven(findings)),
        reservations=tuple(_reservations(findings)),
        versions=tuple(_versions(evidence)),
        files=files,
        digest=digest_of(files),
        command=f"sha256sum -c {_stem(run.header.host)}.sha256",
    )


def _part(evidence: Evidence, device: str, findings: Sequence[Finding]) -> Part:
    identity: JsonObject = next((gpu for gpu in evidence.gpus if gpu.get("uuid") == device), {})
    listed = (evidence.choice or {}).get("devices", [])
    model = next((str(d["model"]) for d in listed if d["name"] == device), "")
    bound = next(
        (f.evidence for f in findings if (f.rule, f.subject) == ("error-bound", subject_of(device))), {}
    )
    hours = float(bound.get("gpu_hours", 0.0))
    rate, single = bound.get("per_gpu_hour_max"), bound.get("per_gpu_hour_max_single_product")
    text = f"{rate:.3g} errors per GPU-hour or more" if rate else "nothing"
    if rate and single and single > rate:
        text += f"; in a single product {single:.3g}"
    return Part(
        name=device,
        model=model,
        identity=tuple((label, str(identity[key])) for key, label in _IDENTITY.items() if identity.get(key)),
        load=f"{format_duration(hours * 3600)}, {_large(int(bound.get('checked_elements', 0)))} elements",
        bound=text,
    )


def _large(count: int) -> str:
    """Return a count as people write it: 1,234,567 or 1.2 × 10¹²."""
    if count < 10**7:
        return f"{count:,}"
    mantissa, _, exponent = f"{count:.1e}".partition("e+")
    return f"{mantissa} × 10" + str(int(exponent)).translate(_SUPERSCRIPT)


_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def _stages(evidence: Evidence) -> Iterator[Shown]:
    """Yield each stage with the time that it really took and what was done in it."""
    for stage in evidence.order.stages:
        begun, ended = (
            [e for e in evidence.run.events_of(kind) if e.data.get("stage") == stage.name]
            for kind in ("stage.started", "stage.finished")
        )
        lengths = [(end.t_ns - begin.t_ns) / 1e9 for begin, end in zip(begun, ended, strict=False)]
        lasted = sum(lengths) if lengths else None  # one of each cycle
        impossible = evidence.impossible(stage.name)
        done = [device for device in evidence.devices if evidence.has_done(device, stage.name)]
        result = f"not run: {impossible}" if impossible else f"{len(done)} devices" if done else "whole node"
        yield Shown(name=stage.name, lasted=format_duration(lasted), result=result)


def _rules(findings: Sequence[Finding]) -> Iterator[Shown]:
    passed: dict[str, int] = {}
    for finding in findings:
        if finding.counts and finding.outcome is Outcome.PASS and not is_control(finding):
            passed[finding.rule] = passed.get(finding.rule, 0) + 1
    for rule, count in passed.items():
        yield Shown(name=rule, lasted=f"×{count}" if count > 1 else "", result="")


def _proven(findings: Sequence[Finding]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield how far down the line, and the detectors that were proven so far."""
    reaches: dict[str, list[str]] = {}
    for finding in findings:
        if is_control(finding) and finding.outcome is Outcome.PASS:
            reach = str(finding.evidence.get("fidelity") or "reach not stated")
            reaches.setdefault(reach, []).append(finding.subject.removeprefix("detector:"))
    for reach, names in sorted(reaches.items()):
        yield reach, tuple(names)


def _reservations(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings:
        if finding.waiver is not None:
            waiver = finding.waiver
            until = f"by {waiver.owner} until {waiver.expires}: {waiver.reason}"
            yield f"waived {until}: {finding.rule} of {finding.subject}, {finding.observed}"
    left_out = [f.subject.removeprefix("stage:") for f in findings if f.rule == "left-out"]
    if left_out:
        yield f"left out by the plan: {', '.join(left_out)}"
    lacking = dict.fromkeys(f.rule for f in findings if f.outcome is None and f.rule not in _TOLD_ELSEWHERE)
    if lacking:
        yield f"does not apply on this platform: {', '.join(lacking)}"


_TOLD_ELSEWHERE = ("left-out", "override")


def _versions(evidence: Evidence) -> Iterator[tuple[str, str]]:
    ready: JsonObject = next(iter(evidence.told("worker.ready")), {})
    # The node's own versions go before those of the machine that followed the run.
    known: JsonObject = dict(evidence.run.header.versions) | {"driver": evidence.inventory.get("driver")}
    known |= {key: ready[key] for key in _VERSIONS if ready.get(key)}
    for name in _VERSIONS:
        if known.get(name):
            yield name, str(known[name])


def render_certified(certified: Certified, *, as_json: bool) -> str:
    """Return what goes to standard output: the path as the last line, or one JSON document."""
    path = str(certified.path) if certified.path else None
    if as_json:
        said = {"outcome": certified.outcome.value, "certificate": path, "reason": certified.reason}
        return json.dumps(said) + "\n"
    return f"{path}\n" if path else ""

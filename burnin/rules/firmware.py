"""The rule on firmware: GPUs of one model in one node run the same, or their figures cannot be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from burnin.evidence import subject_of
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

KEYS = ("vbios", "inforom_image", "gsp_firmware")


def judge_firmware(host: str, gpus: Sequence[JsonObject], *, is_failure: bool) -> list[Finding]:
    """Name each GPU whose firmware differs from that of its siblings; without a majority name the host."""
    findings = []
    for model in sorted({str(gpu.get("name")) for gpu in gpus}):
        siblings = [gpu for gpu in gpus if str(gpu.get("name")) == model]
        for key in KEYS:
            if len(siblings) > 1 and any(gpu.get(key) for gpu in siblings):
                findings += _judge(host, model, key, siblings, Outcome.FAIL if is_failure else None)
    return findings


def _judge(
    host: str, model: str, key: str, gpus: Sequence[JsonObject], mixed: Outcome | None
) -> list[Finding]:
    versions = Counter(str(gpu[key]) for gpu in gpus if gpu.get(key))
    if len(versions) == 1:
        (version,) = versions
        observed = f"{key} {version} on {versions[version]} of {len(gpus)} × {model}"
        return [_finding(f"host:{host}/{key}", Outcome.PASS, observed, "")]
    (best, count), (_, second), *_ = versions.most_common()
    if count == second:
        observed = f"{model}: {key} is mixed: " + ", ".join(f"{v} on {n}" for v, n in versions.items())
        return [_finding(f"host:{host}/{key}", mixed, observed, "flash all GPUs of this node to one version")]
    odd = [gpu for gpu in gpus if gpu.get(key) and str(gpu[key]) != best]
    return [
        _finding(
            subject_of(str(gpu["uuid"])),
            mixed,
            f"{key} {gpu[key]}, while {count} siblings have {best}",
            f"flash this GPU to {key} {best}, then run it again",
        )
        for gpu in odd
    ]


def _finding(subject: str, outcome: Outcome | None, observed: str, next_step: str) -> Finding:
    return Finding(
        rule="firmware",
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected="one version on all GPUs of one model in this node",
        evidence={"stage": "preflight"},
        next_step=next_step if outcome is not Outcome.PASS else "",
    )

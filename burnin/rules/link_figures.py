"""Rules on links between GPUs: the way that NCCL really took, and links that are slower than their like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import median

from burnin.evidence import Evidence
from burnin.expectation import Expectation
from burnin.node.rounds import ALONE, TOGETHER, link_name
from burnin.rules.transfer import judge_common_end
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

PEER_TO_PEER = "P2P/"  # as NCCL's log names a transport that copies from GPU to GPU
# Of the median of the other links. Behind an NVSwitch every pair has the same way, so healthy ones should
# differ by a few per cent (assumed, not measured); one of 18 links that is missing takes 6 (rule nvlink).
RATIO_MIN = 0.85
OTHERS_MIN = 2  # links to compare with: of two that differ nobody can say which is slow


def judge_pairs(evidence: Evidence, expectations: Mapping[str, Expectation | None]) -> list[Finding]:
    """Judge the transport and the speed of every pair of devices."""
    if evidence.order.stage("links") is None or evidence.impossible("links"):
        return []
    pairs = {link_name(*pair): pair for pair in combinations(evidence.devices, 2)}
    told = {link: evidence.told("link.result", link=link) for link in pairs}
    wired = {
        link: _all([_has_nvlink(evidence, gpu, expectations) for gpu in pair]) for link, pair in pairs.items()
    }
    transports = [
        judge_transport(link, devices=pair, results=told[link], is_wired=wired[link])
        for link, pair in pairs.items()
    ]
    # Only among pairs that the same switches join: over PCIe the ways differ, and so do healthy rates.
    rates = {link: rate for link in pairs if wired[link] and (rate := _rate(told[link])) is not None}
    speeds = [
        judge_link_speed(
            link,
            devices=pair,
            rate=rates.get(link),
            others=[rate for other, rate in rates.items() if other != link],
            is_wired=wired[link],
        )
        for link, pair in pairs.items()
    ]
    return [*transports, *speeds, *judge_common_end(speeds, what="is slow")]


def _all(claims: Sequence[bool | None]) -> bool | None:
    """Return False if one claim is, None if one is not known, else True."""
    return False if False in claims else None if None in claims else True


def _has_nvlink(evidence: Evidence, gpu: str, expectations: Mapping[str, Expectation | None]) -> bool | None:
    """Say whether NVLink joins a GPU to every other: by its model, and by the links seen; None: not known."""
    expectation = expectations.get(gpu)
    if expectation is None or "nvlinks" not in expectation.figures:
        return False
    told = evidence.told("gpu.snapshot", gpu=gpu, when="before")
    links = told[-1].get("links") if told else None
    return None if links is None else bool(links)


def _rate(results: Sequence[JsonObject]) -> float | None:
    """Return the slower of a link's two ways, pairs alone if they were; None: not measured both ways."""
    for phase in (ALONE, TOGETHER):
        one_way = [float(r["gbps"]) for r in results if r["phase"] == phase and r["way"] != "both ways"]
        if len(one_way) > 1:
            return min(one_way)
    return None


def judge_transport(
    link: str, *, devices: Sequence[str], results: Sequence[JsonObject], is_wired: bool | None
) -> Finding:
    """Fail a link that NVLink joins and over which NCCL copied another way, unless it was told to."""
    named = sorted({str(t) for r in results for t in r.get("transports") or ()})
    settings = {k: v for r in results for k, v in (r.get("nccl_settings") or {}).items()}
    astray, via = [t for t in named if not t.startswith(PEER_TO_PEER)], ", ".join(named)
    outcome: Outcome | None
    if results and all(r.get("backend") == "gloo" for r in results):
        outcome, observed = None, "gloo on loopback: no GPU takes part"
    elif not named:
        outcome, observed = Outcome.INCONCLUSIVE, "NCCL's log names no transport"
    elif not astray:
        outcome, observed = Outcome.PASS, f"from peer to peer: {via}"
    elif is_wired is False:
        outcome, observed = None, f"{via}; no NVLink is known to join the two"
    elif settings:
        told = ", ".join(f"{name}={value}" for name, value in settings.items())
        outcome, observed = (
            Outcome.INCONCLUSIVE,
            f"{via}, as {told} may have asked for: NVLink was not tested",
        )
    elif is_wired is None:
        outcome, observed = Outcome.INCONCLUSIVE, f"{via}; whether NVLink joins the two could not be read"
    else:
        outcome, observed = Outcome.FAIL, f"{via}, although NVLink joins the two"
    steps = {
        Outcome.FAIL: "look at `nvidia-smi topo -p2p n`, the fabric manager, ACS and the container's IPC",
        Outcome.INCONCLUSIVE: "run it again without NCCL's own settings, and see rule link",
    }
    return Finding(
        rule="link-transport",
        subject=f"link:{link}",
        outcome=outcome,
        observed=observed,
        expected="NCCL copies from peer to peer where NVLink joins two GPUs",
        evidence={"stage": "links", "devices": list(devices), "transports": named, "settings": settings},
        next_step=steps.get(outcome, "") if outcome else "",
    )


def judge_link_speed(
    link: str,
    *,
    devices: Sequence[str],
    rate: float | None,
    others: Sequence[float],
    is_wired: bool | None,
) -> Finding:
    """Fail a link that is far slower than the other links of the node, which have the same way."""
    outcome: Outcome | None
    ratio = None
    if is_wired is False:
        outcome, observed = None, "no NVLink is known to join the two: there is no link of its like"
    elif rate is None:
        outcome, observed = Outcome.INCONCLUSIVE, "not measured both ways, or NVLink could not be read"
    elif len(others) < OTHERS_MIN:
        outcome, observed = None, f"{rate:.4g} GB/s; too few other links to compare with"
    else:
        theirs = median(others)
        ratio = rate / theirs if theirs > 0 else 0.0
        outcome = Outcome.PASS if ratio >= RATIO_MIN else Outcome.FAIL  # NaN is no pass
        observed = f"{rate:.4g} GB/s one way, {ratio:.0%} of the other links' {theirs:.4g}"
    return Finding(
        rule="link-speed",
        subject=f"link:{link}",
        outcome=outcome,
        observed=observed,
        expected=f"at least {RATIO_MIN:.0%} of the median of the other links, the slower way of each",
        unit="GB/s",
        evidence={"stage": "links", "devices": list(devices), "gbps": rate, "ratio": ratio},
        next_step=_slow_step(outcome),
    )


def _slow_step(outcome: Outcome | None) -> str:
    if outcome is Outcome.FAIL:
        return "see rule nvlink on both ends; if other links of one of the two are slow, suspect that GPU"
    return "see rule link, then run it again" if outcome is Outcome.INCONCLUSIVE else ""

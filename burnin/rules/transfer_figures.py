"""Lays what was copied out for the rules on absolute figures: within a GPU, from the host, between peers."""

from __future__ import annotations

from burnin.evidence import Evidence, subject_of
from burnin.expectation import Expectation, Figure
from burnin.node.rounds import ALONE, TOGETHER
from burnin.rules.figures import Floor, judge_floor, share_of, whole
from burnin.thresholds import Thresholds
from probes.finding import Finding
from probes.json_types import JsonObject

HOST_PATHS = ("host to device", "device to host")


def judge_copies(
    evidence: Evidence, uuid: str, expectation: Expectation | None, thresholds: Thresholds
) -> list[Finding]:
    """Judge the bandwidth of a GPU's own memory, and of its way to the host while the others rest."""
    figures = expectation.figures if expectation else {}
    typical = figures.get("hbm_tbps_typical")
    in_gbps = Figure(value=typical.value * 1000, source=typical.source) if typical else None
    findings = [
        _judge(
            "hbm-bandwidth",
            evidence,
            uuid,
            "device copy",
            share_of(in_gbps, thresholds.hbm_share_min, "GB/s"),
        )
    ]
    floor = whole(figures.get("host_to_device_gbps_min"))
    return findings + [_judge("host-bandwidth", evidence, uuid, path, floor) for path in HOST_PATHS]


def _judge(rule: str, evidence: Evidence, uuid: str, path: str, floor: Floor | None) -> Finding:
    told = evidence.told("bandwidth.result", device=uuid, path=path)
    # Alone first: all GPUs at once share the sockets and switches above them, and no floor is known for that.
    alone = [data for data in told if data["phase"] == ALONE] or told
    pinned = [data for data in alone if data["is_pinned"]]
    subject = subject_of(uuid) if rule == "hbm-bandwidth" else f"{subject_of(uuid)}/{path}"
    return judge_floor(
        rule,
        subject,
        [float(data["gbps"]) for data in pinned],
        floor,
        what=f"{path}, while the others rested" if told and alone is not told else path,
        unit="GB/s",
        stage="bandwidth",
        readings_min=1,
    )


def judge_peers(
    evidence: Evidence, uuid: str, expectation: Expectation | None, thresholds: Thresholds
) -> list[Finding]:
    """Judge what a GPU receives from each peer; below half of the line rate it took another way."""
    told = evidence.told("link.result", receiver=uuid)
    one_way = [data for data in told if data["way"] != "both ways"]
    phase = ALONE if any(data["phase"] == ALONE for data in one_way) else TOGETHER
    found: dict[str, list[float]] = {}
    for data in one_way:
        if data["phase"] == phase:
            found.setdefault(str(data["sender"]), []).append(float(data["gbps"]))
    floor = _line_floor(expectation, thresholds, _links_of(evidence, uuid))
    return [
        judge_floor(
            "peer-bandwidth",
            f"{subject_of(uuid)}/from {sender}",
            rates,
            floor,
            what=f"from {sender}",
            unit="GB/s",
            stage="links",
            readings_min=1,
        )
        for sender, rates in sorted(found.items())
    ]


def _links_of(evidence: Evidence, uuid: str) -> list[JsonObject]:
    """Return the NVLinks that the sensors saw; a PCIe board without bridges has none."""
    told = evidence.told("gpu.snapshot", gpu=uuid, when="before")
    return list((told[-1].get("links") if told else None) or [])


def _line_floor(
    expectation: Expectation | None, thresholds: Thresholds, links: list[JsonObject]
) -> Floor | None:
    """Return a share of the line rate of all NVLinks; None: no figures, or a board without links."""
    figures = expectation.figures if expectation else {}
    count, each = figures.get("nvlinks"), figures.get("nvlink_gbps_per_link")
    if count is None or each is None or not links:
        return None
    line = count.value * each.value
    share = thresholds.peer_line_share_min
    why = f"{share:.0%} of {count.value:g} links of {each.value:g} GB/s each ({each.source})"
    return Floor(value=share * line, why=why)

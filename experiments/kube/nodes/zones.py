"""Which nodes of a cluster may be lost at one time, so that the rest can still heal it: pure.

Kubernetes itself draws this line: where 55 % of a zone's nodes and more than two are silent, it takes the
trouble for its own network's and gives up hardly any node of that zone, in a zone of up to 50 nodes none;
where all nodes of a zone are, it goes on as usual as long as another zone is well.
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments.kube.pods.pod import condition_of, is_ready, node_of
from probes.json_types import JsonObject

ZONE_LABEL = "topology.kubernetes.io/zone"
SHARE_MAX = 0.55
_FEW = 2  # so many silent nodes are never taken for trouble of the network
_SMALL_ZONE = 50


def zone_of(node: JsonObject) -> str:
    """Return the zone that a node says it is in; empty: none."""
    return str((node["metadata"].get("labels") or {}).get(ZONE_LABEL) or "")


def why_too_wide(lost: Sequence[JsonObject], others: Sequence[JsonObject], pods: Sequence[JsonObject]) -> str:
    """Say why these nodes may not be lost together; empty: they may. ``pods`` are those of the target."""
    names = {str(node["metadata"]["name"]) for node in lost}
    share = len(lost) / (len(lost) + len(others))
    if share > SHARE_MAX:
        every = len(lost) + len(others)
        return f"{len(lost)} of {every} nodes would go ({share:.0%}), at most {SHARE_MAX:.0%} may"
    ready = [pod for pod in pods if is_ready(pod)]
    going = [pod for pod in ready if node_of(pod) in names]
    if ready and len(going) / len(ready) > SHARE_MAX:
        share = len(going) / len(ready)
        return f"{len(going)} of {len(ready)} ready pods would go ({share:.0%}), at most {SHARE_MAX:.0%} may"
    said = (_why_not_healed(zone, lost, others) for zone in sorted({zone_of(node) for node in lost}))
    return next((why for why in said if why), "")


def _why_not_healed(zone: str, lost: Sequence[JsonObject], others: Sequence[JsonObject]) -> str:
    gone = sum(zone_of(node) == zone for node in lost)
    left = sum(zone_of(node) == zone and _is_well(node) for node in others)
    gone += sum(zone_of(node) == zone and not _is_well(node) for node in others)
    if not left or gone <= _FEW or gone / (gone + left) < SHARE_MAX or gone + left > _SMALL_ZONE:
        return ""
    return (
        f"{gone} of {gone + left} nodes of zone {zone or 'without a name'} would be silent: from "
        f"{SHARE_MAX:.0%} on Kubernetes gives up no node of so small a zone, so nothing would heal; "
        "lose fewer, or the whole zone"
    )


def _is_well(node: JsonObject) -> bool:
    return bool(condition_of(node, "Ready").get("status") == "True")

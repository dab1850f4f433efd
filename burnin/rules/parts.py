"""Parts of stages that profile or plan left out, although these devices have them."""

from __future__ import annotations

from burnin.evidence import Evidence
from burnin.node.number_format import FORMATS
from burnin.node.rounds import ALONE

ALGORITHMS = ("Ring", "Tree", "NVLS")


def parts_left_out(evidence: Evidence) -> dict[str, list[str]]:
    """Return, by stage, what was not asked for: number formats, pairs by themselves, algorithms, memory."""
    order, parts = evidence.order, {}
    if (matmul := order.stage("matmul")) is not None:
        lacking = {str(name) for data in evidence.told("formats") for name in data["left_out"]}
        kind = "cpu" if evidence.is_cpu else "cuda"
        asked = set(matmul.options.get("formats") or FORMATS) | lacking
        parts["matmul"] = [n for n, f in FORMATS.items() if n not in asked and kind in f.kinds]
    links = order.stage("links")
    if (
        links is not None
        and len(evidence.devices) > 2
        and ALONE not in (links.options.get("phases") or [ALONE])
    ):
        parts["links"] = ["each pair by itself"]
    allreduce = order.stage("allreduce")
    if allreduce is not None and not evidence.is_cpu:  # gloo has one algorithm only
        asked = set(allreduce.options.get("algorithms") or ALGORITHMS)
        parts["allreduce"] = [name for name in ALGORITHMS if name not in asked]
    memory = order.stage("memory")
    if memory is not None and memory.options.get("bytes_max"):
        parts["memory"] = [f"what lies beyond {memory.options['bytes_max']:,} B"]
    return parts

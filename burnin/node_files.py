"""The modules that travel to a node, listed in this one place.

They import the standard library, pynvml and the node's own torch, nothing else, and run on Python 3.10.
"""

from __future__ import annotations

NODE_MODULES = (
    "burnin",
    "burnin.agent",
    "burnin.allreduce",
    "burnin.bench",
    "burnin.crew",
    "burnin.device",
    "burnin.device_choice",
    "burnin.digest",
    "burnin.exact",
    "burnin.gpu_rounds",
    "burnin.gpu_watch",
    "burnin.log_watch",
    "burnin.matmul",
    "burnin.number_format",
    "burnin.order",
    "burnin.pace",
    "burnin.product",
    "burnin.sampler",
    "burnin.second",
    "burnin.seeding",
    "burnin.speaker",
    "burnin.stall",
    "burnin.stress",
    "burnin.watched_call",
    "burnin.worker",
    "probes",
    "probes.child",
    "probes.errors",
    "probes.event",
    "probes.host",
    "probes.json_types",
    "probes.kernel_log",
    "probes.nvml",
    "probes.nvml_fields",
    "probes.nvml_structures",
    "probes.platform",
)

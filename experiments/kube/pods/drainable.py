"""Whether a pod may be moved off its node by an eviction: pure.

Not chaostoolkit-kubernetes' ``drain_nodes``: it passes over every pod with an ``emptyDir``, which is any pod
with shared memory for a GPU, and succeeds; told to take those too, it evicts pods of DaemonSets, which come
back at once; and it breaks off at the first 429 with its nodes left cordoned. Here a pod that may not go is
said before anything is touched, pods of DaemonSets stay whatever they mount, and a 429 is asked again.
"""

from __future__ import annotations

from experiments.kube.pods.pod import controller_of, empty_dirs_of, name_of
from probes.json_types import JsonObject


def why_not_drained(pod: JsonObject, *, may_lose_data: bool) -> str:
    """Say why a pod may not be evicted; empty: it may be."""
    if controller_of(pod) is None:
        return f"{name_of(pod)} has no controller, so nobody would replace it, nor could we"
    volumes = empty_dirs_of(pod)
    if volumes and not may_lose_data:
        lost = ", ".join(volumes)
        return f"{name_of(pod)} would lose its emptyDir {lost}; delete_emptydir_data: true if it may"
    return ""

"""The objects of one game day in the cluster: mirror, two leases, the dead-man's code and its Job.

All but the mirror are owned by it: with it the cluster removes them too.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.kube.deadman.lease import LEASE_S, now_text
from experiments.kube.deadman.mirror import RUN_LABEL, Place
from experiments.kube.deadman.modules import build_dead_man
from probes.json_types import JsonObject

SERVICE_ACCOUNT = "overproof-dead-man"
IMAGE = "python:3.12-slim"
_ARCHIVE, _FOLDER = "dead-man.zip", "/overproof"
_LOST_NODE_S = 5  # on a node that is silent the dead-man's own pod stays no longer
_RETRIES_MAX = 1000  # nobody else would start it again


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadManSettings:
    """What the dead-man runs from."""

    namespace: str
    image: str = IMAGE  # any with a Python from 3.10 on
    python: str = "python3"
    ready_within_s: float = 60.0  # its image may have to be pulled


def mirror_object(place: Place, run: str, by: str) -> JsonObject:
    """Return the empty mirror of a run."""
    meta = _meta(place, place.name, None) | {"annotations": {RUN_LABEL: run, "overproof.dev/by": by}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {}}


def lease_object(place: Place, name: str, owner: JsonObject, holder: str) -> JsonObject:
    """Return a lease; without a holder nobody has renewed it yet."""
    spec = {"leaseDurationSeconds": LEASE_S} | (
        {"holderIdentity": holder, "renewTime": now_text()} if holder else {}
    )
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": _meta(place, name, owner),
        "spec": spec,
    }


def code_object(place: Place, owner: JsonObject) -> JsonObject:
    """Return the ConfigMap with the dead-man's code."""
    code = base64.b64encode(build_dead_man()).decode()
    meta = _meta(place, code_name(place), owner)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "binaryData": {_ARCHIVE: code}}


def code_name(place: Place) -> str:
    """Return the name of the ConfigMap with the code."""
    return f"{place.name}-code"


def job_object(
    place: Place, owner: JsonObject, settings: DeadManSettings, nonce: str, away_from: Sequence[str]
) -> JsonObject:
    """Return the Job: one pod that is started again wherever it ends before its work is done."""
    meta = _meta(place, place.name, owner)
    pod = {"metadata": {"labels": meta["labels"]}, "spec": _pod(place, settings, nonce, away_from)}
    spec = {"backoffLimit": _RETRIES_MAX, "parallelism": 1, "completions": 1, "template": pod}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}


def _pod(place: Place, settings: DeadManSettings, nonce: str, away_from: Sequence[str]) -> JsonObject:
    arguments = ["experiments.kube.deadman.pod", place.namespace, place.name, nonce]
    container = {
        "name": "dead-man",
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "command": [settings.python, "-I", "-S", f"{_FOLDER}/{_ARCHIVE}", *arguments],
        "resources": {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "code", "mountPath": _FOLDER, "readOnly": True}],
    }
    lost = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    brief = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _LOST_NODE_S}
    # It may run where nothing else shall: it is small, and nodes may be cordoned all around.
    anyhow = ("node-role.kubernetes.io/control-plane", "node.kubernetes.io/unschedulable")
    tolerated = [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in anyhow]
    return {
        "serviceAccountName": SERVICE_ACCOUNT,
        "restartPolicy": "OnFailure",
        "terminationGracePeriodSeconds": 2,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532},
        "affinity": _away_from(away_from),
        "tolerations": [*({"key": key} | brief for key in lost), *tolerated],
        "containers": [container],
        "volumes": [{"name": "code", "configMap": {"name": code_name(place)}}],
    }


def _away_from(nodes: Sequence[str]) -> JsonObject:
    """Keep the pod off the nodes that are to be hit; a field takes one name an expression."""
    if not nodes:
        return {}
    named = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in sorted(set(nodes))]
    return {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": named}]}
        }
    }


def _meta(place: Place, name: str, owner: JsonObject | None) -> JsonObject:
    meta: JsonObject = {"name": name, "namespace": place.namespace, "labels": {RUN_LABEL: place.name}}
    if owner is not None:
        found = owner["metadata"]
        meta["ownerReferences"] = [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": found["name"], "uid": found["uid"]}
        ]
    return meta

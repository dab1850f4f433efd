"""The service to rehearse on, as objects of a cluster: our manifest with what was asked for filled in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from probes.json_types import JsonObject

MANIFEST = Path(__file__).parents[1] / "manifests" / "service" / "chat.yaml"
NAMESPACE, NAME, PORT = "inference", "chat", 8000
LAB_LABEL = "overproof.dev/lab"
SCALER = "HorizontalPodAutoscaler"
_PATHS = {
    "Namespace": "/api/v1/namespaces",
    "Service": "/api/v1/namespaces/{}/services",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    SCALER: "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePlan:
    """What is to be put on the cluster."""

    image: str
    namespace: str = NAMESPACE
    python: str = "python3"
    replicas: int = 3
    replicas_max: int | None = None  # None: their number is fixed
    load_s: float = 0.0
    step_work_ms: float = 0.0
    seed: int = 1


def collection_of(kind: str, namespace: str) -> str:
    """Return where the API keeps the objects of a kind."""
    return _PATHS[kind].format(namespace)


def path_of(found: JsonObject) -> str:
    """Return where the API keeps an object of the service."""
    meta = found["metadata"]
    return f"{collection_of(found['kind'], str(meta.get('namespace', '')))}/{meta['name']}"


def objects_of(plan: ServicePlan) -> list[JsonObject]:
    """Return what is to be on the cluster, the namespace first."""
    rows: list[JsonObject] = list(yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8")))
    by_kind = {str(row["kind"]): row for row in rows}
    for row in rows:
        row["metadata"]["name" if row["kind"] == "Namespace" else "namespace"] = plan.namespace
    deployment, scaler = by_kind["Deployment"]["spec"], by_kind[SCALER]["spec"]
    (container,) = deployment["template"]["spec"]["containers"]
    container["image"] = plan.image
    more = {"--start-delay-s": plan.load_s, "--step-work-ms": plan.step_work_ms, "--seed": plan.seed}
    container["command"] = [plan.python, *container["command"][1:]]
    container["command"] += [word for name, value in more.items() for word in (name, f"{value:g}")]
    if plan.replicas_max is None:
        deployment["replicas"] = plan.replicas
        return [row for row in rows if row["kind"] != SCALER]
    del deployment["replicas"]  # the autoscaler's from now on: applying it again must not take it back
    scaler["minReplicas"], scaler["maxReplicas"] = plan.replicas, plan.replicas_max
    return rows

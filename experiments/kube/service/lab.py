"""The service to rehearse on, put onto a cluster, looked at and removed; only ever in a namespace of ours."""

from __future__ import annotations

import sys
import time

from experiments.kube.choosing.allowed import namespace_path, read_or_none
from experiments.kube.client import KubeClient
from experiments.kube.cluster import Identity
from experiments.kube.pods.pod import is_finished, is_ready, name_of, node_of, restarts_of, waits_for
from experiments.kube.service.objects import (
    LAB_LABEL,
    NAME,
    PORT,
    SCALER,
    ServicePlan,
    collection_of,
    objects_of,
    path_of,
)
from experiments.kube.watching.pod_view import PodView
from probes.errors import ConfigError, TargetError
from probes.json_types import JsonObject

APPLY = "application/apply-patch+yaml"
_OWNER = {
    "fieldManager": "overproof-lab",
    "force": "true",
}  # force: another hand's value yields to the manifest
_GROUPS = {"Deployment": "apps", "PodDisruptionBudget": "policy", SCALER: "autoscaling"}
_POLL_S = 0.5


def put_up(client: KubeClient, plan: ServicePlan, *, within_s: float) -> JsonObject:
    """Put the service onto the cluster and wait until every replica is ready; return how it is then.

    Raises:
        ConfigError: the namespace is somebody else's, or we may not; nothing is touched.
        TargetError: not every replica is ready in time.
    """
    rows = objects_of(plan)
    check_up(client, plan, rows)
    for row in rows:
        client.ask("PATCH", path_of(row), query=_OWNER, body=row, content_type=APPLY)
    view = PodView(client, [plan.namespace])
    (deployment,) = (path_of(row) for row in rows if row["kind"] == "Deployment")

    def is_up() -> bool:
        return _ready(view) >= plan.replicas and is_rolled_out(client.ask("GET", deployment))

    if not view.follow(is_up, within_s=within_s):
        waiting = sorted({why for pod in view.pods if (why := waits_for(pod))})
        said = "; ".join(waiting) or "they load"
        raise TargetError(
            f"namespace {plan.namespace}: {_ready(view)} of {plan.replicas} replicas ready after "
            f"{within_s:g} s, and not all of them as asked for now: {said}; "
            "`overproof lab down --kube` removes them"
        )
    return look(client, plan.namespace)


def is_rolled_out(deployment: JsonObject) -> bool:
    """Say whether every replica is of what was asked for last; those of the former version are ready too."""
    status = deployment.get("status") or {}
    is_seen = int(status.get("observedGeneration") or 0) >= int(deployment["metadata"]["generation"])
    updated = int(status.get("updatedReplicas") or 0)
    return is_seen and int(status.get("replicas") or 0) == updated >= int(deployment["spec"]["replicas"])


def _ready(view: PodView) -> int:
    return sum(is_ready(pod) for pod in view.pods)


def check_up(client: KubeClient, plan: ServicePlan, rows: list[JsonObject]) -> None:
    """See that the namespace is free or a lab of ours, and that we may create what is to be in it."""
    found = read_or_none(client, namespace_path(plan.namespace))
    if found is not None:
        _check_ours(plan.namespace, found)
    for row in rows:
        is_namespace = row["kind"] == "Namespace"
        resource = collection_of(str(row["kind"]), "").rsplit("/", 1)[1]
        for verb in ("patch", "create") if found is None or not is_namespace else ("patch",):
            space = "" if is_namespace else plan.namespace
            if not client.may(verb, resource, group=_GROUPS.get(str(row["kind"]), ""), namespace=space):
                where = f" in {space}" if space else ""
                raise ConfigError(
                    f"lab up --kube: RBAC of the cluster does not let us {verb} {resource}{where}; "
                    "nothing is touched"
                )


def _check_ours(namespace: str, found: JsonObject) -> None:
    if (found["metadata"].get("labels") or {}).get(LAB_LABEL) != NAME:
        raise ConfigError(
            f"namespace {namespace}: is there, and not a lab of ours (label {LAB_LABEL}={NAME}); "
            "choose another --namespace"
        )
    if found["metadata"].get("deletionTimestamp"):
        raise ConfigError(f"namespace {namespace}: is being removed; wait for its end")


def look(client: KubeClient, namespace: str) -> JsonObject:
    """Return how the service is.

    Raises:
        TargetError: there is none.
    """
    service = read_or_none(client, f"{collection_of('Service', namespace)}/{NAME}")
    if service is None:
        raise TargetError(f"namespace {namespace}: no lab is there; `overproof lab up --kube` starts one")
    pods = client.listed(f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"app={NAME}")
    rows = [
        {
            "name": name_of(pod),
            "node": node_of(pod),
            "is_serving": is_ready(pod),
            "restarts": restarts_of(pod),
            "waits_for": waits_for(pod),
        }
        for pod in pods
        if not is_finished(pod)
    ]
    scaler = read_or_none(client, f"{collection_of(SCALER, namespace)}/{NAME}")
    return {
        "namespace": namespace,
        "replicas": rows,
        "scaled": scaler
        and {"min": scaler["spec"]["minReplicas"], "max": scaler["spec"]["maxReplicas"]}
        | {"wanted": (scaler.get("status") or {}).get("desiredReplicas")},
        "url": f"http://{service['spec']['clusterIP']}:{PORT}",
        "url_inside": f"http://{NAME}.{namespace}:{PORT}",
    }


def take_down(client: KubeClient, namespace: str, *, within_s: float) -> bool:
    """Remove the namespace of a lab with all that is in it; say whether there was one.

    Raises:
        ConfigError: it is not a lab of ours.
        TargetError: it is still there after so long.
    """
    path = namespace_path(namespace)
    found = read_or_none(client, path)
    if found is None:
        return False
    if not found["metadata"].get("deletionTimestamp"):
        _check_ours(namespace, found)
        client.ask("DELETE", path, body={"preconditions": {"uid": found["metadata"]["uid"]}})
    deadline = time.monotonic() + within_s
    while read_or_none(client, path) is not None:
        if time.monotonic() > deadline:
            raise TargetError(f"namespace {namespace}: is still there after {within_s:g} s")
        time.sleep(_POLL_S)
    return True


def show_and_ask(identity: Identity, what: str, *, is_agreed: bool) -> None:
    """Say which cluster is meant and what is about to be done there, and ask, unless that is agreed to.

    Raises:
        ConfigError: whoever was asked says no, or nobody is there to be asked.
    """
    sys.stderr.write(f"{identity}: {what}\n")
    if is_agreed:
        return
    if not sys.stdin.isatty():
        raise ConfigError("lab --kube: nobody is there to be asked; look at the line above, and state --yes")
    sys.stderr.write("go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ConfigError("lab --kube: not agreed to; nothing is touched")

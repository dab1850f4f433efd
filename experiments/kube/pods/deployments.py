"""What changing a deployment would hit, and the state before; nothing is touched."""

from __future__ import annotations

import math

from experiments.faults.fault import FaultRefused
from experiments.kube.choosing.aim import Aim
from experiments.kube.choosing.allowed import check_namespaces, read_or_none
from experiments.kube.choosing.capture import base_of
from experiments.kube.client import KubeClient
from experiments.kube.cluster import Identity
from experiments.kube.pods.pod import is_leaving, name_of
from experiments.kube.pods.workloads import DEPLOYMENT, path_of, pods_of, see_whole
from experiments.kube.undoing.marks import new_mark
from experiments.kube.undoing.steps import Field, UndoStep, make_step
from probes.json_types import JsonObject


def capture_rollout(
    aim: Aim,
    client: KubeClient,
    identity: Identity,
    name: str,
    namespace: str,
    *,
    container: str,
    image: str,
) -> JsonObject:
    """Return what rolling out another image needs.

    Raises:
        FaultRefused: there is no such deployment or container, or it does not roll out now.
    """
    found, workload, pods = _see(client, name, namespace)
    if found["spec"].get("paused"):
        raise FaultRefused(f"deployment {namespace}/{name}: is paused, so nothing would roll out")
    names = [str(each["name"]) for each in found["spec"]["template"]["spec"]["containers"]]
    container = container or names[0]
    if container not in names:
        raise FaultRefused(f"deployment {namespace}/{name}: has no container {container}, but {names}")
    where: tuple[Field, ...] = ("spec", "template", "spec", "containers", {"name": container}, "image")
    step = _step(found, aim, name, namespace, where, image)
    at_once = unavailable_max(found["spec"])
    strategy = (found["spec"].get("strategy") or {}).get("type")
    carries = [f"strategy {strategy}: at most {at_once} of {workload['wanted']} may be missing meanwhile"]
    return _captured(
        "deployment.bad-rollout", aim, identity, workload, pods, step, at_once=at_once, carries=carries
    ) | {"arguments": {"container": container, "image": image}}


def capture_scale(
    aim: Aim, client: KubeClient, identity: Identity, name: str, namespace: str, replicas: int
) -> JsonObject:
    """Return what scaling needs.

    Raises:
        FaultRefused: there is no such deployment, it has so many already, or an autoscaler would fight it.
    """
    found, workload, pods = _see(client, name, namespace)
    if replicas < 0 or replicas == workload["wanted"]:
        raise FaultRefused(f"replicas: wanted 0 or more, other than {workload['wanted']}; got {replicas!r}")
    scalers = client.listed(f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers")
    ours = [s["metadata"]["name"] for s in scalers if s["spec"]["scaleTargetRef"]["name"] == name]
    if ours and replicas:  # at 0 an autoscaler holds still
        raise FaultRefused(
            f"deployment {namespace}/{name}: is scaled by {', '.join(ours)}, which would fight"
        )
    step = _step(found, aim, name, namespace, ("spec", "replicas"), replicas)
    lost = max(0, int(workload["wanted"]) - replicas)
    return _captured("deployment.scale", aim, identity, workload, pods, step, at_once=lost, carries=[]) | {
        "arguments": {"replicas": replicas}
    }


def unavailable_max(spec: JsonObject) -> int:
    """Return how many of a deployment's pods its own roll-out may have missing at once."""
    strategy, wanted = spec.get("strategy") or {}, int(spec.get("replicas", 1))
    if strategy.get("type") == "Recreate":
        return wanted
    rolling = strategy.get("rollingUpdate") or {}
    missing = _of(rolling.get("maxUnavailable", "25%"), wanted, math.floor)
    surge = _of(rolling.get("maxSurge", "25%"), wanted, math.ceil)
    return missing if missing or surge else 1  # both 0 would not move: the platform takes one


def _of(value: object, wanted: int, rounded: object) -> int:
    if isinstance(value, str) and value.endswith("%"):
        assert callable(rounded)
        return int(rounded(wanted * int(value[:-1]) / 100))
    return int(str(value))


def _see(client: KubeClient, name: str, namespace: str) -> tuple[JsonObject, JsonObject, list[JsonObject]]:
    """Return the deployment, it as a workload, and its pods."""
    check_namespaces(client, [namespace])
    found = read_or_none(client, path_of(DEPLOYMENT, namespace, name))
    if found is None:
        raise FaultRefused(f"deployment {namespace}/{name}: there is none")
    workload: JsonObject = {"kind": DEPLOYMENT, "namespace": namespace, "name": name}
    workload |= {"uid": found["metadata"]["uid"], "wanted": int(found["spec"].get("replicas", 1))}
    workload |= {"selector": found["spec"]["selector"]}
    rows = client.listed(f"/api/v1/namespaces/{namespace}/pods")
    pods = [pod for pod in pods_of(workload, rows) if not is_leaving(pod)]
    is_whole, said = see_whole([workload], pods)
    if not is_whole:
        raise FaultRefused(f"{said}: is not whole now, so nothing would show what breaks")
    return found, workload, pods


def _step(
    found: JsonObject, aim: Aim, name: str, namespace: str, where: tuple[Field, ...], value: object
) -> UndoStep:
    path = path_of(DEPLOYMENT, namespace, name)
    subject = f"deployment/{namespace}/{name}"
    return make_step(found, subject=subject, path=path, ours=[(where, value)], mark=new_mark(aim.run))


def _captured(
    fault: str,
    aim: Aim,
    identity: Identity,
    workload: JsonObject,
    pods: list[JsonObject],
    step: UndoStep,
    *,
    at_once: int,
    carries: list[str],
) -> JsonObject:
    name = f"{workload['namespace']}/{workload['name']}"
    victim = {"name": name, "identity": workload["uid"], "what": f"deployment {workload['uid']}"}
    return base_of(
        fault,
        aim,
        identity,
        victims=[victim],
        others=[name_of(pod) for pod in pods[1:]],  # its pods are the capacity: one of them stands for it
        workloads=[workload],
        hit=pods,
        at_once=at_once,
        steps=[step],
        carries=carries,
    )

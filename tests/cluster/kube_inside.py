"""Our shipped pods on the cluster of the tests: with the Python of this machine in the place of an image."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from kubernetes import client

from probes.child import wait_until
from probes.json_types import JsonObject
from tests.cluster.images import ENDPOINT_IMAGE
from tests.cluster.kube_fleet import HOST_PATHS

PROJECT = Path(__file__).parents[2]
MANIFESTS = PROJECT / "experiments" / "kube" / "manifests"
_OURS = "registry.example/overproof@"


def shipped(name: str, kind: str) -> JsonObject:
    """Return the one object of a kind in one of our manifests."""
    rows = yaml.safe_load_all((MANIFESTS / f"{name}.yaml").read_text())
    (found,) = [row for row in rows if row["kind"] == kind]
    return dict(found)


def at_home(pod: JsonObject, *, runs: Path | None = None, more: Sequence[str] = ()) -> JsonObject:
    """Return the spec of a pod with our code from this machine, its record here, and more arguments."""
    pod = copy.deepcopy(pod)
    # What the image would have is below a folder that root alone may enter.
    pod["securityContext"] = {"runAsUser": 0}
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        if not container["image"].startswith(_OURS):
            continue
        container |= {"image": ENDPOINT_IMAGE, "imagePullPolicy": "Never", "workingDir": "/"}
        container.setdefault("command", [f"{sys.prefix}/bin/python", "-P", "-m", "overproof"])
        container["args"] = [*container["args"], *more]
        container["resources"] = {"requests": {"cpu": "500m"}}  # no node of the tests has as much as is asked
        found = {"PATH": f"{sys.prefix}/bin:/usr/bin", "PYTHONPATH": str(PROJECT)}
        container.setdefault("env", []).extend({"name": key, "value": text} for key, text in found.items())
        for number, path in enumerate(_folders()):
            mount = {"name": f"host-{number}", "mountPath": path, "readOnly": True}
            container["volumeMounts"].append(mount)
    pod["volumes"] += [
        {"name": f"host-{number}", "hostPath": {"path": path}} for number, path in enumerate(_folders())
    ]
    for volume in pod["volumes"]:
        if volume.pop("persistentVolumeClaim", None):
            volume["hostPath"] = {"path": str(runs)}
    return pod


def _folders() -> list[str]:
    paths = [*HOST_PATHS, str(PROJECT)]
    return [path for path in paths if not any(path.startswith(f"{other}/") for other in paths)]


def config_map(core: client.CoreV1Api, namespace: str, name: str, files: Sequence[Path]) -> None:
    """Put files into a ConfigMap, in the place of one that is there."""
    data = {path.name: path.read_text() for path in files}
    core.delete_collection_namespaced_config_map(namespace, field_selector=f"metadata.name={name}")
    core.create_namespaced_config_map(namespace, {"metadata": {"name": name}, "data": data})


def exit_code_of(api: client.ApiClient, namespace: str, job: str, *, timeout_s: float) -> int:
    """Wait until the pod of a Job has ended, and return its exit code; the Job has to agree with it."""
    core, batch = client.CoreV1Api(api), client.BatchV1Api(api)
    selector = f"batch.kubernetes.io/job-name={job}"

    def ended() -> list[int]:
        pods = core.list_namespaced_pod(namespace, label_selector=selector).items
        states = [status.state.terminated for pod in pods for status in pod.status.container_statuses or ()]
        return [state.exit_code for state in states if state is not None]

    def told() -> str:
        return "\n".join(
            core.read_namespaced_pod_log(pod.metadata.name, namespace)
            for pod in core.list_namespaced_pod(namespace, label_selector=selector).items
            if pod.status.phase != "Pending"
        )

    assert wait_until(lambda: len(ended()) == 1, timeout_s=timeout_s), told()
    (code,) = ended()
    assert code != 4, told()  # our own suite broke

    def agrees() -> bool:
        status = batch.read_namespaced_job(job, namespace).status
        return bool(status.succeeded if code == 0 else status.failed)

    assert wait_until(agrees, timeout_s=20), (code, told())
    return code

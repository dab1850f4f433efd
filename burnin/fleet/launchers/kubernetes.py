"""The Jobs that run our program on nodes of a Kubernetes cluster: one for each, pinned to it.

A Job's container is started like a program on any other host: it waits for the archive on its standard input,
which is attached to. That input closes with the first who was attached (``stdinOnce``), so that the end of
our connection is the end of the program; the Job's own deadline ends it whatever happens.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any

from burnin.fleet.host import ClusterJobs, Fleet, Host
from burnin.fleet.launchers.bootstrap import command_words
from burnin.fleet.launchers.pod_story import CONTAINER
from probes.errors import ConfigError
from probes.json_types import JsonObject

RUN_LABEL, HOST_ANNOTATION = "overproof/run", "overproof/host"
MANAGED_BY = {"app.kubernetes.io/managed-by": "overproof"}
RIGHTS = "experiments/kube/manifests/burnin/rights.yaml"  # what running Jobs takes, to be applied
KEPT_S = 600  # a Job that has ended goes by itself after this long
GRACE_S = 10
_NAME_MAX = 63
_NOT_IN_NAMES = re.compile(r"[^a-z0-9-]+")


def check_jobs(fleet: Fleet) -> ClusterJobs:
    """Return how the Jobs of a fleet are made.

    Raises:
        ConfigError: the fleet file does not say it, or not how many GPUs each host has.
    """
    if fleet.kubernetes is None:
        raise ConfigError(
            f"fleet {fleet.name}: say which image the Jobs take: kubernetes: {{image: NAME@sha256:...}}"
        )
    for host in fleet.hosts:
        if host.access.launcher == "kubernetes":
            _gpus_of(host)
    return fleet.kubernetes


def _gpus_of(host: Host) -> int:
    if host.expected.gpus is None:
        raise ConfigError(f"{host.name}: the launcher kubernetes asks for GPUs by number; say gpus: N of it")
    return host.expected.gpus


def job_manifest(
    host: Host, jobs: ClusterJobs, *, run: str, time_limit_s: float, job: str | None = None
) -> JsonObject:
    """Return the Job for one host, as it is sent to the cluster; ``job`` names it, if the run has several.

    Raises:
        ConfigError: the fleet file does not say how many GPUs the host has.
    """
    labels = {**MANAGED_BY, RUN_LABEL: label_value(run)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job or job_name(host.name, run),
            "namespace": jobs.namespace,
            "labels": labels,
            "annotations": {HOST_ANNOTATION: host.name},
        },
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": 0,  # what broke is a finding, not something to try again
            "activeDeadlineSeconds": math.ceil(time_limit_s),
            "ttlSecondsAfterFinished": KEPT_S,
            "template": {
                "metadata": {"labels": labels, "annotations": {HOST_ANNOTATION: host.name}},
                "spec": _pod(host, jobs),
            },
        },
    }


def _pod(host: Host, jobs: ClusterJobs) -> JsonObject:
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # RDMA, NCCL's sockets and its shared memory are the host's own, as they are for the jobs to come.
        "hostNetwork": True,
        "hostIPC": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        # By the node's name, not by a label: labels can be missing, or be another's.
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [host.name]}]}
                    ]
                }
            }
        },
        # The node is cordoned, and whatever else keeps work away from it is why we are here.
        "tolerations": [{"operator": "Exists"}],
        "containers": [_container(host, jobs)],
        "volumes": [
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
            *(
                {"name": f"host-{number}", "hostPath": {"path": path, "type": "Directory"}}
                for number, path in enumerate(jobs.host_paths)
            ),
        ],
    }


def _container(host: Host, jobs: ClusterJobs) -> JsonObject:
    limits, gpus = {**jobs.resources}, _gpus_of(host)
    if gpus:
        limits[jobs.gpu_resource] = str(gpus)
    return {
        "name": CONTAINER,
        "image": jobs.image,
        "command": command_words(host.access.python, host.access.wrapper),
        "stdin": True,
        "stdinOnce": True,
        "tty": False,
        # A core for each worker: starved by somebody's pods, it would look stalled, and the node bad.
        "resources": {"limits": limits, "requests": {"cpu": str(max(1, gpus)), **limits}},
        # Memory that adapters reach is locked; nothing else beyond an ordinary container.
        "securityContext": {"capabilities": {"add": ["IPC_LOCK"]}, "privileged": False},
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108  (the container's own)
            *(
                {"name": f"host-{number}", "mountPath": path, "readOnly": True}
                for number, path in enumerate(jobs.host_paths)
            ),
        ],
    }


def job_name(host: str, run: str) -> str:
    """Return a name that is unique to host and run, and one that Kubernetes takes."""
    digest = hashlib.sha256(f"{run}/{host}".encode()).hexdigest()[:10]
    readable = _NOT_IN_NAMES.sub("-", host.lower()).strip("-")
    return f"overproof-{readable[: _NAME_MAX - 22].strip('-')}-{digest}"


def label_value(text: str) -> str:
    """Return a text as the value of a label: it is selected by when leftovers are looked for."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:_NAME_MAX].strip("-._")


def render_manifests(manifests: list[Any]) -> str:
    """Return manifests as one YAML stream, as ``kubectl apply -f -`` takes it."""
    import yaml

    return yaml.safe_dump_all(manifests, sort_keys=False, explicit_start=True, width=200)

"""A hand on a node: a pod that signals the processes of one container, and tells what it saw.

It sees the node's processes (``hostPID``) and has the one capability to signal those of others (``KILL``), no
token of the cluster's, and nothing of the node's files. A pod of its own, not a Job: it needs nobody but the
kubelet of its node, so that undoing works while the cluster's controllers do not.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

from experiments.kube.choosing.allowed import read_or_none
from experiments.kube.client import ApiRefused, KubeClient
from experiments.kube.containers import hand
from experiments.kube.pods.pod import waits_for
from probes.archive import source_of
from probes.errors import TargetError
from probes.json_types import JsonObject

LABEL = "overproof.dev/hand"
_POLL_S = 0.25
_SAID_MAX = 200
_EXTRA_S = 60  # beyond its work, until its kubelet ends it whatever it does


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand:
    """Where hands are started, and from what."""

    namespace: str
    image: str
    python: str
    within_s: float = 60.0  # until one has to have said what it did: its image may have to be pulled

    @property
    def pods(self) -> str:
        """The path of them all."""
        return f"/api/v1/namespaces/{self.namespace}/pods"

    def to_json(self) -> JsonObject:
        """Return it as plain JSON, for the ledger."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What a hand has said."""

    said: JsonObject
    t_sent_ns: int  # by our clock
    t_heard_ns: int

    @property
    def t_hit_ns(self) -> int:
        """When it began, by its node's clock, since we hear of it up to seconds later.

        Where that clock cannot be right, when it was sent: no harm of it may count as of before it.
        """
        began_ns = int(self.said["t_ns"])
        return began_ns if self.t_sent_ns <= began_ns <= self.t_heard_ns else self.t_sent_ns

    @property
    def states(self) -> dict[str, str]:
        """Of the container's processes, by pid on the node: T is stopped."""
        return dict(self.said["states"])


def reach(
    client: KubeClient, at: Hand, name: str, verb: str, target: JsonObject, *, for_s: float = 0
) -> Word:
    """Start a hand on a container and return what it says first; it may go on with its work.

    Raises:
        TargetError: it cannot be started, or says nothing in time.
    """
    return start(client, at, pod_object(at, name, verb, target, for_s=for_s))


def start(client: KubeClient, at: Hand, body: JsonObject) -> Word:
    """Start a pod that does something on its node, and return what it says first.

    Raises:
        TargetError: it cannot be started, or says nothing in time.
    """
    name, node = body["metadata"]["name"], body["spec"]["nodeName"]
    sent_ns = time.time_ns()
    client.ask("POST", at.pods, body=body)
    deadline = time.monotonic() + at.within_s
    while True:
        pod = client.ask("GET", f"{at.pods}/{name}")
        said = _log(client, at, pod)
        if "did" in said:
            return Word(said=said, t_sent_ns=sent_ns, t_heard_ns=time.time_ns())
        if time.monotonic() > deadline or _phase(pod) == "Failed":
            raise TargetError(f"hand {at.namespace}/{name} on {node}: {_why(pod, said)}")
        time.sleep(_POLL_S)


def remove(client: KubeClient, at: Hand, name: str) -> bool:
    """Have a hand ended, which then lets go; say whether there was one."""
    if read_or_none(client, f"{at.pods}/{name}") is None:
        return False
    try:
        client.ask("DELETE", f"{at.pods}/{name}")
    except ApiRefused as error:
        if error.status != 404:  # somebody was quicker
            raise
    return True


def _phase(pod: JsonObject) -> str:
    return str((pod.get("status") or {}).get("phase") or "")


def _log(client: KubeClient, at: Hand, pod: JsonObject) -> JsonObject:
    if _phase(pod) in ("", "Pending"):
        return {}
    line = client.text(f"{at.pods}/{pod['metadata']['name']}/log", tailLines=1)
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError):  # not all of it is there, or it is what a container says that fails
        return {"message": line[:_SAID_MAX]}


def _why(pod: JsonObject, said: JsonObject) -> str:
    status = pod.get("status") or {}
    why = waits_for(pod) or status.get("message") or said.get("message") or "no reason is given"
    return f"says nothing of what it did ({_phase(pod)}): {why}"


def pod_object(at: Hand, name: str, verb: str, target: JsonObject, *, for_s: float) -> JsonObject:
    """Return the pod of a hand."""
    source = source_of(hand.__name__).read_text(encoding="utf-8")
    container = {
        "name": "hand",
        "image": at.image,
        "imagePullPolicy": "IfNotPresent",
        "command": [at.python, "-I", "-S", "-c", source, verb, str(target["id"]), f"{for_s:g}"],
        "resources": {"requests": {"cpu": "1m", "memory": "16Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsUser": 0,
            "capabilities": {"drop": ["ALL"], "add": ["KILL"]},
        },
    }
    more = {"hostPID": True}
    return pod_on(at, name, str(target["node"]), container, for_s=for_s, label=verb, more=more)


def pod_on(
    at: Hand, name: str, node: str, container: JsonObject, *, for_s: float, label: str, more: JsonObject
) -> JsonObject:
    """Return a pod on a node that ends by itself, at last by its kubelet."""
    spec = {
        "nodeName": node,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 10,
        "activeDeadlineSeconds": round(for_s + at.within_s + _EXTRA_S),
        "tolerations": [{"operator": "Exists"}],  # the node may be cordoned or sick
        "containers": [container],
    }
    meta = {"name": name, "namespace": at.namespace, "labels": {LABEL: label}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec | more}

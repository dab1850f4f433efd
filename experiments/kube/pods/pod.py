"""What one pod is, as the API shows it: pure functions over its JSON."""

from __future__ import annotations

import datetime

from probes.json_types import JsonObject

MIRROR = "kubernetes.io/config.mirror"  # of a static pod, which only its kubelet can end
_STARTING = ("ContainerCreating", "PodInitializing")  # what every pod waits for at first


def name_of(pod: JsonObject) -> str:
    """Return namespace and name."""
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def uid_of(found: JsonObject) -> str:
    """Return what tells this very object from another one by its name."""
    return str(found["metadata"]["uid"])


def without_bulk(found: JsonObject) -> JsonObject:
    """Drop who wrote which field, and the images of a node: most of it, of no use, and kept of thousands."""
    found["metadata"].pop("managedFields", None)
    found.get("status", {}).pop("images", None)
    return found


def node_of(pod: JsonObject) -> str:
    """Return the node that it is on; empty: none yet."""
    return str(pod["spec"].get("nodeName") or "")


def is_leaving(pod: JsonObject) -> bool:
    """Say whether it has been deleted, and only ends."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def is_finished(pod: JsonObject) -> bool:
    """Say whether it ran to its end."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def is_ready(pod: JsonObject) -> bool:
    """Say whether it may be sent requests: ready, and not about to go."""
    return condition_of(pod, "Ready").get("status") == "True" and not is_leaving(pod)


def condition_of(found: JsonObject, kind: str) -> JsonObject:
    """Return a condition of a pod or node; empty: nobody has stated it."""
    conditions = (found.get("status") or {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == kind), {})


def has_started(pod: JsonObject) -> bool:
    """Say whether its containers run: from then on it is up to what runs in them."""
    states = [each.get("state") or {} for each in (pod.get("status") or {}).get("containerStatuses") or []]
    return bool(states) and all("running" in state for state in states)


def controller_of(found: JsonObject) -> JsonObject | None:
    """Return the reference to what would replace it; None: nobody does."""
    owners = found["metadata"].get("ownerReferences") or []
    return next((dict(each) for each in owners if each.get("controller")), None)


def is_of_daemon(pod: JsonObject) -> bool:
    """Say whether a DaemonSet would put it back on the same node at once."""
    return (controller_of(pod) or {}).get("kind") == "DaemonSet"


def is_mirror(pod: JsonObject) -> bool:
    """Say whether it stands for a static pod."""
    return MIRROR in (pod["metadata"].get("annotations") or {})


def empty_dirs_of(pod: JsonObject) -> list[str]:
    """Return the volumes whose content ends with the pod."""
    return [str(each["name"]) for each in pod["spec"].get("volumes") or [] if "emptyDir" in each]


def container_ids_of(pod: JsonObject) -> set[str]:
    """Return its containers that run: one that is started again is another one."""
    running = [each for each in _containers(pod) if "running" in (each.get("state") or {})]
    return {str(each.get("containerID") or "").rpartition("//")[2] for each in running} - {""}


def moment(text: str) -> datetime.datetime:
    """Return a time as the API writes it."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def restarts_of(pod: JsonObject) -> int:
    """Return how often its containers were started again."""
    return sum(int(each["restartCount"]) for each in _containers(pod))


def waits_for(pod: JsonObject) -> str:
    """Return why it does not start; empty: it runs, or begins as every pod does."""
    scheduled = condition_of(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return f"{scheduled.get('reason')}: {scheduled.get('message', '')}"
    for container in _containers(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") and waiting["reason"] not in _STARTING:
            return f"{waiting['reason']}: {waiting.get('message', '')}".removesuffix(": ")
    return ""


def _containers(pod: JsonObject) -> list[JsonObject]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]

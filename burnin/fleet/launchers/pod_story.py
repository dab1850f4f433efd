"""What a cluster says of a Job and its pod: that it runs, why it does not yet, and how it came to its end."""

from __future__ import annotations

from collections.abc import Sequence

from probes.json_types import JsonObject

CONTAINER = "burnin"
GONE = "gone"  # set by whoever saw that the pod is no longer there
_STORY_MAX = 300


def is_running(pod: JsonObject | None) -> bool:
    """Say whether its container runs."""
    return "running" in _container_state(pod)


def is_over(pod: JsonObject | None) -> bool:
    """Say whether nothing of it runs any more, or will."""
    if pod is None:
        return False
    return bool(pod.get(GONE)) or pod["status"].get("phase") in ("Succeeded", "Failed")


def exit_code(pod: JsonObject | None) -> int | None:
    """Return how its program ended; None: nobody knows, or it has not."""
    code = (_container_state(pod).get("terminated") or {}).get("exitCode")
    return None if code is None else int(code)


def why_waiting(pod: JsonObject | None) -> str:
    """Say why its container does not run yet; empty: nobody knows."""
    if pod is None:
        return ""
    waiting = _container_state(pod).get("waiting") or {}
    if said := _joined(waiting.get("reason"), waiting.get("message")):
        return said
    placed = next((c for c in _conditions(pod) if c["type"] == "PodScheduled" and c["status"] == "False"), {})
    return _joined(placed.get("reason"), placed.get("message"))


def how_it_ended(pod: JsonObject | None) -> str:
    """Say who or what ended a pod, where it was not its own program; empty: it was."""
    if pod is None:
        return "its pod is not there any more"
    hit = next((c for c in _conditions(pod) if c["type"] == "DisruptionTarget" and c["status"] == "True"), {})
    if hit:
        return f"its pod was taken away: {_joined(hit.get('reason'), hit.get('message'))}"
    status = pod["status"]
    if status.get("reason"):
        return f"its pod was ended: {_joined(status['reason'], status.get('message'))}"
    ended = _container_state(pod).get("terminated") or {}
    if ended.get("reason") not in (None, "Completed", "Error"):
        return f"its container was ended: {_joined(ended['reason'], ended.get('message'))}"
    if pod.get(GONE) or pod["metadata"].get("deletionTimestamp"):
        return "somebody deleted its pod"
    return ""


def why_no_pod(events: Sequence[JsonObject]) -> str:
    """Say why a Job has no pod, from the events about it: a quota or a policy, say; empty: nobody knows."""
    warnings = [event for event in events if event.get("type") == "Warning"]
    return _joined(warnings[-1].get("reason"), warnings[-1].get("message")) if warnings else ""


def why_not_ready(node: JsonObject) -> str:
    """Say why a node is not ready, as the cluster knows it; empty: it is."""
    ready: JsonObject = next((c for c in node["status"].get("conditions") or () if c["type"] == "Ready"), {})
    if ready.get("status") == "True":
        return ""
    return _joined(ready.get("reason"), ready.get("message")) or "it has not said so yet"


def _container_state(pod: JsonObject | None) -> JsonObject:
    statuses = (pod or {}).get("status", {}).get("containerStatuses") or ()
    found: JsonObject = next((status for status in statuses if status["name"] == CONTAINER), {})
    return dict(found.get("state") or {})


def _conditions(pod: JsonObject) -> Sequence[JsonObject]:
    return pod["status"].get("conditions") or ()


def _joined(*parts: object) -> str:
    return ": ".join(" ".join(str(part).split()) for part in parts if part)[:_STORY_MAX]

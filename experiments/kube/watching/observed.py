"""What the objects of a cluster say of its health: pure functions over their JSON.

Each returns what a probe shows: an ``outcome``, one line that is ``observed``, and the figures behind it.
Where there is nothing to judge it is INCONCLUSIVE, never well.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from experiments.kube.pods.pod import condition_of, is_leaving, name_of, restarts_of
from probes.json_types import JsonObject
from probes.outcome import Outcome

_PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure")
_NAMED_MAX = 5  # of what is not well
_RUNNING, _DONE, _FAILED, _WAITING = "running", "succeeded", "failed", "waits"
# What the state of a training job is called where, by kind: conditions that are true, the last word first.
_CONDITIONS = {
    "Job": {"Failed": _FAILED, "FailureTarget": _FAILED, "Complete": _DONE, "Suspended": _WAITING},
    "JobSet": {"Failed": _FAILED, "Completed": _DONE, "Suspended": _WAITING},
    "PyTorchJob": {
        "Failed": _FAILED,
        "Succeeded": _DONE,
        "Suspended": _WAITING,
        "Restarting": _WAITING,
        "Running": _RUNNING,
    },
}
JOB_PATHS = {
    "Job": "/apis/batch/v1/namespaces/{}/jobs/{}",
    "JobSet": "/apis/jobset.x-k8s.io/v1alpha2/namespaces/{}/jobsets/{}",
    "PyTorchJob": "/apis/kubeflow.org/v1/namespaces/{}/pytorchjobs/{}",
}
JOB_LABELS = {
    "Job": "batch.kubernetes.io/job-name",
    "JobSet": "jobset.sigs.k8s.io/jobset-name",
    "PyTorchJob": "training.kubeflow.org/job-name",
}


def finding(outcome: Outcome, observed: str, **figures: object) -> JsonObject:
    """Return what a probe shows."""
    return {"outcome": outcome.value, "observed": observed} | figures


def judge_restarts(
    pods: Sequence[JsonObject], *, restarts_max: int, window_s: float | None, now_s: float
) -> JsonObject:
    """Say whether no pod was started again more often; with a window, only what ended in it counts."""
    counted = {
        name_of(pod): restarts_of(pod)
        for pod in pods
        if window_s is None or _ended_since(pod, now_s - window_s)
    }
    bad = {name: times for name, times in counted.items() if times > restarts_max}
    ends = {name_of(pod): _last_end(pod) for pod in pods if name_of(pod) in bad}
    if not pods:
        return finding(Outcome.INCONCLUSIVE, "no pod is there", restarts={})
    said = "; ".join(f"{name}: {bad[name]} restarts, the last after {ends[name]}" for name in _some(bad))
    said = said or f"{len(pods)} pods, none restarted more than {restarts_max} times"
    return finding(Outcome.FAIL if bad else Outcome.PASS, said, restarts=bad)


def _ends(pod: JsonObject) -> list[JsonObject]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return [end for each in statuses if (end := (each.get("lastState") or {}).get("terminated"))]


def _ended_since(pod: JsonObject, since_s: float) -> bool:
    return any(_seconds(end.get("finishedAt")) >= since_s for end in _ends(pod))


def _last_end(pod: JsonObject) -> str:
    ends = sorted(_ends(pod), key=lambda end: _seconds(end.get("finishedAt")))
    return f"{ends[-1].get('reason')} (exit code {ends[-1].get('exitCode')})" if ends else "nobody knows what"


def _seconds(text: object) -> float:
    """Return a moment of the API as seconds since 1970; 0 where none is stated."""
    return datetime.datetime.fromisoformat(str(text)).timestamp() if text else 0.0


def _some(names: Collection[str]) -> list[str]:
    return sorted(names)[:_NAMED_MAX]


def judge_warnings(
    events: Sequence[JsonObject],
    *,
    reasons: Collection[str],
    besides: Collection[str],
    count_max: int,
    since_s: float,
) -> JsonObject:
    """Say whether no more warnings than so many were given since a moment, by their reasons.

    An event that repeats is one object with a count; how much of that is recent nobody knows: it counts once.
    """
    recent = [
        event
        for event in events
        if event.get("type") == "Warning"
        and last_seen_s(event) >= since_s
        and (not reasons or event.get("reason") in reasons)
        and event.get("reason") not in besides
    ]
    counted = Counter(str(event.get("reason")) for event in recent)
    latest = {str(event.get("reason")): event for event in sorted(recent, key=last_seen_s)}
    said = "; ".join(f"{times} {reason}: {_told(latest[reason])}" for reason, times in counted.most_common(3))
    outcome = Outcome.FAIL if counted.total() > count_max else Outcome.PASS
    return finding(outcome, said or "no warnings", warnings=dict(counted))


def last_seen_s(event: JsonObject) -> float:
    """Return when an event was last seen, whichever of its fields says so."""
    series = event.get("series") or {}
    stamps = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return max(_seconds(stamp) for stamp in stamps)


def _told(event: JsonObject) -> str:
    about = event.get("involvedObject") or event.get("regarding") or {}
    return f"{about.get('kind')} {about.get('name')}: {str(event.get('message') or '')[:200]}"


def judge_budgets(budgets: Sequence[JsonObject], *, allowed_min: int) -> JsonObject:
    """Say whether each disruption budget lets so many pods go now, where it is kept up to date."""
    rows = {}
    stale = []
    for budget in budgets:
        status, name = budget.get("status") or {}, str(budget["metadata"]["name"])
        if int(status.get("observedGeneration") or 0) < int(budget["metadata"].get("generation") or 0):
            stale.append(name)
        rows[name] = {
            "allowed": int(status.get("disruptionsAllowed", 0)),
            "healthy": int(status.get("currentHealthy", 0)),
            "healthy_min": int(status.get("desiredHealthy", 0)),
        }
    tight = [name for name, row in rows.items() if row["allowed"] < allowed_min and name not in stale]
    said = "; ".join(
        f"{name}: {row['allowed']} may go, {row['healthy']} healthy of at least {row['healthy_min']}"
        for name, row in sorted(rows.items())
    )
    if tight:
        return finding(Outcome.FAIL, said, budgets=rows)
    if stale or not rows:
        return finding(Outcome.INCONCLUSIVE, said or "there is no disruption budget", budgets=rows)
    return finding(Outcome.PASS, said, budgets=rows)


def judge_gpus(nodes: Sequence[JsonObject], *, resource: str, per_node_min: int | None) -> JsonObject:
    """Say whether each node can give out so many GPUs; without a number, as many as it has ever shown.

    A device plugin that is gone leaves the capacity for a while and takes what can be given out to 0.
    """
    rows = {
        str(node["metadata"]["name"]): {
            "capacity": _of(node, "capacity", resource),
            "allocatable": allocatable_of(node, resource),
        }
        for node in nodes
        if per_node_min is not None or _has(node, resource)
    }
    bad = {
        name: row
        for name, row in rows.items()
        if row["allocatable"] < (max(1, row["capacity"]) if per_node_min is None else per_node_min)
    }
    total = sum(row["allocatable"] for row in rows.values())
    said = "; ".join(f"{n}: {bad[n]['allocatable']} of {bad[n]['capacity']} {resource}" for n in _some(bad))
    said = said or f"{total} {resource} on {len(rows)} nodes"
    if not rows:
        return finding(Outcome.INCONCLUSIVE, f"no node has {resource}", nodes=rows)
    return finding(Outcome.FAIL if bad else Outcome.PASS, said, nodes=rows, total=total)


def allocatable_of(node: JsonObject, resource: str) -> int:
    """Return how many of a resource a node can give out."""
    return _of(node, "allocatable", resource)


def _of(node: JsonObject, what: str, resource: str) -> int:
    return int(((node.get("status") or {}).get(what) or {}).get(resource, 0))


def _has(node: JsonObject, resource: str) -> bool:
    return resource in ((node.get("status") or {}).get("capacity") or {})


def node_state(node: JsonObject | None) -> str:
    """Say whether a node is ready and takes pods, and if not, why."""
    if node is None:
        return "is not there"
    if is_leaving(node):
        return "is being deleted"
    if condition_of(node, "Ready").get("status") != "True":
        return "not ready"
    return "cordoned" if node["spec"].get("unschedulable") else "ready"


def node_trouble(node: JsonObject) -> str:
    """Say what is wrong with a node that is ready: cordoned, short of something, or without devices to give.

    One device of several that is broken may be so for weeks; that none can be given out is news.
    """
    if node["spec"].get("unschedulable"):
        return "cordoned"
    short = [kind for kind in _PRESSURES if condition_of(node, kind).get("status") == "True"]
    capacity = (node.get("status") or {}).get("capacity") or {}
    devices = [each for each in capacity if "/" in each and int(capacity[each]) > 0]
    short += [f"gives out no {each}" for each in devices if allocatable_of(node, each) == 0]
    return ", ".join(short)


def job_state(kind: str, job: JsonObject) -> JsonObject:
    """Return the state of a training job, how many of its pods run and are wanted, and its restarts."""
    status = job.get("status") or {}
    true = {str(c["type"]) for c in status.get("conditions") or [] if c.get("status") == "True"}
    state = next((said for name, said in _CONDITIONS[kind].items() if name in true), None)
    counted = {"Job": _of_job, "JobSet": _of_job_set, "PyTorchJob": _of_pytorch_job}[kind](job, status)
    if state is None:
        state = _RUNNING if counted["ready"] >= counted["wanted"] > 0 else _WAITING
    return {"state": state} | counted


def _of_job(job: JsonObject, status: JsonObject) -> JsonObject:
    ready = int(status.get("ready") or 0)
    done, wanted = int(status.get("succeeded") or 0), int(job["spec"].get("parallelism", 1))
    return {"ready": ready + done, "wanted": wanted, "restarts": int(status.get("failed") or 0)}


def _of_job_set(job: JsonObject, status: JsonObject) -> JsonObject:
    jobs = status.get("replicatedJobsStatus") or []
    ready = sum(int(each.get("ready") or 0) + int(each.get("succeeded") or 0) for each in jobs)
    wanted = sum(int(each.get("replicas", 1)) for each in job["spec"]["replicatedJobs"])
    return {"ready": ready, "wanted": wanted, "restarts": int(status.get("restarts") or 0)}


def _of_pytorch_job(job: JsonObject, status: JsonObject) -> JsonObject:
    rows: Mapping[str, JsonObject] = status.get("replicaStatuses") or {}
    ready = sum(int(each.get("active") or 0) + int(each.get("succeeded") or 0) for each in rows.values())
    specs = job["spec"]["pytorchReplicaSpecs"].values()
    wanted = sum(int(each.get("replicas", 1)) for each in specs)
    return {
        "ready": ready,
        "wanted": wanted,
        "restarts": sum(int(r.get("failed") or 0) for r in rows.values()),
    }


def judge_job(
    kind: str,
    name: str,
    state: JsonObject,
    *,
    first_step: int | None,
    last_step: int | None,
    is_asked_steps: bool,
) -> JsonObject:
    """Say whether a training job gets on: it runs whole, and where steps are asked for, they go up."""
    pods = f"{state['ready']} of {state['wanted']} ready, {state['restarts']} restarts"
    said = f"{kind} {name}: {state['state']}, {pods}"
    if is_asked_steps:
        shown = {"first_step": first_step, "last_step": last_step}
        said += f", steps {first_step} to {last_step}" if last_step is not None else ", no step in its log"
    else:
        shown = {}
    if state["state"] in (_FAILED, _WAITING):
        return finding(Outcome.FAIL, said, **state, **shown)
    if state["state"] == _DONE or not is_asked_steps:
        return finding(Outcome.PASS, said, **state, **shown)
    if first_step is None or last_step is None:
        return finding(Outcome.INCONCLUSIVE, said, **state, **shown)
    return finding(Outcome.PASS if last_step > first_step else Outcome.FAIL, said, **state, **shown)

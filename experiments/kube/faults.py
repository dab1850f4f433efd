"""The faults of a Kubernetes cluster as the ledger knows them: four functions over what was captured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from experiments.faults.fault import PLATFORM, UNDO, Fault, FaultRefused, Undoing, Verification
from experiments.kube.choosing.allowed import check_namespaces, check_node, pods_on, read_or_none
from experiments.kube.client import KubeClient, connect_to
from experiments.kube.cluster import cluster_from_json
from experiments.kube.deadman.arming import arm_in_cluster, undo_in_cluster
from experiments.kube.deadman.mirror import Place, place_of
from experiments.kube.pods.drainable import why_not_drained
from experiments.kube.pods.evict import evict
from experiments.kube.pods.pod import is_leaving, is_mirror, is_of_daemon, name_of, uid_of, waits_for
from experiments.kube.pods.workloads import count, path_of, pods_of, say_whole, see_whole, title_of
from experiments.kube.undoing.client_api import ClientApi
from experiments.kube.undoing.steps import (
    Api,
    UndoStep,
    carry_out,
    make_change,
    read,
    step_from_json,
    value_at,
)
from experiments.kube.watching.pod_view import PodView
from experiments.kube.watching.samples import hit_ids
from experiments.kube.watching.tally import Tally
from probes.errors import TargetError
from probes.json_types import JsonObject

A_CLUSTER = "a Kubernetes cluster whose namespaces are labelled overproof.dev/gameday=allowed"
A_NODE = "nodes that are labelled so too"
CONTROLLER = "the controller of the pods, such as a ReplicaSet"
GONE_EXTRA_S = 30.0  # after its grace period until a pod has to be gone
BACK_S = 8.0  # that undoing waits for pods to be back, which nobody but their controller can bring about
TROUBLE_S = 60.0  # until a pod of a bad roll-out is seen to wait


def client_of(captured: JsonObject) -> KubeClient:
    """Return the client of the very cluster that a fault was planned for.

    Raises:
        TargetError: it does not answer, or another one does in its place.
    """
    return connect_to(cluster_from_json(captured["cluster"]), str(captured["identity"]["uid"]))


def subject_of(captured: JsonObject) -> str:
    """Return what is hit."""
    return "+".join(str(victim["name"]) for victim in captured["victims"])


def hit_uids(captured: JsonObject) -> set[str]:
    """Return the pods that go with the fault."""
    return {str(pod["uid"]) for pod in captured["hit_pods"]}


def _spaces(captured: JsonObject) -> list[str]:
    rows = [*captured["hit_pods"], *captured["workloads"]]
    return sorted({str(row["namespace"]) for row in rows})


def recheck_pods(captured: JsonObject) -> None:
    """See that these very pods are still there, and still may be hit."""
    client = client_of(captured)
    check_namespaces(client, _spaces(captured))
    for pod in captured["hit_pods"]:
        found = read_or_none(client, _pod_path(pod))
        if found is None or uid_of(found) != pod["uid"] or is_leaving(found):
            raise FaultRefused(f"{pod['namespace']}/{pod['name']}: is gone, or another pod by now")


def _pod_path(pod: JsonObject) -> str:
    return f"/api/v1/namespaces/{pod['namespace']}/pods/{pod['name']}"


def kill_pods(captured: JsonObject) -> None:
    """Delete these very pods, with the grace period that was asked for."""
    client = client_of(captured)
    for pod in captured["hit_pods"]:
        options = {
            "preconditions": {"uid": pod["uid"]},
            "gracePeriodSeconds": captured["arguments"]["grace_s"],
        }
        client.ask("DELETE", _pod_path(pod), body=options)


def evict_pods(captured: JsonObject) -> None:
    """Evict these very pods."""
    arguments = captured["arguments"]
    captured["refused"] = evict(
        client_of(captured),
        captured["hit_pods"],
        grace_s=arguments["grace_s"],
        within_s=arguments["within_s"],
    ).refused


def verify_gone(captured: JsonObject) -> Verification:
    """See that the very pods that were hit are gone from the cluster."""
    hit, nodes = hit_uids(captured), {str(pod["node"]) for pod in captured["hit_pods"]}
    node = nodes.pop() if len(nodes) == 1 else ""  # of a node that is drained we need not see all others
    view = PodView(client_of(captured), _spaces(captured), node=node)
    grace_s = captured["arguments"].get("grace_s")
    within_s = GONE_EXTRA_S + (grace_s if grace_s is not None else 30.0)
    view.follow(lambda: not hit & {uid_of(pod) for pod in view.pods}, within_s=within_s)
    left = [name_of(pod) for pod in view.pods if uid_of(pod) in hit]
    said = f"still there after {within_s:g} s: {', '.join(left)}" if left else "is gone"
    return Verification(is_verified=not left, observed=f"{subject_of(captured)}: {said}{_refusals(captured)}")


def _refusals(captured: JsonObject) -> str:
    refused = captured.get("refused") or {}
    said = ", ".join(f"{name} {times} times" for name, times in refused.items())
    return f"; a disruption budget said no first: {said}" if said else ""


def see_back(captured: JsonObject, view: PodView) -> tuple[bool, str]:
    """Say whether each workload has all its pods ready again, none of those that were hit among them."""
    return see_whole(captured["workloads"], view.pods, without=hit_ids(captured))


def await_back(captured: JsonObject, *, within_s: float) -> tuple[bool, str]:
    """Watch until every workload is whole again, at most so long."""
    view = PodView(client_of(captured), _spaces(captured))
    tally = Tally(captured["workloads"], view, without=hit_ids(captured))
    view.follow(lambda: say_whole(tally.rows())[0], within_s=within_s)
    return say_whole(tally.rows())


def undo_pods(captured: JsonObject) -> Undoing:
    """See that the workloads are whole; where their controller does not bring them back, nobody can."""
    view = PodView(client_of(captured), _spaces(captured))
    view.refresh()
    # Armed and never injected: those that were to be hit are there, and count.
    there = {uid_of(pod) for pod in view.pods if not is_leaving(pod)}
    untouched = captured | {"hit_pods": [pod for pod in captured["hit_pods"] if pod["uid"] not in there]}
    is_back, said = await_back(untouched, within_s=BACK_S)
    how = "its controller had brought it back" if is_back else "its controller does not bring it back"
    return Undoing(is_restored=is_back, did=f"{said}: {how}", has_acted=False)


def _steps(captured: JsonObject) -> list[UndoStep]:
    return [step_from_json(row) for row in captured["undo_steps"]]


def _place(captured: JsonObject) -> Place | None:
    """Return where the dead-man of the run looks; None: there is none."""
    dead_man = cluster_from_json(captured["cluster"]).dead_man
    return None if dead_man is None else place_of(str(captured["run"]), dead_man.namespace)


def _entry(captured: JsonObject) -> dict[str, Any]:
    """Return what the mirror in the cluster keeps of a fault."""
    named = {"entry_id": captured["id"], "fault": captured["kube_fault"]}
    return named | {"subject": subject_of(captured), "steps": _steps(captured)}


def arm_dead_man(captured: JsonObject) -> None:
    """Mirror the undo into the cluster, where a dead-man is asked for, and see that it could carry it out."""
    if (place := _place(captured)) is not None:
        arm_in_cluster(ClientApi(client=client_of(captured)), place, **_entry(captured))


def make_changes(captured: JsonObject) -> None:
    """Change what the undo steps take back."""
    api = ClientApi(client=client_of(captured))
    for step in _steps(captured):
        make_change(step, api)


def undo_changes(captured: JsonObject) -> Undoing:
    """Take back what we have changed and nobody else has since."""
    api = ClientApi(client=client_of(captured))
    if (place := _place(captured)) is not None:
        return undo_in_cluster(api, place, **_entry(captured))
    done = [carry_out(step, api) for step in reversed(_steps(captured))]
    return Undoing(
        is_restored=True,
        did="; ".join(each.did for each in done),
        has_acted=any(each.has_acted for each in done),
    )


def changed(captured: JsonObject) -> Verification:
    """See that every change is there."""
    return see_changes(_steps(captured), ClientApi(client=client_of(captured)))


def see_changes(steps: Sequence[UndoStep], api: Api) -> Verification:
    """See that every change of these steps is there, and say of each step how it is."""
    said, are_there = [], True
    for step in steps:
        found = read(step, api)
        changes = (*step.changes, *([] if step.mark is None else [step.mark]))
        is_there = found is not None and all(value_at(found, c.path) == c.ours for c in changes)
        are_there = are_there and is_there
        values = ", ".join(f"{c.path[-1]} is {c.ours}" for c in step.changes) or "was so before"
        said.append(f"{step.subject}: {values if is_there else 'is not as we set it'}")
    return Verification(is_verified=are_there, observed="; ".join(said))


def recheck_node(captured: JsonObject) -> None:
    """See that this very node is there, may be hit, and carries nobody else's pods."""
    client, namespaces = client_of(captured), captured["cluster"]["namespaces"]
    check_namespaces(client, namespaces)
    for victim in captured["victims"]:
        node, _ = check_node(client, str(victim["name"]), namespaces)
        if uid_of(node) != victim["identity"]:
            raise FaultRefused(f"node {victim['name']}: is another one by now")
    arm_dead_man(captured)


def drain(captured: JsonObject) -> None:
    """Cordon the nodes, then evict what is on them but the pods of DaemonSets.

    Raises:
        TargetError: a pod that may not be evicted has come since they were looked at, or one is not let go.
    """
    make_changes(captured)
    client, arguments = client_of(captured), captured["arguments"]
    spaces = captured["cluster"]["namespaces"]
    moving = []
    for victim in captured["victims"]:
        _, pods = check_node(client, str(victim["name"]), spaces)  # nothing new comes from now on
        moving += [pod for pod in pods if not is_of_daemon(pod) and not is_mirror(pod)]
    check_drainable(moving, may_lose_data=bool(arguments["delete_emptydir_data"]))
    rows = [pod["metadata"] for pod in moving]
    evicting = evict(client, rows, grace_s=arguments["grace_s"], within_s=float(arguments["within_s"]))
    captured["refused"] = evicting.refused


def check_drainable(pods: Sequence[JsonObject], *, may_lose_data: bool) -> None:
    """See that each that stays may be evicted: those that came after the plan was made too.

    Raises:
        TargetError: one may not be.
    """
    staying = [pod for pod in pods if not is_leaving(pod)]
    reasons = [why for pod in staying if (why := why_not_drained(pod, may_lose_data=may_lose_data))]
    if reasons:
        raise TargetError(f"came since the plan was made: {'; '.join(reasons)}; nothing is evicted")


def verify_drained(captured: JsonObject) -> Verification:
    """See that the node is cordoned and empty but for what stays on every node."""
    made = changed(captured)
    gone = verify_gone(captured) if captured["hit_pods"] else made
    client = client_of(captured)
    left = [
        name_of(pod)
        for victim in captured["victims"]
        for pod in pods_on(client, str(victim["name"]))
        if not is_of_daemon(pod) and not is_mirror(pod) and not is_leaving(pod)
    ]
    is_empty = made.is_verified and gone.is_verified and not left
    said = f"left on it: {', '.join(left)}" if left else f"{len(captured['hit_pods'])} pods evicted"
    why = "" if gone.is_verified else f"; {gone.observed}"
    return Verification(is_verified=is_empty, observed=f"{made.observed}; {said}{_refusals(captured)}{why}")


def undo_drain(captured: JsonObject) -> Undoing:
    """Uncordon, where nobody else had cordoned it; that the pods are back is their controllers' doing."""
    is_back, said = True, "no pod was on it"
    if captured["workloads"]:
        view = PodView(client_of(captured), _spaces(captured))
        view.refresh()
        is_back, said = see_back(captured, view)
    done = undo_changes(captured)
    return Undoing(
        is_restored=done.is_restored,
        did=f"{done.did}; {said}",
        has_acted=done.has_acted,
        is_mending=not is_back,
    )


def recheck_deployment(captured: JsonObject) -> None:
    """See that this very deployment is there and still may be hit."""
    client = client_of(captured)
    check_namespaces(client, _spaces(captured))
    for row in captured["workloads"]:
        found = read_or_none(client, path_of(row["kind"], row["namespace"], row["name"]))
        if found is None or uid_of(found) != row["uid"]:
            raise FaultRefused(f"{title_of(row)}: is gone, or another one by now")
    arm_dead_man(captured)


def verify_rollout(captured: JsonObject) -> Verification:
    """See that a pod of the new version waits for its image."""
    view, (workload,) = PodView(client_of(captured), _spaces(captured)), captured["workloads"]

    def waiting() -> list[str]:
        own = [pod for pod in pods_of(workload, view.pods) if uid_of(pod) not in hit_uids(captured)]
        return [f"{name_of(pod)}: {why}" for pod in own if "Image" in (why := waits_for(pod))]

    view.follow(lambda: bool(waiting()), within_s=TROUBLE_S)
    found = waiting()
    said = "; ".join(found) or f"no pod of it waits for its image after {TROUBLE_S:g} s"
    return Verification(is_verified=bool(found), observed=said)


def verify_scaled(captured: JsonObject) -> Verification:
    """See that as many pods are left as were asked for."""
    view, (workload,) = PodView(client_of(captured), _spaces(captured)), captured["workloads"]
    replicas = int(captured["arguments"]["replicas"])

    def there() -> int:
        return sum(not is_leaving(pod) for pod in pods_of(workload, view.pods))

    is_so = view.follow(lambda: there() == replicas, within_s=TROUBLE_S)
    return Verification(
        is_verified=is_so, observed=f"{title_of(workload)}: has {there()} pods, {replicas} were asked for"
    )


def undo_deployment(captured: JsonObject) -> Undoing:
    """Put the deployment back, and watch for a while that its pods come."""
    done = undo_changes(captured)
    view, (workload,) = PodView(client_of(captured), _spaces(captured)), captured["workloads"]

    def is_whole() -> bool:
        row = count(workload, view.pods)
        return bool(row["ready"] >= row["wanted"] and not row["waits_for"])

    is_back = view.follow(is_whole, within_s=BACK_S)
    said = see_whole([workload], view.pods)[1]
    if not is_back and not done.has_acted:
        raise TargetError(f"{done.did}; {said}")
    return Undoing(is_restored=True, did=f"{done.did}; {said}", has_acted=done.has_acted)


def _fault(
    name: str,
    *,
    recheck: Callable[[JsonObject], None],
    inject: Callable[[JsonObject], None],
    verify: Callable[[JsonObject], Verification],
    undo: Callable[[JsonObject], Undoing],
    covers: tuple[str, ...],
    heals: str = "",
    risk: Literal["low", "medium", "high"] = "low",
    needs: tuple[str, ...] = (),
) -> Fault:
    return Fault(
        name=name,
        fidelity="K",
        ends_by=PLATFORM if heals else UNDO,
        subject=subject_of,
        recheck=recheck,
        inject=inject,
        verify=verify,
        undo=undo,
        risk=risk,
        needs=(A_CLUSTER, *needs),
        covers=covers,
        heals=heals,
        is_undone_anywhere=True,
    )


POD_KILL = _fault(
    "pod.kill",
    recheck=recheck_pods,
    inject=kill_pods,
    verify=verify_gone,
    undo=undo_pods,
    covers=("software-crash",),
    heals=CONTROLLER,
)
POD_EVICT = _fault(
    "pod.evict",
    recheck=recheck_pods,
    inject=evict_pods,
    verify=verify_gone,
    undo=undo_pods,
    covers=("planned-restart",),
    heals=CONTROLLER,
)
NODE_CORDON = _fault(
    "node.cordon",
    recheck=recheck_node,
    inject=make_changes,
    verify=changed,
    undo=undo_changes,
    covers=("planned-restart",),
    needs=(A_NODE,),
)
NODE_DRAIN = _fault(
    "node.drain",
    recheck=recheck_node,
    inject=drain,
    verify=verify_drained,
    undo=undo_drain,
    covers=("planned-restart",),
    heals=CONTROLLER,
    risk="medium",
    needs=(A_NODE,),
)
DEPLOYMENT_BAD_ROLLOUT = _fault(
    "deployment.bad-rollout",
    recheck=recheck_deployment,
    inject=make_changes,
    verify=verify_rollout,
    undo=undo_deployment,
    covers=("bad-rollout",),
    risk="medium",
)
DEPLOYMENT_SCALE = _fault(
    "deployment.scale",
    recheck=recheck_deployment,
    inject=make_changes,
    verify=verify_scaled,
    undo=undo_deployment,
    covers=("overload",),
    risk="medium",
)

"""Actions, rollbacks and probes for Chaos Toolkit, on the Kubernetes cluster of a game day's target.

An action is named like its fault, ``pod_kill`` for ``pod.kill``. Pods are chosen among the ready ones of the
target's namespaces by ``label_selector`` or ``pod``, then ``node``; ``count`` (1), or ``share`` of those that
match; ``order`` is random, by the seed, or oldest. Nodes are chosen by ``node``, ``label_selector``, or
``pod_label_selector``: those that carry such a pod of the target.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from experiments.chaos.run_context import record_folder
from experiments.faults.fault import PLATFORM, FaultRefused, load_fault
from experiments.injecting.injection import undo_pending
from experiments.injecting.ledger import Entry, read_ledger
from experiments.kube.choosing.aim import Aim, aim_now
from experiments.kube.choosing.allowed import check_namespaces, check_node, node_path, read_or_none
from experiments.kube.choosing.capture import base_of, capture_drain, capture_pods, node_victim
from experiments.kube.choosing.choice import RANDOM, choose_nodes, choose_pods
from experiments.kube.client import KubeClient
from experiments.kube.cluster import Identity
from experiments.kube.containers.faults import capture_containers, hand_of
from experiments.kube.faults import await_back
from experiments.kube.inject import inject
from experiments.kube.nodes.device_plugin import GPU, GPU_OPERATORS_LABEL, capture_lost_plugin
from experiments.kube.nodes.pressure import capture_pressure
from experiments.kube.pods.deployments import capture_rollout, capture_scale
from experiments.kube.pods.pod import is_leaving, name_of, waits_for
from experiments.kube.pods.workloads import DEPLOYMENT, path_of, pods_of, see_whole, wanted_of
from experiments.kube.undoing.marks import new_mark
from experiments.kube.undoing.steps import UndoStep, make_step
from experiments.kube.watching.observed import node_state
from experiments.kube.watching.pod_view import PodView
from experiments.live.timeline import Timeline
from probes.errors import TargetError
from probes.json_types import JsonObject
from probes.outcome import Outcome

NO_SUCH_IMAGE = "overproof.invalid/no-such-image:0"  # .invalid is no domain, by RFC 2606
NOT_HEALED = "fault.not_healed"
_AGAIN_S = 3.0  # between two tries to undo


def pod_kill(
    namespace: str = "",
    label_selector: str = "",
    pod: str = "",
    node: str = "",
    count: int | None = None,
    share: float | None = None,
    order: str = RANDOM,
    grace_s: int = 1,
) -> JsonObject:
    """Delete pods with hardly any grace: SIGTERM, and SIGKILL ``grace_s`` later.

    With 0 the API forgets a pod before its node has ended it, which breaks the promise of a StatefulSet that
    there is one of each; so 1 is the default, as in ``kubectl delete --now``.
    """
    if grace_s < 0:
        raise FaultRefused(f"grace_s: wanted 0 or more, got {grace_s!r}")
    aim, client, identity = _aimed()
    chosen, others = choose_pods(
        client, aim, namespace=namespace, label_selector=label_selector, pod=pod, node=node, count=count,
        share=share, order=order,
    )  # fmt: skip
    captured = capture_pods("pod.kill", aim, client, identity, chosen, others, {"grace_s": grace_s})
    return inject("pod.kill", captured)


def pod_evict(
    namespace: str = "",
    label_selector: str = "",
    pod: str = "",
    node: str = "",
    count: int | None = None,
    share: float | None = None,
    order: str = RANDOM,
    grace_s: int | None = None,
    within_s: float = 60.0,
) -> JsonObject:
    """Evict pods, as a drain would: disruption budgets are asked, for ``within_s`` at most."""
    aim, client, identity = _aimed()
    chosen, others = choose_pods(
        client, aim, namespace=namespace, label_selector=label_selector, pod=pod, node=node, count=count,
        share=share, order=order,
    )  # fmt: skip
    arguments = {"grace_s": grace_s, "within_s": within_s}
    return inject("pod.evict", capture_pods("pod.evict", aim, client, identity, chosen, others, arguments))


def container_kill(
    namespace: str = "",
    label_selector: str = "",
    pod: str = "",
    node: str = "",
    count: int | None = None,
    share: float | None = None,
    order: str = RANDOM,
    container: str = "",
    hand: JsonObject | None = None,
) -> JsonObject:
    """Kill every process of a container, the first one of each pod unless ``container`` names another.

    The pod stays, and its kubelet starts the container again. Done by a hand on its node: ``hand`` says in
    which ``namespace``, from what ``image`` with which ``python`` (those of a dead-man are the defaults).
    """
    aim, client, identity = _aimed()
    chosen, others = choose_pods(
        client, aim, namespace=namespace, label_selector=label_selector, pod=pod, node=node, count=count,
        share=share, order=order,
    )  # fmt: skip
    captured = capture_containers(
        "container.kill", aim, client, identity, chosen, others, container=container,
        hand=hand_of(aim.cluster, hand), for_s=0.0,
    )  # fmt: skip
    return inject("container.kill", captured)


def container_hang(
    namespace: str = "",
    label_selector: str = "",
    pod: str = "",
    node: str = "",
    count: int | None = None,
    share: float | None = None,
    order: str = RANDOM,
    container: str = "",
    for_s: float = 300.0,
    hand: JsonObject | None = None,
) -> JsonObject:
    """Stop every process of a container, as in a hang: it is there, its connections stay, and nothing comes.

    Chosen as for ``container_kill``. After ``for_s`` its node lets it go on, whoever of us is still there; so
    much more than the platform needs to notice it.
    """
    if for_s <= 0:
        raise FaultRefused(f"for_s: wanted more than 0, got {for_s!r}")
    aim, client, identity = _aimed()
    chosen, others = choose_pods(
        client, aim, namespace=namespace, label_selector=label_selector, pod=pod, node=node, count=count,
        share=share, order=order,
    )  # fmt: skip
    captured = capture_containers(
        "container.hang", aim, client, identity, chosen, others, container=container,
        hand=hand_of(aim.cluster, hand), for_s=for_s,
    )  # fmt: skip
    return inject("container.hang", captured)


def node_cordon(
    node: str = "", label_selector: str = "", count: int | None = None, pod_label_selector: str = ""
) -> list[JsonObject]:
    """Keep new pods off nodes; one that somebody else has cordoned already is refused."""
    aim, client, identity = _aimed()
    captured = []
    chosen, others = choose_nodes(
        client, aim, node=node, label_selector=label_selector, count=count,
        pod_label_selector=pod_label_selector,
    )  # fmt: skip
    for row in chosen:
        name = str(row["metadata"]["name"])
        check_namespaces(client, aim.cluster.namespaces)
        found, pods = check_node(client, name, aim.cluster.namespaces)
        if found["spec"].get("unschedulable"):
            raise FaultRefused(f"node {name}: is cordoned already, and not by us; choose another")
        step = _cordon_step(found, aim)
        captured.append(
            base_of(
                "node.cordon", aim, identity, victims=[node_victim(found)], workloads=[], hit=[],
                others=[str(o["metadata"]["name"]) for o in others], at_once=len(chosen), steps=[step],
                carries=[f"stays: {name_of(pod)}" for pod in pods],
            )
        )  # fmt: skip
    return [inject("node.cordon", each) for each in captured]


def node_drain(
    node: str = "",
    label_selector: str = "",
    count: int | None = None,
    delete_emptydir_data: bool = False,
    grace_s: int | None = None,
    within_s: float = 120.0,
    pod_label_selector: str = "",
) -> JsonObject:
    """Cordon nodes, all of them before the first pod has to go, and evict what is on them.

    Disruption budgets are asked again until ``within_s`` is over; pods of DaemonSets stay; a pod that would
    lose its ``emptyDir`` refuses the whole, unless ``delete_emptydir_data``. A node that somebody else had
    cordoned is left cordoned.
    """
    aim, client, identity = _aimed()
    chosen, others = choose_nodes(
        client, aim, node=node, label_selector=label_selector, count=count,
        pod_label_selector=pod_label_selector,
    )  # fmt: skip
    check_namespaces(client, aim.cluster.namespaces)
    arguments: JsonObject = {"delete_emptydir_data": delete_emptydir_data, "grace_s": grace_s}
    arguments |= {"within_s": within_s}
    spaces = aim.cluster.namespaces
    found = [check_node(client, str(row["metadata"]["name"]), spaces) for row in chosen]
    steps = [_cordon_step(node, aim) for node, _ in found]
    captured = capture_drain(aim, client, identity, found, others, arguments, steps=steps)
    return inject("node.drain", captured)


def node_pressure(
    node: str = "",
    label_selector: str = "",
    cores: int = 0,
    memory_mib: int = 0,
    disk_mib: int = 0,
    for_s: float = 300.0,
    hand: JsonObject | None = None,
) -> JsonObject:
    """Take processor, memory and disk of one node, by a pod on it that ends by itself after ``for_s``."""
    aim, client, identity = _aimed()
    chosen, others = choose_nodes(client, aim, node=node, label_selector=label_selector, count=1)
    captured = capture_pressure(
        aim, client, identity, chosen[0], [str(row["metadata"]["name"]) for row in others],
        wanted={"cores": cores, "memory_mib": memory_mib, "disk_mib": disk_mib}, for_s=for_s,
        hand=hand_of(aim.cluster, hand),
    )  # fmt: skip
    return inject("node.pressure", captured)


def device_plugin_lose(
    node: str = "",
    label_selector: str = "",
    label: str = GPU_OPERATORS_LABEL,
    value: str = "false",
    resource: str = GPU,
) -> JsonObject:
    """Take the device plugin from one node, by the ``label`` that its DaemonSet chooses nodes by.

    What runs on the node's GPUs runs on; none is given out any more, until the label is put back.
    """
    aim, client, identity = _aimed()
    chosen, others = choose_nodes(client, aim, node=node, label_selector=label_selector, count=1)
    captured = capture_lost_plugin(
        aim, client, identity, chosen[0], [str(row["metadata"]["name"]) for row in others],
        label=label, value=value, resource=resource,
    )  # fmt: skip
    return inject("device-plugin.lose", captured)


def deployment_bad_rollout(
    deployment: str, namespace: str = "", container: str = "", image: str = NO_SUCH_IMAGE
) -> JsonObject:
    """Roll a deployment out with an image that cannot be pulled; undoing puts the former one back."""
    aim, client, identity = _aimed()
    captured = capture_rollout(
        aim, client, identity, deployment, _one_namespace(aim, namespace), container=container, image=image
    )
    return inject("deployment.bad-rollout", captured)


def deployment_scale(deployment: str, replicas: int, namespace: str = "") -> JsonObject:
    """Have a deployment run so many replicas, 0 for none; undoing puts their number back."""
    aim, client, identity = _aimed()
    captured = capture_scale(aim, client, identity, deployment, _one_namespace(aim, namespace), replicas)
    return inject("deployment.scale", captured)


def _one_namespace(aim: Aim, namespace: str) -> str:
    names = aim.namespaces(namespace)
    if len(names) > 1:
        raise FaultRefused(f"namespace: the target has {', '.join(names)}; state one")
    return names[0]


def _aimed() -> tuple[Aim, KubeClient, Identity]:
    aim = aim_now()
    return aim, *aim.reach()


def _cordon_step(node: JsonObject, aim: Aim) -> UndoStep:
    name = str(node["metadata"]["name"])
    ours = [(("spec", "unschedulable"), True)]
    return make_step(node, subject=f"node/{name}", path=node_path(name), ours=ours, mark=new_mark(aim.run))


def undo_faults(within_s: float = 0.0) -> JsonObject:
    """Undo whatever this experiment has left on the cluster, and see that it is restored.

    Where something cannot be, it is tried again for so long: a node that is cut off comes back by its timer.

    Raises:
        TargetError: something could not be restored.
    """
    deadline, undone = time.monotonic() + within_s, undo_pending(record_folder(), by="rollback")
    while (failed := [u for u in undone if not u.is_restored]) and time.monotonic() < deadline:
        time.sleep(_AGAIN_S)
        undone = [u for u in undone if u.is_restored] + undo_pending(record_folder(), by="rollback")
    if failed:
        raise TargetError("; ".join(f"{u.entry.subject}: not restored: {u.did}" for u in failed))
    return {"undone": [{"subject": u.entry.subject, "did": u.did} for u in undone]}


def faults_healed(within_s: float = 120.0) -> JsonObject:
    """Wait, at most so long, until every workload that was hit has its pods again, other ones than were hit.

    What was seen is put on the timeline.
    """
    began, folder = time.monotonic(), record_folder()
    rows: dict[str, str] = {}
    outcome = Outcome.PASS
    with Timeline(folder, "fault") as timeline:
        for entry in filter(_is_to_heal, read_ledger(folder)):
            left_s = max(0.0, began + within_s - time.monotonic())
            is_healed, rows[entry.id] = await_back(entry.captured, within_s=left_s)
            kind = "fault.healed" if is_healed else NOT_HEALED
            timeline.note(kind, id=entry.id, subject=entry.subject, observed=rows[entry.id])
            outcome = outcome if is_healed else Outcome.FAIL
    if not rows:
        outcome = Outcome.INCONCLUSIVE
    return {"outcome": outcome.value, "seen": rows, "waited_s": round(time.monotonic() - began, 3)}


def _is_to_heal(entry: Entry) -> bool:
    is_ours = "kube_fault" in entry.captured
    return entry.is_pending and is_ours and load_fault(entry.fault).ends_by == PLATFORM


def replicas_ready(
    deployment: str = "", namespace: str = "", within_s: float = 0.0, statefulset: str = ""
) -> JsonObject:
    """Say whether as many pods of a deployment, or stateful set, are ready as it is to have, one by one."""
    if bool(deployment) == bool(statefulset):
        raise FaultRefused("which workload? state deployment or statefulset, one of both")
    kind, name = ("StatefulSet", statefulset) if statefulset else (DEPLOYMENT, deployment)
    aim, client, _ = _aimed()
    space = _one_namespace(aim, namespace)
    whole = read_or_none(client, path_of(kind, space, name))
    if whole is None:
        raise TargetError(f"{kind.lower()} {space}/{name}: there is none")
    workload = {
        "kind": kind,
        "namespace": space,
        "name": name,
        "uid": whole["metadata"]["uid"],
        "wanted": wanted_of(kind, whole),
        "selector": whole["spec"]["selector"],
    }
    view = PodView(client, [space])
    view.follow(lambda: see_whole([workload], view.pods)[0], within_s=within_s)
    is_whole, said = see_whole([workload], view.pods)
    pods = [name_of(pod) for pod in pods_of(workload, view.pods)]
    return {"outcome": (Outcome.PASS if is_whole else Outcome.FAIL).value, "observed": said, "pods": pods}


def service_serves(service: str, namespace: str = "", endpoints_min: int = 1) -> JsonObject:
    """Say whether a Service has so many endpoints that are ready, as its EndpointSlices say."""
    aim, client, _ = _aimed()
    space = _one_namespace(aim, namespace)
    path = f"/apis/discovery.k8s.io/v1/namespaces/{space}/endpointslices"
    slices = client.listed(path, labelSelector=f"kubernetes.io/service-name={service}")
    endpoints = [end for each in slices for end in each.get("endpoints") or []]
    ready = sorted(
        str((end.get("targetRef") or {}).get("name") or end["addresses"][0])
        for end in endpoints
        if (end.get("conditions") or {}).get("ready") is not False
    )
    outcome = Outcome.PASS if len(ready) >= endpoints_min else Outcome.FAIL
    return {"outcome": outcome.value, "ready": ready, "endpoints": len(endpoints)}


def nodes_schedulable(nodes: Sequence[str] = (), label_selector: str = "") -> JsonObject:
    """Say whether each of these nodes, or of all, is ready and takes pods.

    Not chaostoolkit-kubernetes' ``all_nodes_must_be_ready_to_schedule``, to which a cordoned node is fine.
    """
    _, client, _ = _aimed()
    query = {"labelSelector": label_selector} if label_selector else {}
    rows = {str(row["metadata"]["name"]): row for row in client.listed("/api/v1/nodes", **query)}
    wanted = nodes or sorted(rows)
    seen = {name: node_state(rows.get(name)) for name in wanted}
    bad = [name for name, said in seen.items() if said != "ready"]
    outcome = Outcome.FAIL if bad else Outcome.PASS if seen else Outcome.INCONCLUSIVE
    return {"outcome": outcome.value, "nodes": seen}


def no_pods_wait(namespace: str = "", longer_than_s: float = 0.0) -> JsonObject:
    """Say whether no pod of the target's namespaces waits, and why each that does."""
    aim, client, _ = _aimed()
    view = PodView(client, aim.namespaces(namespace))
    view.refresh()

    def waiting() -> dict[str, str]:
        return {name_of(pod): why for pod in view.pods if (why := waits_for(pod)) and not is_leaving(pod)}

    if waiting() and longer_than_s:
        view.follow(lambda: not waiting(), within_s=longer_than_s)
    found = waiting()
    return {"outcome": (Outcome.FAIL if found else Outcome.PASS).value, "waiting": found}

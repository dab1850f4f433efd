"""Faults of the cluster's network, made through its API: pods cut off by a policy, and its DNS taken away."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.faults.fault import UNDO, Fault, FaultRefused, Undoing, Verification
from experiments.kube.choosing.aim import Aim
from experiments.kube.choosing.allowed import read_or_none, why_not
from experiments.kube.choosing.capture import base_of
from experiments.kube.client import ApiRefused, KubeClient
from experiments.kube.cluster import Identity
from experiments.kube.faults import (
    A_CLUSTER,
    arm_dead_man,
    client_of,
    make_changes,
    recheck_pods,
    see_changes,
    subject_of,
    undo_changes,
)
from experiments.kube.pods.pod import is_leaving, is_ready, name_of, node_of, uid_of
from experiments.kube.pods.workloads import DEPLOYMENT, find_workloads, path_of, pods_of, wanted_of
from experiments.kube.undoing.client_api import ClientApi
from experiments.kube.undoing.marks import new_mark
from experiments.kube.undoing.steps import UndoStep, make_step, read, step_from_json
from experiments.kube.watching.pod_view import PodView
from probes.child import wait_until
from probes.errors import TargetError
from probes.json_types import JsonObject

TAKES_S = 15.0  # until a policy has to be in force
ASK_S = 3.0  # that a pod is given to answer
DNS_GONE_S, DNS_BACK_S = 40.0, 60.0
PARTITION_LABEL = "overproof.dev/partition"
_DIRECTIONS = {"ingress": ["Ingress"], "egress": ["Egress"], "both": ["Ingress", "Egress"]}
_MARK_CHARS = 50  # a name has 63 at most
_SILENT = (502, 503, 504)  # what the API says where it could not reach a pod


def capture_partition(
    aim: Aim,
    client: KubeClient,
    identity: Identity,
    chosen: Sequence[JsonObject],
    others: Sequence[JsonObject],
    *,
    port: int,
    direction: str,
) -> JsonObject:
    """Return what cutting these pods off needs.

    Raises:
        FaultRefused: a pod cannot be asked now, so that nobody could tell whether it is cut off.
    """
    if direction not in _DIRECTIONS:
        raise FaultRefused(f"direction: wanted {', '.join(_DIRECTIONS)}, got {direction!r}")
    if direction == "egress":
        raise FaultRefused("direction: egress alone cannot be seen from outside; say ingress, or both")
    for pod in chosen:
        if why := why_silent(client, pod, port):
            raise FaultRefused(f"{name_of(pod)}: does not answer at port {port} now: {why}")
    mark = new_mark(aim.run)
    victims: list[JsonObject] = [
        {"name": name_of(pod), "identity": uid_of(pod), "what": f"{uid_of(pod)} on {node_of(pod)}"}
        for pod in chosen
    ]
    captured = base_of(
        "pods.partition", aim, identity, victims=victims,
        others=[name_of(pod) for pod in others], workloads=find_workloads(client, chosen), hit=chosen,
        steps=[*policy_steps(chosen, mark, direction), *label_steps(chosen, mark)],
    )  # fmt: skip
    return captured | {"arguments": {"port": port, "direction": direction}}


def label_steps(chosen: Sequence[JsonObject], mark: str) -> list[UndoStep]:
    """Return what takes the label off these very pods: without it no policy is about them any more."""
    steps = []
    for pod in chosen:
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        ours = [(("metadata", "labels", PARTITION_LABEL), mark[-12:].strip("-._"))]
        steps.append(make_step(pod, subject=f"pod/{name_of(pod)}", path=path, ours=ours, mark=mark))
    return steps


def policy_steps(chosen: Sequence[JsonObject], mark: str, direction: str) -> list[UndoStep]:
    """Return what takes away a policy for each namespace, about the label; its name is ours alone.

    It is owned by the pods that it is about: where nobody takes it away, it goes with the last of them.
    """
    found = []
    for space in sorted({str(pod["metadata"]["namespace"]) for pod in chosen}):
        spec = {
            "podSelector": {"matchLabels": {PARTITION_LABEL: mark[-12:].strip("-._")}},
            "policyTypes": _DIRECTIONS[direction],
        }
        # Its end is what no other change has.
        name = f"overproof-{mark[-_MARK_CHARS:].strip('-._').lower()}"
        kind = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
        owners = [
            {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": uid_of(pod)}
            for pod in chosen
            if pod["metadata"]["namespace"] == space
        ]
        meta = {"name": name, "namespace": space, "ownerReferences": owners}
        made = kind | {"metadata": meta, "spec": spec}
        path = f"/apis/networking.k8s.io/v1/namespaces/{space}/networkpolicies/{name}"
        subject = f"networkpolicy {space}/{name}"
        found.append(UndoStep(subject=subject, path=path, uid="", changes=(), made=made))
    return found


def why_silent(client: KubeClient, pod: JsonObject, port: int) -> str:
    """Ask a pod for anything, by way of the API server; say why it does not answer, empty: it does."""
    meta = pod.get("metadata") or pod
    path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}:{port}/proxy/"
    try:
        client.text(path, within_s=ASK_S)
    except ApiRefused as error:
        return str(error) if error.status in _SILENT or _is_ours(error) else ""
    except TargetError as error:
        return str(error)
    return ""


def _is_ours(error: ApiRefused) -> bool:
    """Say whether the API server itself has refused, and not the pod."""
    return error.said.get("kind") == "Status"


def recheck_partition(captured: JsonObject) -> None:
    """See that these very pods are there; have the dead-man ready."""
    recheck_pods(captured)
    arm_dead_man(captured)


def verify_partition(captured: JsonObject) -> Verification:
    """See that none of the pods answers any more: many networks take a policy and do nothing.

    One that is gone, and an API that is silent itself, do not answer either: neither is a partition.

    Raises:
        TargetError: the API does not answer.
    """
    client, port = client_of(captured), int(captured["arguments"]["port"])

    def answering() -> list[str]:
        return [str(pod["name"]) for pod in captured["hit_pods"] if not why_silent(client, pod, port)]

    is_cut = wait_until(lambda: not answering(), timeout_s=TAKES_S, interval_s=1.0)
    left = [] if is_cut else answering()
    said = f"no answer from {subject_of(captured)} any more"
    if left:
        said = (
            f"{', '.join(left)}: still answer {TAKES_S:g} s after the policy was made: does this cluster's "
            "network enforce policies, also for what the API server sends?"
        )
    steps = [step for step in map(step_from_json, captured["undo_steps"]) if step.made is None]
    labelled = see_changes(steps, ClientApi(client=client))
    why = "" if labelled.is_verified else f"; {labelled.observed}"
    return Verification(is_verified=not left and labelled.is_verified, observed=f"{said}{why}")


def capture_dns(aim: Aim, client: KubeClient, identity: Identity, name: str, namespace: str) -> JsonObject:
    """Return what taking the cluster's DNS away needs.

    Raises:
        FaultRefused: there is none of that name, its owner has not allowed it, or it is not whole.
    """
    found = read_or_none(client, path_of(DEPLOYMENT, namespace, name))
    if why := why_not("deployment", f"{name} -n {namespace}", found):
        raise FaultRefused(why)
    assert found is not None
    dns = _dns(found, namespace, name)
    rows = client.listed(f"/api/v1/namespaces/{namespace}/pods")
    pods = [pod for pod in pods_of(dns, rows) if is_ready(pod)]
    if not pods or len(pods) < dns["wanted"]:
        raise FaultRefused(f"deployment {namespace}/{name}: {len(pods)} of {dns['wanted']} are ready now")
    if not client.may("patch", "deployments", group="apps", namespace=namespace, name=name):
        raise FaultRefused(f"RBAC of the cluster does not let us patch deployment {name} in {namespace}")
    step = make_step(
        found,
        subject=f"deployment/{namespace}/{name}",
        path=path_of(DEPLOYMENT, namespace, name),
        ours=[(("spec", "replicas"), 0)],
        mark=new_mark(aim.run),
    )
    victim = {"name": f"{namespace}/{name}", "identity": uid_of(found), "what": f"DNS, {len(pods)} pods"}
    carries = ["every name that is looked up in this cluster meanwhile, everybody's: not only the target's"]
    captured = base_of(
        "dns.away", aim, identity,
        victims=[victim], others=[], workloads=[], hit=[], steps=[step], carries=carries,
    )  # fmt: skip
    return captured | {"dns": dns}


def _dns(found: JsonObject, namespace: str, name: str) -> JsonObject:
    named = {"kind": DEPLOYMENT, "namespace": namespace, "name": name, "uid": uid_of(found)}
    return named | {"wanted": wanted_of(DEPLOYMENT, found), "selector": found["spec"]["selector"]}


def recheck_dns(captured: JsonObject) -> None:
    """See that this very deployment is there, and still allowed; have the dead-man ready."""
    client = client_of(captured)
    for step in map(step_from_json, captured["undo_steps"]):
        found = read(step, ClientApi(client=client))
        if why := why_not("deployment", step.subject, found):
            raise FaultRefused(why)
    arm_dead_man(captured)


def verify_dns(captured: JsonObject) -> Verification:
    """See that none of its pods is left."""
    view, dns = PodView(client_of(captured), [captured["dns"]["namespace"]]), captured["dns"]

    def left() -> list[str]:
        return [name_of(pod) for pod in pods_of(dns, view.pods) if not is_leaving(pod)]

    is_gone = view.follow(lambda: not left(), within_s=DNS_GONE_S)
    said = "no pod of it is left" if is_gone else f"still there: {', '.join(left())}"
    return Verification(is_verified=is_gone, observed=f"{subject_of(captured)}: {said}")


def undo_dns(captured: JsonObject) -> Undoing:
    """Put the number of its pods back, and see that they are ready.

    Raises:
        TargetError: they do not come.
    """
    done = undo_changes(captured)
    view, dns = PodView(client_of(captured), [captured["dns"]["namespace"]]), captured["dns"]

    def ready() -> int:
        return sum(is_ready(pod) for pod in pods_of(dns, view.pods))

    if not view.follow(lambda: ready() >= dns["wanted"], within_s=DNS_BACK_S):
        raise TargetError(f"{done.did}; {ready()} of {dns['wanted']} ready {DNS_BACK_S:g} s later")
    return Undoing(is_restored=True, did=f"{done.did}; {ready()} ready", has_acted=done.has_acted)


PARTITION = Fault(
    name="pods.partition",
    fidelity="K",
    ends_by=UNDO,
    subject=subject_of,
    recheck=recheck_partition,
    inject=make_changes,  # the policies, about nobody yet; then the labels
    verify=verify_partition,
    undo=undo_changes,  # the labels first, which lets the pods on again
    risk="medium",
    needs=(A_CLUSTER, "a network that enforces policies"),
    covers=("network-link",),
    is_undone_anywhere=True,
)
DNS_AWAY = Fault(
    name="dns.away",
    fidelity="K",
    ends_by=UNDO,
    subject=subject_of,
    recheck=recheck_dns,
    inject=make_changes,
    verify=verify_dns,
    undo=undo_dns,
    risk="high",
    needs=(A_CLUSTER, "the DNS deployment labelled so too"),
    covers=("control-plane",),
    is_undone_anywhere=True,
)

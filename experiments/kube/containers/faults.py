"""Containers killed and hung, by signals to their processes from a hand on their node.

A container that was hit is known by its id: it is back when another one is ready in its place, in the same
pod or in another. A hung one goes on when the hand's own time is over, whoever of us is still there.
"""

from __future__ import annotations

import contextlib
import datetime
import secrets
from collections.abc import Sequence
from dataclasses import asdict

from experiments.faults.fault import PLATFORM, Fault, FaultRefused, Undoing, Verification
from experiments.kube.choosing.aim import Aim
from experiments.kube.choosing.allowed import namespace_path, read_or_none
from experiments.kube.choosing.capture import capture_pods
from experiments.kube.client import KubeClient
from experiments.kube.cluster import Cluster, DeadMan, Identity
from experiments.kube.containers.back_off import back_off_s
from experiments.kube.containers.hand import CONTINUE, HANG, KILL, LOOK
from experiments.kube.containers.hand_pod import Hand, reach, remove
from experiments.kube.deadman.mirror import NAMESPACE
from experiments.kube.deadman.objects import IMAGE
from experiments.kube.faults import A_CLUSTER, BACK_S, await_back, client_of, recheck_pods, subject_of
from experiments.kube.pods.pod import container_ids_of, is_ready, name_of, node_of, uid_of
from experiments.kube.watching.pod_view import PodView
from probes.errors import TargetError
from probes.json_types import JsonObject

STOPPED = "T"
GONE_S = 30.0  # until a container that was killed is seen to have ended
HAND_NEEDS = (("create", "pods"), ("get", "pods"), ("delete", "pods"), ("get", "pods/log"))  # verb, resource
_HANDS = "a namespace whose pods may see the processes of their node"


def hand_of(cluster: Cluster, wanted: JsonObject | None) -> Hand:
    """Return from what hands are started: as wanted, else as the dead-man is, else by default.

    Raises:
        FaultRefused: it is none of the settings that there are.
    """
    dead_man = cluster.dead_man or DeadMan(namespace=NAMESPACE, image=IMAGE)
    settings = {name: str(value) for name, value in (wanted or {}).items()}
    if unknown := sorted(settings.keys() - {"namespace", "image", "python"}):
        raise FaultRefused(f"hand: wanted namespace, image or python, got {', '.join(unknown)}")
    return Hand(**(asdict(dead_man) | settings))


def capture_containers(
    fault: str,
    aim: Aim,
    client: KubeClient,
    identity: Identity,
    chosen: Sequence[JsonObject],
    others: Sequence[JsonObject],
    *,
    container: str,
    hand: Hand,
    for_s: float,
) -> JsonObject:
    """Return what hitting one container of each of these pods needs.

    Raises:
        FaultRefused: a pod has none of that name, or it does not run.
    """
    hit = [_container_of(pod, container) for pod in chosen]
    check_hand(client, hand)
    captured = capture_pods(fault, aim, client, identity, chosen, others, {"for_s": for_s})
    for victim, row in zip(captured["victims"], hit, strict=True):
        victim["identity"] = row["id"]
        victim["what"] = f"container {row['container']} {row['id'][:12]} on {row['node']}"
    captured["containers"] = hit
    captured["back_off_s"] = max(row["back_off_s"] for row in hit)
    captured["carries"] += [
        f"{row['container']} on {row['node']}: was started anew of late, so its kubelet may wait "
        f"{row['back_off_s']:.0f} s before it does so again"
        for row in hit
        if row["back_off_s"]
    ]
    captured["hand"] = hand.to_json()
    captured["carries"] += [_healer(pod, row) for pod, row in zip(chosen, hit, strict=True)]
    if for_s:
        captured["carries"] += [f"when we are killed: its node lets it go on after {for_s:g} s"]
    return captured


def check_hand(client: KubeClient, hand: Hand) -> None:
    """See that hands can be started.

    Raises:
        FaultRefused: their namespace is not there, or RBAC does not let us.
    """
    if read_or_none(client, namespace_path(hand.namespace)) is None:
        raise FaultRefused(
            f"namespace {hand.namespace}: there is none; hands are started there: "
            "kubectl apply -f experiments/kube/manifests/"
        )
    if missing := [f"{v} {r}" for v, r in HAND_NEEDS if not client.may(v, r, namespace=hand.namespace)]:
        raise FaultRefused(
            f"RBAC of the cluster does not let us {', '.join(missing)} in {hand.namespace}, where hands are"
            " started"
        )


def _container_of(pod: JsonObject, wanted: str) -> JsonObject:
    statuses = pod["status"].get("containerStatuses") or []
    names = [str(each["name"]) for each in pod["spec"]["containers"]]
    name = wanted or names[0]
    found = next((each for each in statuses if each["name"] == name), None)
    if found is None or "running" not in (found.get("state") or {}):
        raise FaultRefused(f"{name_of(pod)}: no container {name} runs in it, but {', '.join(names)}")
    return {
        "namespace": pod["metadata"]["namespace"],
        "pod": pod["metadata"]["name"],
        "uid": uid_of(pod),
        "node": node_of(pod),
        "container": name,
        "id": str(found["containerID"]).rpartition("//")[2],
        "back_off_s": back_off_s(found, datetime.datetime.now(datetime.UTC)),
    }


def _healer(pod: JsonObject, row: JsonObject) -> str:
    spec = next(each for each in pod["spec"]["containers"] if each["name"] == row["container"])
    probe = spec.get("livenessProbe")
    if not probe:
        return f"{row['container']}: has no liveness probe, so nobody would notice that it hangs"
    what = (probe.get("httpGet") or {}).get("path") or next(iter({*probe} - {"periodSeconds"}), "")
    return f"{row['container']}: liveness asks {what} each {probe.get('periodSeconds', 10)} s"


def recheck_containers(captured: JsonObject) -> None:
    """See that these very containers run, and that a hand can reach each, before any is hit."""
    recheck_pods(captured)
    client = client_of(captured)
    for number, row in enumerate(captured["containers"]):
        if not _runs(client, row):
            raise FaultRefused(f"{row['namespace']}/{row['pod']}: its container is another one by now")
        if not _word(client, captured, number, LOOK):
            raise FaultRefused(
                f"{row['namespace']}/{row['pod']}: a hand on {row['node']} sees no process of its "
                f"container {row['id'][:12]}; nothing is hit"
            )


def _runs(client: KubeClient, row: JsonObject) -> bool:
    pod = read_or_none(client, f"/api/v1/namespaces/{row['namespace']}/pods/{row['pod']}")
    return pod is not None and uid_of(pod) == row["uid"] and row["id"] in container_ids_of(pod)


def _is_well(client: KubeClient, row: JsonObject) -> bool:
    pod = read_or_none(client, f"/api/v1/namespaces/{row['namespace']}/pods/{row['pod']}")
    return pod is not None and is_ready(pod)


def _hand(captured: JsonObject) -> Hand:
    return Hand(**captured["hand"])


def _name(captured: JsonObject, number: int, verb: str) -> str:
    return f"{str(captured['id']).replace('.', '-')}-{number}-{verb}"


def _word(client: KubeClient, captured: JsonObject, number: int, verb: str) -> JsonObject:
    """Have a hand do what ends by itself; return the states that it saw then, and remove it."""
    at, name = _hand(captured), f"{_name(captured, number, verb)}-{secrets.token_hex(2)}"
    try:
        return reach(client, at, name, verb, captured["containers"][number]).states
    finally:
        with contextlib.suppress(TargetError):  # it is ended anyway, and goes by itself
            remove(client, at, name)


def kill_containers(captured: JsonObject) -> None:
    """Kill every process of these containers."""
    _hit(captured, KILL)


def hang_containers(captured: JsonObject) -> None:
    """Stop every process of these containers, until the hand's time is over."""
    _hit(captured, HANG)


def _hit(captured: JsonObject, verb: str) -> None:
    client, at = client_of(captured), _hand(captured)
    words = []
    for number, row in enumerate(captured["containers"]):
        name, for_s = _name(captured, number, verb), float(captured["arguments"]["for_s"])
        words.append(reach(client, at, name, verb, row, for_s=for_s))
    captured["states"] = [word.states for word in words]
    captured["t_hit_ns"] = min(word.t_hit_ns for word in words)


def verify_killed(captured: JsonObject) -> Verification:
    """See that none of these containers runs any more, as the cluster says."""
    view, ids = PodView(client_of(captured), _spaces(captured)), _ids(captured)
    is_gone = view.follow(lambda: not ids & _running(view), within_s=GONE_S)
    said = "has ended" if is_gone else f"still runs after {GONE_S:g} s"
    return Verification(is_verified=is_gone, observed=f"{subject_of(captured)}: its container {said}")


def verify_hung(captured: JsonObject) -> Verification:
    """See in the words of their kernel that every process of these containers is stopped."""
    are_stopped = [bool(states) and set(states.values()) == {STOPPED} for states in captured["states"]]
    said = "; ".join(
        f"{row['namespace']}/{row['pod']}: "
        + (
            ", ".join(f"pid {pid} of {row['node']} is in state {s}" for pid, s in states.items())
            or "no process"
        )
        for row, states in zip(captured["containers"], captured["states"], strict=True)
    )
    return Verification(is_verified=all(are_stopped), observed=said)


def _spaces(captured: JsonObject) -> list[str]:
    return sorted({str(row["namespace"]) for row in captured["containers"]})


def _ids(captured: JsonObject) -> set[str]:
    return {str(row["id"]) for row in captured["containers"]}


def _running(view: PodView) -> set[str]:
    return {each for pod in view.pods for each in container_ids_of(pod)}


def undo_killed(captured: JsonObject) -> Undoing:
    """See that others have come in their place, which is their kubelet's doing."""
    client = client_of(captured)
    for number in range(len(captured["containers"])):
        remove(client, _hand(captured), _name(captured, number, KILL))
    is_back, said = _see_back(captured, client, within_s=BACK_S)
    how = "its kubelet had brought it back" if is_back else "its kubelet does not bring it back"
    return Undoing(is_restored=is_back, did=f"{said}: {how}", has_acted=False)


def _see_back(captured: JsonObject, client: KubeClient, *, within_s: float) -> tuple[bool, str]:
    """Say whether all is whole; a container that was to be hit and runs on as it was counts."""
    untouched = [row for row in captured["containers"] if not _runs(client, row)]
    return await_back(captured | {"containers": untouched}, within_s=within_s)


def undo_hung(captured: JsonObject) -> Undoing:
    """Let those that are still stopped go on; where that cannot be done, delete their pods.

    A container that was ended meanwhile, by its liveness probe, is let alone.
    """
    client = client_of(captured)
    did, has_acted = [], False
    for number, row in enumerate(captured["containers"]):
        # A hand may be gone by force; what is not ready then may be stopped still.
        is_suspect = _was_hit(client, captured, number) or not _is_well(client, row)
        if _runs(client, row) and is_suspect:
            did.append(_let_go(client, captured, number))
            has_acted = True
        remove(client, _hand(captured), _name(captured, number, HANG))
    is_back, said = _see_back(captured, client, within_s=GONE_S if has_acted else BACK_S)
    return Undoing(
        is_restored=is_back, did="; ".join([*did, said]), has_acted=has_acted, is_mending=has_acted
    )


def _was_hit(client: KubeClient, captured: JsonObject, number: int) -> bool:
    """Say whether a hand was sent to it: its pod is there until it is removed, by nobody but us."""
    path = f"{_hand(captured).pods}/{_name(captured, number, HANG)}"
    return read_or_none(client, path) is not None


def _let_go(client: KubeClient, captured: JsonObject, number: int) -> str:
    row = captured["containers"][number]
    where = f"{row['namespace']}/{row['pod']}"
    try:
        states = _word(client, captured, number, CONTINUE)
        if states and STOPPED not in states.values():
            return f"{where}: let pid {', '.join(states)} of {row['node']} go on"
        why = f"{states or 'no process'} is seen"
    except TargetError as error:
        why = str(error)
    path = f"/api/v1/namespaces/{row['namespace']}/pods/{row['pod']}"
    body = {"preconditions": {"uid": row["uid"]}, "gracePeriodSeconds": 1}
    client.ask("DELETE", path, body=body)
    return f"{where}: could not be let go on ({why}), so it was deleted"


CONTAINER_KILL = Fault(
    name="container.kill",
    fidelity="P",
    ends_by=PLATFORM,
    subject=subject_of,
    recheck=recheck_containers,
    inject=kill_containers,
    verify=verify_killed,
    undo=undo_killed,
    needs=(A_CLUSTER, _HANDS),
    covers=("software-crash",),
    heals="the kubelet, which starts the container again",
    is_undone_anywhere=True,
)
CONTAINER_HANG = Fault(
    name="container.hang",
    fidelity="P",
    ends_by=PLATFORM,
    subject=subject_of,
    recheck=recheck_containers,
    inject=hang_containers,
    verify=verify_hung,
    undo=undo_hung,
    risk="medium",
    needs=(A_CLUSTER, _HANDS),
    covers=("hang",),
    heals="the container's liveness probe, where it asks for what the container is there for",
    is_undone_anywhere=True,
)

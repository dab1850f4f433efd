"""The loss of nodes: broken on the host itself, over SSH, and watched and healed through the cluster.

Each is a fault of hosts underneath, armed there first: its timer puts the host back whatever becomes of us or
of the API. That it took hold is seen from the cluster's side: the node's lease is not renewed any more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Literal

from experiments.faults.fault import PLATFORM, Fault, FaultRefused, Undoing, Verification
from experiments.hosts import faults as on_hosts
from experiments.hosts.capture import capture_hosts
from experiments.hosts.choice import Target
from experiments.hosts.host import Host
from experiments.hosts.session import session_of
from experiments.kube.choosing.aim import Aim
from experiments.kube.choosing.allowed import check_namespaces, check_node, node_path, read_or_none
from experiments.kube.choosing.capture import base_of, node_victim
from experiments.kube.choosing.conditions import HOST_FAULTS
from experiments.kube.client import KubeClient
from experiments.kube.cluster import Identity
from experiments.kube.faults import (
    A_CLUSTER,
    A_NODE,
    CONTROLLER,
    client_of,
    see_back,
    subject_of,
)
from experiments.kube.nodes.clocks import clocks_of, lease_path, read_clocks
from experiments.kube.nodes.steps import MakeStep
from experiments.kube.nodes.zones import why_too_wide
from experiments.kube.pods.pod import condition_of, is_mirror, is_of_daemon, uid_of
from experiments.kube.pods.workloads import find_workloads
from experiments.kube.watching.pod_view import PodView
from probes.errors import TargetError
from probes.json_types import JsonObject

BACK_S = 90.0  # after its host is put back until a node has to be ready and take pods
SSH = "SSH to the node, whose owner allows it there too"
_SILENT_EXTRA_S = 15.0  # beyond what two renewals take
_POLL_S = 0.5


def host_of(aim: Aim, node: str) -> Host:
    """Return how a node is reached over SSH.

    Raises:
        FaultRefused: the target does not say.
    """
    found = next((host for host in aim.cluster.nodes if host.name == node), None)
    if found is None:
        raise FaultRefused(
            f"node {node}: the target does not say how to log in there: kubernetes: nodes: [{node}]"
        )
    return found


def capture_loss(
    fault: str,
    aim: Aim,
    client: KubeClient,
    identity: Identity,
    chosen: Sequence[JsonObject],
    others: Sequence[JsonObject],
    arguments: JsonObject,
    *,
    undo_after_s: float,
    step: MakeStep | None = None,
) -> JsonObject:
    """Return what losing these nodes at one time needs; ``step``: what else is done to each, by the API.

    Raises:
        FaultRefused: a node, its pods or its host may not be hit, or its timer would end it too soon.
        TargetError: the API or a host does not answer.
    """
    names = [str(row["metadata"]["name"]) for row in chosen]
    hosts = [host_of(aim, name) for name in names]
    check_namespaces(client, aim.cluster.namespaces)
    if why := why_too_wide(chosen, others, on_them_all(client, aim)):
        raise FaultRefused(f"{', '.join(names)}: {why}")
    found = [check_node(client, name, aim.cluster.namespaces) for name in names]
    on_them = [p for _, pods in found for p in pods if p["metadata"]["namespace"] in aim.cluster.namespaces]
    moving = [pod for pod in on_them if not is_of_daemon(pod) and not is_mirror(pod)]
    if not moving:
        raise FaultRefused(
            f"{', '.join(names)}: no pod of the target is there, so nothing would have to heal"
        )
    clocks = clocks_of(fault, read_clocks(client, dict(aim.cluster.clocks), names, moving))
    if undo_after_s <= clocks.platform_s:
        raise FaultRefused(
            f"undo_after_s: {undo_after_s:g} s would put {', '.join(names)} back too soon: {clocks.words()}"
        )
    target = Target(hosts=aim.cluster.nodes, seed=aim.seed, run=aim.run)
    rows = capture_hosts(HOST_FAULTS[fault], arguments, hosts, target, undo_after_s=undo_after_s)
    for (node, _), row in zip(found, rows, strict=True):
        _check_is_it(node, row)
    carries = [f"lost with it: {p['metadata']['namespace']}/{p['metadata']['name']}" for p in on_them]
    carries += [clocks.words(), f"put back by the timer on its host after {undo_after_s:g} s, without us too"]
    captured = base_of(
        fault, aim, identity,
        victims=[node_victim(node) for node, _ in found],
        others=[str(row["metadata"]["name"]) for row in others],
        workloads=find_workloads(client, moving), hit=on_them, carries=carries,
        steps=[step(node, aim.run) for node, _ in found] if step else [],
    )  # fmt: skip
    before = {
        name: [_taint(t) for t in node["spec"].get("taints") or []]
        for name, (node, _) in zip(names, found, strict=True)
    }
    return captured | {"on_hosts": rows, "clocks": clocks.to_json(), "taints": before, "arguments": arguments}


def on_them_all(client: KubeClient, aim: Aim) -> list[JsonObject]:
    """Return every pod of the target."""
    return [p for name in aim.cluster.namespaces for p in client.listed(f"/api/v1/namespaces/{name}/pods")]


def _check_is_it(node: JsonObject, row: JsonObject) -> None:
    """See that the host that SSH leads to is the node: both say which boot they are."""
    said = str(((node.get("status") or {}).get("nodeInfo") or {}).get("bootID") or "")
    if said != row["boot_id"]:
        name = node["metadata"]["name"]
        raise FaultRefused(f"node {name}: SSH leads to boot {row['boot_id']}, the node says {said or 'none'}")


def _taint(row: JsonObject) -> str:
    return f"{row['key']}={row.get('value', '')}:{row['effect']}"


def recheck_loss(captured: JsonObject) -> None:
    """See that these very nodes are there and may be hit; then arm the timer on each host."""
    client, namespaces = client_of(captured), captured["cluster"]["namespaces"]
    check_namespaces(client, namespaces)
    for victim in captured["victims"]:
        node, _ = check_node(client, str(victim["name"]), namespaces)
        if uid_of(node) != victim["identity"]:
            raise FaultRefused(f"node {victim['name']}: is another one by now")
    for row in captured["on_hosts"]:
        on_hosts.arm(row)


def lose(captured: JsonObject) -> None:
    """Break each host, one right after the other."""
    for row in captured["on_hosts"]:
        on_hosts.inject(row)
        session_of(on_hosts.host_of(row)).close()  # a line that may be cut would be waited for


def verify_loss(captured: JsonObject) -> Verification:
    """See that no lease is renewed any more; of a host that still answers, what it says itself too."""
    client, lease_s = client_of(captured), float(captured["clocks"]["lease_s"])
    names = [str(victim["name"]) for victim in captured["victims"]]
    silent_s = lease_s / 2
    deadline = time.monotonic() + lease_s + _SILENT_EXTRA_S
    said, since = {name: _renewed(client, name) for name in names}, dict.fromkeys(names, time.monotonic())
    while (
        waiting := [n for n in names if time.monotonic() - since[n] < silent_s]
    ) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        for name in waiting:
            if (now := _renewed(client, name)) != said[name]:
                said[name], since[name] = now, time.monotonic()
    if waiting:
        return Verification(is_verified=False, observed=f"{', '.join(waiting)}: still renews its lease")
    seen = [f"{name}: its lease is not renewed for {silent_s:g} s" for name in names]
    own = [on_hosts.verify(row) for row in captured["on_hosts"] if not row["state"].get("may_cut_ssh")]
    return Verification(
        is_verified=all(each.is_verified for each in own),
        observed="; ".join([*seen, *(each.observed for each in own)]),
    )


def _renewed(client: KubeClient, node: str) -> str:
    """Return when a node has renewed its lease last; one that was deleted has none."""
    found = read_or_none(client, lease_path(node))
    return "" if found is None else str(found["spec"].get("renewTime"))


def undo_loss(captured: JsonObject) -> Undoing:
    """Put each host back, which needs no API, and see that its node is ready and takes pods as before.

    Raises:
        TargetError: a host cannot be reached, or its node does not come back.
    """
    done, said, is_mending = put_hosts_back(captured)
    seen = await_nodes(captured, within_s=BACK_S)
    return Undoing(
        is_restored=True,
        did="; ".join([*(each.did for each in done), seen, said]),
        has_acted=any(each.has_acted for each in done),
        is_mending=is_mending,
    )


def put_hosts_back(captured: JsonObject) -> tuple[list[Undoing], str, bool]:
    """Put each host back; return what was done, how the workloads were before, and whether they were missing.

    Raises:
        TargetError: a host cannot be reached, or is not as it was.
    """
    is_back, said = _look_whether_back(captured)
    done, failed = [], []
    for row in captured["on_hosts"]:
        try:
            done.append(on_hosts.undo(row))
        except TargetError as error:
            failed.append(str(error))
    failed += [each.did for each in done if not each.is_restored]
    if failed:
        raise TargetError("; ".join(failed))
    return done, said, not is_back


def _look_whether_back(captured: JsonObject) -> tuple[bool, str]:
    """Say whether other pods had taken the place of those that were lost, before we put anything back."""
    try:
        view = PodView(client_of(captured), captured["cluster"]["namespaces"])
        view.refresh()
        return see_back(captured, view)
    except TargetError as error:
        return False, f"whether its pods were back nobody could see: {error}"


def await_nodes(captured: JsonObject, *, within_s: float) -> str:
    """Wait until each node renews its lease, is ready, and bears no taint that it did not bear before.

    Raises:
        TargetError: it does not come to that.
    """
    client, deadline = client_of(captured), time.monotonic() + within_s
    began = time.monotonic()
    renewed = {str(victim["name"]): _renewed(client, str(victim["name"])) for victim in captured["victims"]}
    while left := [*_not_back(client, captured, renewed)]:
        if time.monotonic() > deadline:
            raise TargetError(f"{'; '.join(left)} {within_s:g} s after its host was put back")
        time.sleep(_POLL_S)
    return f"{', '.join(renewed)} ready and taking pods {time.monotonic() - began:.1f} s after that"


def _not_back(client: KubeClient, captured: JsonObject, renewed: dict[str, str]) -> Iterator[str]:
    for name, before in renewed.items():
        node = read_or_none(client, node_path(name))
        if node is None:
            yield f"node {name} is not there"
        elif condition_of(node, "Ready").get("status") != "True":
            yield f"node {name} is not ready"
        elif more := {_taint(t) for t in node["spec"].get("taints") or []} - set(captured["taints"][name]):
            yield f"node {name} is tainted {', '.join(sorted(more))}"
        elif _renewed(client, name) == before:
            yield f"node {name} does not renew its lease"


def _loss(
    name: str,
    *,
    covers: tuple[str, ...],
    needs: tuple[str, ...],
    risk: Literal["medium", "high"] = "medium",
) -> Fault:
    return Fault(
        name=name,
        fidelity="K",
        ends_by=PLATFORM,
        subject=subject_of,
        recheck=recheck_loss,
        inject=lose,
        verify=verify_loss,
        undo=undo_loss,
        risk=risk,
        needs=(A_CLUSTER, A_NODE, SSH, *needs),
        covers=covers,
        heals=CONTROLLER,
        is_undone_anywhere=True,
    )


KUBELET_STOP = _loss("node.kubelet-stop", covers=("host-down",), needs=("systemd", "root"))
NETWORK_CUT = _loss(
    "node.network-cut", covers=("host-down", "network-link", "nic"), needs=("iproute2", "root")
)
ZONE_CUT = _loss("zone.cut", covers=("host-down", "network-link"), needs=("iproute2", "root"), risk="high")

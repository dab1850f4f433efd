"""Which nodes may be lost together, and what a node that was deleted is given back: no cluster is asked."""

from __future__ import annotations

import inspect

from experiments.faults.fault import FAULTS, load_fault
from experiments.host_agent.faults import FAULTS as OF_HOSTS
from experiments.hosts.host import Host
from experiments.kube import node_actions
from experiments.kube.cluster import Cluster, cluster_from_json
from experiments.kube.conditions import HOST_FAULTS
from experiments.kube.node_objects import lacking
from experiments.kube.nodes import kept_of
from experiments.kube.zones import ZONE_LABEL, why_too_wide
from probes.json_types import JsonObject
from tests.experiments.kube.objects import pod

OURS = [name for name, where in FAULTS.items() if where.startswith("experiments.kube.node")]


def node(name: str, zone: str = "a", *, is_ready: bool = True) -> JsonObject:
    meta = {"name": name, "uid": name, "labels": {ZONE_LABEL: zone}}
    ready = {"type": "Ready", "status": "True" if is_ready else "Unknown"}
    return {"metadata": meta, "spec": {}, "status": {"conditions": [ready]}}


def nodes(count: int, zone: str = "a", *, is_ready: bool = True) -> list[JsonObject]:
    return [node(f"{zone}-{number}", zone, is_ready=is_ready) for number in range(count)]


def test_every_fault_of_nodes_has_an_action_and_what_hosts_call_it_is_there() -> None:
    functions = dict(inspect.getmembers(node_actions, inspect.isfunction))

    assert len(OURS) == 5
    assert {name.replace(".", "_").replace("-", "_") for name in OURS} <= functions.keys()
    assert set(HOST_FAULTS) <= set(OURS)
    assert set(HOST_FAULTS.values()) <= set(OF_HOSTS)
    assert {load_fault(name).fidelity for name in OURS} == {"K"}


def test_a_zone_is_refused_beyond_55_percent_of_the_nodes() -> None:
    assert why_too_wide(nodes(11, "a"), nodes(9, "b"), []) == ""
    assert "12 of 20 nodes would go (60%)" in why_too_wide(nodes(12, "a"), nodes(8, "b"), [])


def test_a_zone_is_refused_beyond_55_percent_of_the_ready_pods() -> None:
    spread = [pod("a"), pod("b")]
    here = [pod("a"), pod("b"), pod("c", is_ready=False)]
    spread[1]["spec"]["nodeName"] = "b-0"

    assert why_too_wide([node("node-1")], nodes(3, "b"), spread) == ""
    assert "2 of 2 ready pods would go" in why_too_wide([node("node-1")], nodes(3, "b"), here)


def test_most_of_a_zone_is_refused_since_kubernetes_would_give_up_none_of_it() -> None:
    assert "would be silent" in why_too_wide(nodes(6), [*nodes(4), *nodes(10, "b")], [])
    assert why_too_wide(nodes(5), [*nodes(5), *nodes(10, "b")], []) == ""  # fewer than that
    assert why_too_wide(nodes(6), nodes(10, "b"), []) == ""  # the whole zone
    assert why_too_wide(nodes(2), [node("a-x"), *nodes(3, "b")], []) == ""  # two are never the network's


def test_nodes_that_are_silent_already_count() -> None:
    ill = nodes(2, is_ready=False)

    assert why_too_wide(nodes(1), [*ill, *nodes(2), *nodes(5, "b")], []) != ""
    assert why_too_wide(nodes(1), [*nodes(4), *nodes(5, "b")], []) == ""


def test_a_node_that_was_made_anew_is_given_what_it_lacks_and_nothing_that_others_say_otherwise() -> None:
    before = node("n")
    before["metadata"]["labels"] |= {"ours": "1", "version": "1"}
    before["metadata"]["annotations"] = {"why": "x"}
    ours = {"key": "gpu", "value": "1", "effect": "NoSchedule"}
    before["spec"] = {
        "taints": [ours, {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}],
        "unschedulable": True,
    }
    anew = node("n")
    anew["metadata"]["labels"]["version"] = "2"
    anew["spec"] = {"taints": [{"key": "fresh", "effect": "NoSchedule"}]}

    patch, said = lacking(anew, kept_of(before))

    assert patch == {
        "metadata": {"labels": {"ours": "1"}, "annotations": {"why": "x"}},
        "spec": {"taints": [{"key": "fresh", "effect": "NoSchedule"}, ours], "unschedulable": True},
    }
    assert said == "labels ours; annotations why; taints gpu; its cordon"
    assert lacking(before, kept_of(before)) == ({}, "")


def test_a_cluster_with_nodes_and_clocks_survives_the_ledger() -> None:
    clocks = (("node_monitor_grace_s", 40.0),)
    cluster = Cluster(namespaces=("a",), nodes=(Host(name="n", wrapper=("sudo",)),), clocks=clocks)

    assert cluster_from_json(cluster.to_json()) == cluster
    assert cluster_from_json({"namespaces": ["a"]}) == Cluster(namespaces=("a",))

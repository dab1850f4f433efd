"""Which nodes may be lost together, and what a node that was deleted is given back: no cluster is asked."""

from __future__ import annotations

import inspect

import pytest

from experiments.faults.fault import FAULTS, load_fault
from experiments.host_agent.faults import FAULTS as OF_HOSTS
from experiments.hosts.host import Host
from experiments.kube import node_actions
from experiments.kube.choosing.conditions import HOST_FAULTS
from experiments.kube.cluster import Cluster, cluster_from_json
from experiments.kube.nodes.steps import deletion_step
from experiments.kube.nodes.zones import ZONE_LABEL, why_too_wide
from experiments.kube.undoing.steps import MARK, carry_out, step_from_json
from probes.errors import TargetError
from probes.json_types import JsonObject
from tests.experiments.kube.fake_api import FakeApi
from tests.experiments.kube.objects import pod

WHERE = ("experiments.kube.nodes.loss:", "experiments.kube.nodes.objects:")
OURS = [name for name, where in FAULTS.items() if where.startswith(WHERE)]
OUR_TAINT = {"key": "gpu", "value": "1", "effect": "NoSchedule"}


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


@pytest.fixture
def deleted() -> JsonObject:
    """A node with all that its kubelet would not make again."""
    found = node("n")
    found["metadata"] |= {"labels": {"ours": "1", "version": "1"}, "annotations": {"why": "x"}}
    found["spec"] = {
        "taints": [OUR_TAINT, {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}],
        "unschedulable": True,
    }
    return found | {"status": {"nodeInfo": {"machineID": "machine-1"}}}


def made_anew(*, machine: str = "machine-1") -> JsonObject:
    found = node("n") | {"status": {"nodeInfo": {"machineID": machine}}}
    found["metadata"] |= {"uid": "anew", "resourceVersion": "1", "labels": {"version": "2"}}
    found["spec"] = {"taints": [{"key": "fresh", "effect": "NoSchedule"}]}
    return found


def test_a_node_that_was_made_anew_is_given_what_it_lacks_and_nothing_that_others_say_otherwise(
    deleted: JsonObject,
) -> None:
    step = step_from_json(deletion_step(deleted, "run").to_json())
    api = FakeApi({step.path: made_anew()})

    done = [carry_out(step, api) for _ in range(2)]

    found = api.objects[step.path]
    assert [each.has_acted for each in done] == [True, False]
    assert found["metadata"]["labels"] == {"version": "2", "ours": "1"}
    assert found["metadata"]["annotations"].pop("why") == "x"
    assert [key.startswith(MARK) for key in found["metadata"]["annotations"]] == [True]
    assert found["spec"] == {
        "taints": [{"key": "fresh", "effect": "NoSchedule"}, OUR_TAINT],
        "unschedulable": True,
    }


def test_a_node_that_is_not_there_again_yet_is_waited_for_and_one_that_never_went_is_left_alone(
    deleted: JsonObject,
) -> None:
    step = deletion_step(deleted, "run")
    del deleted["metadata"]["labels"]["ours"]  # by its owner, meanwhile

    with pytest.raises(TargetError, match=r"node/n: is not there again yet"):
        carry_out(step, FakeApi())
    assert not carry_out(step, FakeApi({step.path: deleted})).has_acted
    assert "ours" not in deleted["metadata"]["labels"]


def test_what_its_owner_takes_off_a_node_that_has_it_back_is_not_given_back_again(
    deleted: JsonObject,
) -> None:
    step = deletion_step(deleted, "run")
    api = FakeApi({step.path: made_anew()})
    carry_out(step, api)
    del api.objects[step.path]["metadata"]["labels"]["ours"]

    done = carry_out(step, api)

    assert not done.has_acted
    assert "ours" not in api.objects[step.path]["metadata"]["labels"]


def test_another_machine_by_the_name_of_a_node_that_was_deleted_is_given_nothing(
    deleted: JsonObject,
) -> None:
    step = deletion_step(deleted, "run")
    api = FakeApi({step.path: made_anew(machine="machine-2")})

    done = carry_out(step, api)

    assert (done.has_acted, api.patches) == (False, 0)
    assert "is another one by now" in done.did


def test_a_cluster_with_nodes_and_clocks_survives_the_ledger() -> None:
    clocks = (("node_monitor_grace_s", 40.0),)
    cluster = Cluster(namespaces=("a",), nodes=(Host(name="n", wrapper=("sudo",)),), clocks=clocks)

    assert cluster_from_json(cluster.to_json()) == cluster
    assert cluster_from_json({"namespaces": ["a"]}) == Cluster(namespaces=("a",))

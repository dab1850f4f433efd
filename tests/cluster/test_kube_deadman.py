"""The dead-man on the real cluster: it undoes what a controller that is gone has left, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.faults.fault import FaultRefused
from experiments.kube.deadman.arming import arm_in_cluster, undo_in_cluster
from experiments.kube.deadman.hold import DeadManHold, remove_all
from experiments.kube.deadman.lease import beat_of
from experiments.kube.deadman.mirror import NAMESPACE, RUN_LABEL, Place, entries_of, place_of, read_mirror
from experiments.kube.undoing.client_api import ClientApi
from experiments.kube.undoing.steps import UndoStep, carry_out, make_change, make_step
from probes.child import wait_until
from probes.errors import TargetError
from tests.cluster.dead_man import SETTINGS, api_of, apply, cordon_step
from tests.cluster.plan import KUBECONFIG_VARIABLE
from tests.cluster.running import Hosts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

NODE = "node-1"
UNDONE_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def kube() -> ClientApi:
    api = api_of(os.environ[KUBECONFIG_VARIABLE])
    for name in ("namespace", "dead-man"):
        apply(api, name)
    return api


@pytest.fixture
def run(kube: ClientApi, tmp_path: Path) -> Iterator[Path]:
    """Return the folder of a run; what it leaves in the cluster and on nodes is removed."""
    folder = tmp_path / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-gameday-{os.urandom(2).hex()}"
    folder.mkdir()
    yield folder
    with contextlib.suppress(TargetError):
        remove_all(kube, place_of(folder.name))
    for node in (NODE, "node-2"):
        kube.ask("PATCH", f"/api/v1/nodes/{node}", {"spec": {"unschedulable": None}})


def is_cordoned(kube: ClientApi, node: str) -> bool:
    found = kube.ask("GET", f"/api/v1/nodes/{node}")[1]
    return bool(found["spec"].get("unschedulable"))


def is_well(kube: ClientApi, node: str) -> bool:
    found = kube.ask("GET", f"/api/v1/nodes/{node}")[1]
    is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in found["status"]["conditions"])
    return is_ready and not found["spec"].get("taints")


def pods_of(kube: ClientApi, place: Place) -> list[dict[str, Any]]:
    path = f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=job-name%3D{place.name}"
    return list(kube.ask("GET", path)[1]["items"])


@contextlib.contextmanager
def a_controller(run: Path, nodes: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a game day that has cordoned nodes, as a process of its own."""
    words = ["-m", "tests.cluster.dead_man", os.environ[KUBECONFIG_VARIABLE], str(run), *nodes]
    child = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        with child.stdout:
            assert child.stdout.readline() == "broken\n"
            yield child
    finally:
        child.kill()
        child.wait(timeout=10)


def step_at(kube: ClientApi, folder: Path, place: Place, node: str = NODE) -> UndoStep:
    """Arm a cordon, and return what takes it back."""
    entry_id = f"node.cordon-{node}-{folder.name[-4:]}"
    step = cordon_step(kube, node, entry_id)
    arm_in_cluster(kube, place, entry_id=entry_id, fault="node.cordon", subject=step.subject, steps=[step])
    return step


def all_of(kube: ClientApi, place: Place) -> list[str]:
    """Return everything of a run that is in the cluster."""
    query = f"?labelSelector={RUN_LABEL.replace('/', '%2F')}%3D{place.name}"
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    paths = [place.config_maps, place.leases, place.jobs, pods]
    rows = [(path, row) for path in paths for row in kube.ask("GET", f"{path}{query}")[1]["items"]]
    return [f"{path.rsplit('/', 1)[1]} {row['metadata']['name']}" for path, row in rows]


def holder_of(kube: ClientApi, place: Place) -> str:
    return beat_of(kube.ask("GET", place.heartbeat)[1]).holder


def test_a_killed_controller_with_its_disk_gone_is_undone_within_a_minute_and_once(
    kube: ClientApi, run: Path, record_property: Callable[[str, object], None]
) -> None:
    kube.ask("PATCH", "/api/v1/nodes/node-2", {"spec": {"unschedulable": True}})  # somebody else's
    with a_controller(run, [NODE, "node-2"]) as child:
        was_cordoned = is_cordoned(kube, NODE)
        child.kill()
    killed_at = time.monotonic()
    shutil.rmtree(run)

    is_undone = wait_until(lambda: not is_cordoned(kube, NODE), timeout_s=UNDONE_WITHIN_S, interval_s=0.2)
    took_s = time.monotonic() - killed_at
    record_property("undone_after_s", round(took_s, 1))
    place = place_of(run.name)
    wait_until(lambda: [p["status"]["phase"] for p in pods_of(kube, place)] == ["Succeeded"], timeout_s=40)
    mirror = read_mirror(place, kube)
    assert mirror is not None
    entries = entries_of(mirror)

    assert was_cordoned
    assert is_undone
    assert is_cordoned(kube, "node-2")  # it was so before us
    assert [(entry.state, entry.by.split("-")[0]) for entry in entries] == [("undone", "dead")] * 2
    assert entries[0].did.count("set to") == 1
    assert "set to" not in entries[1].did
    kube.ask("PATCH", f"/api/v1/nodes/{NODE}", {"spec": {"unschedulable": True}})  # a person, afterwards
    time.sleep(3)
    assert is_cordoned(kube, NODE)


def test_a_normal_end_leaves_nothing_in_the_cluster(kube: ClientApi, run: Path) -> None:
    hold = DeadManHold(kube, run, SETTINGS, away_from=[NODE])
    place = hold.take()
    step = step_at(kube, run, place)
    make_change(step, kube)
    (pod,) = pods_of(kube, place)

    left_before = [*all_of(kube, place)]
    done = undo_in_cluster(
        kube, place, entry_id=f"node.cordon-{NODE}-{run.name[-4:]}", fault="f", subject="s", steps=[step]
    )
    left = hold.release()

    assert pod["spec"]["nodeName"] != NODE
    assert len(left_before) == 6
    assert (done.is_restored, done.has_acted, left) == (True, True, [])
    assert wait_until(lambda: not all_of(kube, place), timeout_s=30), all_of(kube, place)
    assert not is_cordoned(kube, NODE)


def test_a_dead_man_that_cannot_start_ends_the_day_before_anything_is_hit(kube: ClientApi, run: Path) -> None:
    settings = replace(SETTINGS, image="overproof.test/missing:1", ready_within_s=8)

    with pytest.raises(TargetError, match=r"does not say within 8 s.*(ErrImage|ImagePull|ContainerCreating)"):
        DeadManHold(kube, run, settings, away_from=[NODE]).take()

    place = place_of(run.name)
    assert wait_until(lambda: not all_of(kube, place), timeout_s=30), all_of(kube, place)


def test_nothing_is_armed_where_the_dead_man_may_not_undo_or_is_gone(
    kube: ClientApi, run: Path, namespace: str
) -> None:
    hold = DeadManHold(kube, run, SETTINGS, away_from=[NODE])
    place = hold.take()
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    spec = {
        "replicas": 0,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "none"}]},
        },
    }
    made = kube.ask("POST", path, {"metadata": {"name": "web"}, "spec": spec})[1]
    ours = [(("spec", "replicas"), 3)]
    step = make_step(made, subject="deployment/web", path=f"{path}/web", ours=ours, mark="m-1")

    with pytest.raises(FaultRefused, match=r"could not undo it.*forbidden"):
        arm_in_cluster(kube, place, entry_id="m-1", fault="f", subject="deployment/web", steps=[step])
    kube.ask("DELETE", f"{place.jobs}/{place.name}?propagationPolicy=Background")
    assert wait_until(lambda: not pods_of(kube, place), timeout_s=30)
    with pytest.raises(FaultRefused, match="has not seen it within"):
        step_at(kube, run, place)
    hold.release()

    assert kube.ask("GET", f"{path}/web")[1]["spec"]["replicas"] == 0
    assert not is_cordoned(kube, NODE)


def test_a_dead_man_that_is_evicted_comes_back_and_proves_itself_again(kube: ClientApi, run: Path) -> None:
    with a_controller(run, [NODE]) as child:
        place = place_of(run.name)
        first = holder_of(kube, place)
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{first}"
        status, _ = kube.ask("POST", f"{path}/eviction", {"metadata": {"name": first}})
        is_back = wait_until(lambda: holder_of(kube, place) != first, timeout_s=60)
        beat = beat_of(kube.ask("GET", place.heartbeat)[1])
        child.kill()

    assert status in (200, 201)
    assert is_back
    assert beat.sees == {f"node.cordon-{NODE}"}
    assert wait_until(lambda: not is_cordoned(kube, NODE), timeout_s=UNDONE_WITHIN_S, interval_s=0.2)


def test_two_game_days_are_undone_apart(kube: ClientApi, run: Path, tmp_path: Path) -> None:
    other = tmp_path / f"{run.name}-other"
    other.mkdir()
    hold = DeadManHold(kube, other, SETTINGS, away_from=["node-2"])
    place = hold.take()
    step = step_at(kube, other, place, "node-2")
    make_change(step, kube)
    with a_controller(run, [NODE]) as child:
        child.kill()

    is_undone = wait_until(lambda: not is_cordoned(kube, NODE), timeout_s=UNDONE_WITHIN_S, interval_s=0.2)
    is_other_cordoned = is_cordoned(kube, "node-2")
    carry_out(step, kube)
    hold.release()
    remove_all(kube, place)

    assert is_undone
    assert is_other_cordoned


def test_undo_from_the_cluster_needs_no_folder_and_clears_away(
    kube: ClientApi, run: Path, tmp_path: Path
) -> None:
    environment = os.environ | {"KUBECONFIG": os.environ[KUBECONFIG_VARIABLE]}
    words = [sys.executable, "-m", "overproof", "gameday", "undo", "--from-cluster", "", "--json"]

    def undo() -> tuple[int, list[dict[str, object]]]:
        done = subprocess.run(
            words, env=environment, cwd=Path.cwd(), capture_output=True, text=True, timeout=60, check=False
        )
        document = json.loads(done.stdout)
        return done.returncode, [row for row in document["undone"] if row["run"] == place_of(run.name).name]

    with a_controller(run, [NODE]) as child:
        while_it_runs = undo()
        was_cordoned = is_cordoned(kube, NODE)
        child.kill()
    shutil.rmtree(run)
    after = undo()

    assert while_it_runs[0] == 1
    assert "its game day runs" in str(while_it_runs[1][0]["did"])
    assert was_cordoned
    assert [(row["subject"], row["is_restored"]) for row in after[1]] == [(f"node/{NODE}", True)]
    assert not is_cordoned(kube, NODE)
    assert wait_until(lambda: not all_of(kube, place_of(run.name)), timeout_s=30)


def test_an_api_that_is_away_from_the_dead_man_is_asked_until_it_is_back(
    kube: ClientApi, run: Path, hosts: Hosts
) -> None:
    place = place_of(run.name)
    with a_controller(run, [NODE]) as child:
        (pod,) = pods_of(kube, place)
        child.kill()
    node, address = pod["spec"]["nodeName"], pod["status"]["podIP"]
    rule = ["FORWARD", "-s", address, "-j", "DROP"]

    time.sleep(10)
    hosts.ask(node, "iptables", "-I", *rule)
    try:
        time.sleep(20)  # its lease runs out meanwhile
        is_undone_without = not is_cordoned(kube, NODE)
    finally:
        hosts.ask(node, "iptables", "-D", *rule)

    assert not is_undone_without
    assert wait_until(lambda: not is_cordoned(kube, NODE), timeout_s=UNDONE_WITHIN_S, interval_s=0.2)


def test_a_dead_man_whose_node_is_lost_comes_back_elsewhere_and_undoes(
    kube: ClientApi, run: Path, hosts: Hosts
) -> None:
    place = place_of(run.name)
    with a_controller(run, [NODE]) as child:
        (pod,) = pods_of(kube, place)
        node, first = pod["spec"]["nodeName"], holder_of(kube, place)
        hosts.cut(node)
        child.kill()
    try:
        is_undone = wait_until(lambda: not is_cordoned(kube, NODE), timeout_s=120, interval_s=0.5)
        second = holder_of(kube, place)
    finally:
        hosts.mend(node)
        assert wait_until(lambda: is_well(kube, node), timeout_s=60)

    assert is_undone
    assert second != first

"""The shipped service on the real cluster: put up, seen, hit and removed."""

from __future__ import annotations

import concurrent.futures
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kubernetes import client

from experiments.kube.actions import NO_SUCH_IMAGE
from experiments.kube.choosing.aim import Aim, aiming_at
from experiments.kube.client import connect
from experiments.kube.cluster import ALLOWED_LABEL, ALLOWED_VALUE, Cluster
from experiments.kube.observations import replicas_between
from probes.child import wait_until
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.run import load_run
from tests.cluster.images import ENDPOINT_IMAGE
from tests.cluster.kube_days import overproof, told
from tests.cluster.plan import KUBECONFIG_VARIABLE
from tests.cluster.pod_metrics import serving_pod_metrics
from tests.cluster.running import Hosts
from tests.cluster.test_kube_access import kubeconfig
from tests.cluster.workload import replica_that_answers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

CORES_PER_REPLICA = {"type": "AverageValue", "averageValue": "30m"}
IMAGE = ("--image", ENDPOINT_IMAGE, "--python", f"python3.{sys.version_info.minor}")


@pytest.fixture
def place(api: client.ApiClient) -> Iterator[tuple[str, ...]]:
    """Return the options that name the cluster and a namespace that is not there; it is gone afterwards."""
    name = f"lab-{secrets.token_hex(3)}"
    yield ("--kube", "--kubeconfig", os.environ[KUBECONFIG_VARIABLE], "--namespace", name)
    spaces = {each.metadata.name for each in client.CoreV1Api(api).list_namespace().items}
    if name in spaces:
        client.CoreV1Api(api).delete_namespace(name)


def lab(verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the lab with nobody there to be asked."""
    command = [sys.executable, "-m", "overproof", "lab", verb, *words]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False
    )


def test_the_lab_is_put_up_seen_and_removed_and_says_first_on_which_cluster(
    api: client.ApiClient, place: tuple[str, ...]
) -> None:
    core, namespace = client.CoreV1Api(api), place[-1]
    uid = core.read_namespace("kube-system").metadata.uid

    unasked = lab("up", *place, *IMAGE)
    up = lab("up", *place, *IMAGE, "--yes", "--json")
    state = json.loads(up.stdout)
    again = lab("up", *place, *IMAGE, "--yes")
    status = lab("status", *place)
    names = {row["name"].split("/")[1] for row in state["replicas"]}
    has_answered = wait_until(lambda: replica_that_answers(state["url"]) in names, timeout_s=30)
    labels = core.read_namespace(namespace).metadata.labels

    def lets_one_go() -> bool:
        found = client.PolicyV1Api(api).read_namespaced_pod_disruption_budget("chat", namespace)
        return bool(found.status and found.status.disruptions_allowed == 1)

    is_budget_known = wait_until(lets_one_go, timeout_s=30)  # by a controller that counts when it gets to it
    down = lab("down", *place, "--yes")
    gone = lab("status", *place)

    assert (unasked.returncode, up.returncode, again.returncode) == (2, 0, 0), up.stderr
    assert "nobody is there to be asked" in unasked.stderr
    assert f"(cluster {uid})" in up.stderr
    assert [row["is_serving"] for row in state["replicas"]] == [True] * 3
    assert len({row["node"] for row in state["replicas"]}) == 3
    assert has_answered
    assert labels[ALLOWED_LABEL] == ALLOWED_VALUE
    assert is_budget_known
    assert status.stdout.count(": serves, on ") == 3
    assert (down.returncode, gone.returncode) == (0, 3), down.stderr
    assert "no lab is there" in gone.stderr


def test_a_lab_that_is_put_up_anew_from_what_does_not_start_is_not_up(place: tuple[str, ...]) -> None:
    first = lab("up", *place, *IMAGE, "--yes", "--replicas", "1")

    anew = lab("up", *place, "--image", NO_SUCH_IMAGE, "--yes", "--replicas", "1", "--ready-within-s", "30")
    gone = lab("down", *place, "--yes")

    assert (first.returncode, anew.returncode, gone.returncode) == (0, 3, 0), (first.stderr, anew.stderr)
    assert "not all of them as asked for now: " in anew.stderr


def test_a_namespace_of_somebody_else_is_neither_filled_nor_removed(
    api: client.ApiClient, namespace: str
) -> None:
    theirs = ("--kube", "--kubeconfig", os.environ[KUBECONFIG_VARIABLE], "--namespace", namespace, "--yes")

    up, down = lab("up", *theirs, *IMAGE), lab("down", *theirs)

    assert (up.returncode, down.returncode) == (2, 2)
    assert "not a lab of ours" in up.stderr
    assert "not a lab of ours" in down.stderr
    assert client.CoreV1Api(api).list_namespaced_pod(namespace).items == []
    assert client.CoreV1Api(api).read_namespace(namespace).metadata.deletion_timestamp is None


def test_who_may_only_look_is_told_so_before_anything_is_made(
    api: client.ApiClient, namespace: str, place: tuple[str, ...], tmp_path: Path
) -> None:
    core, rights = client.CoreV1Api(api), client.RbacAuthorizationV1Api(api)
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "looker"}})
    subject = {"kind": "ServiceAccount", "name": "looker", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    binding = {"metadata": {"name": namespace}, "roleRef": role, "subjects": [subject]}
    rights.create_cluster_role_binding(binding)
    try:
        token = core.create_namespaced_service_account_token("looker", namespace, {}).status.token
        theirs = ("--kube", "--kubeconfig", kubeconfig(tmp_path, token=token), *place[3:])
        up = lab("up", *theirs, *IMAGE, "--yes")
    finally:
        rights.delete_cluster_role_binding(namespace)

    assert up.returncode == 2, up.stderr
    assert "RBAC of the cluster does not let us patch namespaces; nothing is touched" in up.stderr
    assert place[-1] not in {each.metadata.name for each in core.list_namespace().items}


SCALED = {  # as shipped, on figures small enough for this machine and at the pace of its shortened clocks
    "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": CORES_PER_REPLICA}}],
    "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}},
}


@pytest.fixture
def scaled(api: client.ApiClient, place: tuple[str, ...], hosts: Hosts) -> Iterator[str]:
    """Put up a service of one replica, at most three by load, and return its address."""
    with serving_pod_metrics(api, hosts.plan):
        up = lab("up", *place, *IMAGE, "--yes", "--json", "--replicas", "1", "--replicas-max", "3")
        assert up.returncode == 0, up.stderr
        client.AutoscalingV2Api(api).patch_namespaced_horizontal_pod_autoscaler(
            "chat", place[-1], {"spec": SCALED}
        )
        url = json.loads(up.stdout)["url"]
        # This machine's way to a new Service is made by a kube-proxy, when it gets to it.
        assert wait_until(lambda: replica_that_answers(url) is not None, timeout_s=30)
        yield url


def spike(folder: Path, *, at_s: int, for_s: int, duration_s: int, expect: JsonObject) -> Path:
    """Write a load that needs more than one replica for a while."""
    arrivals = {"kind": "spike", "rate_per_s": 4, "spike_per_s": 40, "at_s": at_s, "for_s": for_s}
    size = {"kind": "constant", "value": 4}
    document = {
        "name": "spike",
        "arrivals": arrivals,
        "duration_s": duration_s,
        "endpoint": {"reuse_connections": False},  # a Service chooses a replica for each connection
        "prompt": {"input_tokens": size, "output_tokens": size},
        "failed_share_max": 0.01,  # what a replica that goes away is answering may be cut
        "expect": {"autoscale": {"replicas": {"kind": "header", "window_s": 5}} | expect},
    }
    path = folder / "spike.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def judged(path: Path, url: str) -> tuple[int, Finding, dict[str, str]]:
    """Run the load; return its exit code, what came of the autoscaler, and what every rule came to."""
    done = overproof("load", "run", path, "--endpoint", url, "--out", path.parent / "runs")
    folders = [each for each in (path.parent / "runs").glob("*-load-*") if not each.is_symlink()]
    assert len(folders) == 1, done.stderr
    run = load_run(folders[0])
    (found,) = [f for f in run.findings if f.rule == "autoscale"]
    return done.returncode, found, told(run)


def test_a_spike_brings_replicas_and_its_end_takes_them_back(
    api: client.ApiClient, place: tuple[str, ...], scaled: str, tmp_path: Path
) -> None:
    expect = {"scale_up": {"to_min": 2, "within_s": 45}, "release": {"to_max": 1, "within_s": 45}}
    path = spike(tmp_path, at_s=8, for_s=53, duration_s=115, expect=expect)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(judged, path, scaled)
        with aiming_at(aim_at(place[-1])):
            up = replicas_between("chat", 2, 3, within_s=90)
            down = replicas_between("chat", 1, 1, within_s=90)
        status, found, every = running.result()

    assert (up["outcome"], down["outcome"]) == ("pass", "pass"), (up, down)
    assert "its autoscaler wants" in up["observed"]
    assert found.outcome is Outcome.PASS, found
    assert status in (0, 3), every


def test_an_autoscaler_that_does_not_follow_fails_the_spike(
    api: client.ApiClient, place: tuple[str, ...], scaled: str, tmp_path: Path
) -> None:
    client.AutoscalingV2Api(api).patch_namespaced_horizontal_pod_autoscaler(
        "chat", place[-1], {"spec": {"maxReplicas": 1}}
    )
    path = spike(
        tmp_path, at_s=6, for_s=24, duration_s=35, expect={"scale_up": {"to_min": 2, "within_s": 15}}
    )

    status, found, _ = judged(path, scaled)

    assert (status, found.outcome) == (1, Outcome.FAIL), found


def aim_at(namespace: str) -> Aim:
    """Return where probes look."""
    cluster = Cluster(namespaces=(namespace,), kubeconfig=os.environ[KUBECONFIG_VARIABLE])
    return Aim(name="t", cluster=cluster, seed=1, run="", uid=connect(cluster).identity().uid)


def test_a_context_that_is_not_there_is_one_line(place: tuple[str, ...]) -> None:
    done = overproof("lab", "status", *place, "--context", "production")

    assert done.returncode == 2
    assert "context 'production'" in done.stderr

"""The shipped service on the real cluster: put up, seen, hit and removed."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator

import pytest
from kubernetes import client

from experiments.kube.cluster import ALLOWED_LABEL, ALLOWED_VALUE
from tests.cluster.images import ENDPOINT_IMAGE
from tests.cluster.kube_days import overproof
from tests.cluster.plan import KUBECONFIG_VARIABLE
from tests.cluster.workload import replica_that_answers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

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
    answers = replica_that_answers(state["url"])
    labels = core.read_namespace(namespace).metadata.labels
    budget = client.PolicyV1Api(api).read_namespaced_pod_disruption_budget("chat", namespace)
    down = lab("down", *place, "--yes")
    gone = lab("status", *place)

    assert (unasked.returncode, up.returncode, again.returncode) == (2, 0, 0), up.stderr
    assert "nobody is there to be asked" in unasked.stderr
    assert f"(cluster {uid})" in up.stderr
    assert [row["is_serving"] for row in state["replicas"]] == [True] * 3
    assert len({row["node"] for row in state["replicas"]}) == 3
    assert answers in {row["name"].split("/")[1] for row in state["replicas"]}
    assert labels[ALLOWED_LABEL] == ALLOWED_VALUE
    assert budget.status.disruptions_allowed == 1
    assert status.stdout.count(": serves, on ") == 3
    assert (down.returncode, gone.returncode) == (0, 3), down.stderr
    assert "no lab is there" in gone.stderr


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


def test_a_context_that_is_not_there_is_one_line(place: tuple[str, ...]) -> None:
    done = overproof("lab", "status", *place, "--context", "production")

    assert done.returncode == 2
    assert "context 'production'" in done.stderr

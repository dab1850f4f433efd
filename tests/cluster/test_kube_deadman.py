"""The dead-man on the real cluster: it undoes what a controller that is gone has left, and nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from experiments.kube.client_api import ClientApi
from experiments.kube.deadman.hold import remove_all
from experiments.kube.deadman.mirror import NAMESPACE, Place, entries_of, place_of, read_mirror
from probes.child import wait_until
from probes.errors import TargetError
from tests.cluster.dead_man import api_of, apply
from tests.cluster.plan import KUBECONFIG_VARIABLE

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
    """Return the folder of a run; what it leaves in the cluster is removed, nodes are as they were."""
    folder = tmp_path / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-gameday-{os.urandom(2).hex()}"
    folder.mkdir()
    yield folder
    with contextlib.suppress(TargetError):
        remove_all(kube, place_of(folder.name))
    for node in kube.ask("GET", "/api/v1/nodes")[1]["items"]:
        body = {"spec": {"unschedulable": None}}
        kube.ask("PATCH", f"/api/v1/nodes/{node['metadata']['name']}", body)


def is_cordoned(kube: ClientApi, node: str) -> bool:
    found = kube.ask("GET", f"/api/v1/nodes/{node}")[1]
    return bool(found["spec"].get("unschedulable"))


def pods_of(kube: ClientApi, place: Place) -> list[dict[str, object]]:
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
    wait_until(lambda: [p["status"]["phase"] for p in pods_of(kube, place)] == ["Succeeded"], timeout_s=40)  # type: ignore[index]
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

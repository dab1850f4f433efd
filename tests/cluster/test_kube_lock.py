"""Two game days from two machines on one namespace: the second is told who has it, and touches nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kubernetes import client

from experiments.kube.lock import LOCK
from probes.child import wait_until
from probes.json_types import JsonObject
from tests.cluster.kube_days import Service, overproof, serve, write_day

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


@pytest.fixture
def service(api: client.ApiClient, namespace: str) -> Service:
    return serve(api, namespace, replicas=2)


def holder(service: Service) -> str:
    """Return who has the namespace; empty: nobody."""
    leases = client.CoordinationV1Api(service.api).list_namespaced_lease(service.namespace).items
    return next((str(each.spec.holder_identity) for each in leases if each.metadata.name == LOCK), "")


def with_steady(seconds: float) -> Callable[[JsonObject], None]:
    def change(document: JsonObject) -> None:
        document["extensions"][0]["steady_s"] = seconds

    return change


def test_the_second_is_refused_and_the_first_stops_once_its_namespace_is_taken_from_it(
    service: Service, tmp_path: Path
) -> None:
    path = write_day(tmp_path, "pod-kill", service, with_steady(60))
    before = service.containers()
    command = [sys.executable, "-m", "overproof", "gameday", "run", str(path), "--out", str(tmp_path / "one")]
    with (tmp_path / "said").open("w") as said:
        first = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
        try:
            assert wait_until(lambda: bool(holder(service)), timeout_s=60), (tmp_path / "said").read_text()
            second = overproof("gameday", "run", path, "--out", tmp_path / "other-machine")
            had_it = holder(service)
            taken = {"spec": {"holderIdentity": "somebody else"}}
            leases = client.CoordinationV1Api(service.api)
            leases.patch_namespaced_lease(LOCK, service.namespace, taken)
            status = first.wait(timeout=60)
        finally:
            first.kill()
            first.wait()

    (line,) = [each for each in second.stderr.splitlines() if each.startswith("overproof:")]
    assert second.returncode == 2
    assert re.search(
        rf"no other game day in {service.namespace}: game day .* on .*, process {first.pid}", line
    )
    assert had_it.endswith(f"process {first.pid}")
    assert status == 3
    assert "somebody else has taken it from us" in (tmp_path / "said").read_text()
    assert holder(service) == "somebody else"  # not ours to remove any more
    assert service.containers() == before

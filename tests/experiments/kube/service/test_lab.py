"""When a service that was put onto a cluster is up. On a real one: tests/cluster."""

from __future__ import annotations

import pytest

from experiments.kube.service.lab import is_rolled_out
from probes.json_types import JsonObject

DONE: JsonObject = {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3}


@pytest.mark.parametrize(
    ("status", "is_so"),
    [
        (DONE, True),
        (DONE | {"observedGeneration": 1}, False),  # its controller has not seen what was asked for
        (DONE | {"updatedReplicas": 1}, False),
        (DONE | {"replicas": 4}, False),  # one of the former version is there yet
        ({}, False),
    ],
)
def test_a_deployment_is_rolled_out_once_no_replica_of_the_former_version_is_left(
    status: JsonObject, is_so: bool
) -> None:
    deployment = {"metadata": {"generation": 2}, "spec": {"replicas": 3}, "status": status}

    assert is_rolled_out(deployment) is is_so

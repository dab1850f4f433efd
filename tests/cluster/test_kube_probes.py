"""Probes on the real cluster: what its own objects look like where things go well, and where they do not."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from kubernetes import client

from experiments.kube.actions import nodes_schedulable
from experiments.kube.choosing.aim import Aim, aiming_at
from experiments.kube.client import connect
from experiments.kube.cluster import Cluster
from experiments.kube.observations import budgets_allow, job_progresses, no_warnings, restarts_at_most
from probes.child import wait_until
from probes.errors import TargetError
from probes.json_types import JsonObject
from tests.cluster.images import ENDPOINT_IMAGE
from tests.cluster.plan import KUBECONFIG_VARIABLE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(200)]

STEPS = r"step (?P<step>[0-9]+)"
GETS_ON = "import time\nfor step in range(9999): print('step', step, flush=True); time.sleep(0.3)"
STANDS_STILL = "import time\nprint('step 7', flush=True); time.sleep(999)"
CRASHES = "raise SystemExit(3)"


@pytest.fixture
def space(namespace: str) -> Iterator[str]:
    """A namespace, which probes look at."""
    cluster = Cluster(namespaces=(namespace,), kubeconfig=os.environ[KUBECONFIG_VARIABLE])
    aim = Aim(name="t", cluster=cluster, seed=1, run="", uid=connect(cluster).identity().uid)
    with aiming_at(aim):
        yield namespace


def pod(code: str, restart: str) -> JsonObject:
    python = f"python3.{sys.version_info.minor}"
    container = {"name": "main", "image": ENDPOINT_IMAGE, "imagePullPolicy": "Never"}
    container |= {"command": [python, "-c", code]}
    return {"containers": [container], "restartPolicy": restart, "terminationGracePeriodSeconds": 1}


def start_job(api: client.ApiClient, space: str, name: str, code: str) -> None:
    spec = {"template": {"spec": pod(code, "Never")}, "backoffLimit": 0}
    client.BatchV1Api(api).create_namespaced_job(space, {"metadata": {"name": name}, "spec": spec})


def test_a_job_gets_on_by_its_steps_and_one_that_stands_still_is_told_from_it(
    api: client.ApiClient, space: str
) -> None:
    for name, code in {"good": GETS_ON, "stuck": STANDS_STILL, "broken": CRASHES}.items():
        start_job(api, space, name, code)

    good = job_progresses("good", step_pattern=STEPS, within_s=60)
    by_status = job_progresses("stuck", within_s=30)
    has_said = wait_until(
        lambda: job_progresses("stuck", step_pattern=STEPS, within_s=0)["last_step"] == 7, timeout_s=60
    )
    stuck = job_progresses("stuck", step_pattern=STEPS, within_s=3)
    has_failed = wait_until(lambda: job_progresses("broken", within_s=0)["state"] == "failed", timeout_s=30)
    broken = job_progresses("broken", within_s=0)

    assert good["outcome"] == "pass", good
    assert good["last_step"] > good["first_step"]
    assert (by_status["outcome"], by_status["state"]) == ("pass", "running")
    assert has_said
    assert (stuck["outcome"], stuck["last_step"]) == ("fail", 7)
    assert has_failed, broken
    assert broken["outcome"] == "fail"
    with pytest.raises(TargetError, match="there is none"):
        job_progresses("nobody")


def test_a_crash_loop_shows_in_restarts_and_warnings_and_a_budget_in_what_it_allows(
    api: client.ApiClient, space: str
) -> None:
    core, budgets = client.CoreV1Api(api), client.PolicyV1Api(api)
    quiet = (no_warnings(), budgets_allow(), restarts_at_most())
    meta = {"name": "loop", "labels": {"app": "loop"}}
    core.create_namespaced_pod(space, {"metadata": meta, "spec": pod(CRASHES, "Always")})
    budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": "loop"}}}
    budgets.create_namespaced_pod_disruption_budget(space, {"metadata": {"name": "b"}, "spec": budget})

    crashed = wait_until(lambda: restarts_at_most()["outcome"] == "fail", timeout_s=40)
    warned = wait_until(lambda: "BackOff" in no_warnings()["warnings"], timeout_s=40)
    kept = wait_until(lambda: budgets_allow()["outcome"] == "fail", timeout_s=20)
    restarts = restarts_at_most()

    assert [each["outcome"] for each in quiet] == ["pass", "inconclusive", "inconclusive"]
    assert (crashed, warned, kept) == (True, True, True)
    assert "Error (exit code 3)" in restarts["observed"]
    assert no_warnings(reasons=["BackOff"])["warnings"].keys() == {"BackOff"}
    assert "BackOff" not in no_warnings(besides=["BackOff"])["warnings"]
    assert no_warnings(reasons=["FailedMount"])["outcome"] == "pass"
    assert budgets_allow(allowed_min=0)["outcome"] == "pass"
    assert nodes_schedulable(nodes=["node-1"])["outcome"] == "pass"

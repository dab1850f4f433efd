"""The service to rehearse on: what is put onto a cluster, and what may be asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from experiments.kube.cluster import is_allowed
from experiments.kube.service.objects import LAB_LABEL, ServicePlan, objects_of, path_of
from experiments.lab.cli import app
from probes.errors import ConfigError
from probes.json_types import JsonObject


def by_kind(plan: ServicePlan) -> dict[str, JsonObject]:
    return {str(row["kind"]): row for row in objects_of(plan)}


def test_every_probe_asks_for_a_token_and_liveness_is_the_last_to_give_up() -> None:
    (container,) = by_kind(ServicePlan(image="i"))["Deployment"]["spec"]["template"]["spec"]["containers"]
    probes = {name: container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
    patience_s = {name: row["periodSeconds"] * row["failureThreshold"] for name, row in probes.items()}

    assert {row["httpGet"]["path"] for row in probes.values()} == {"/health_generate"}
    assert patience_s["readiness"] < patience_s["liveness"] < patience_s["startup"]


def test_all_of_it_is_in_the_namespace_that_was_asked_for_and_game_days_may_hit_it() -> None:
    rows = by_kind(ServicePlan(image="registry/overproof:7", namespace="mine", python="python3.12"))
    spec = rows["Deployment"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]

    assert is_allowed(rows["Namespace"]["metadata"]["labels"])
    assert rows["Namespace"]["metadata"]["labels"][LAB_LABEL] == "chat"
    assert path_of(rows["Namespace"]) == "/api/v1/namespaces/mine"
    assert path_of(rows["Deployment"]) == "/apis/apps/v1/namespaces/mine/deployments/chat"
    assert {row["metadata"].get("namespace", "mine") for row in rows.values()} == {"mine"}
    assert (container["image"], container["command"][0]) == ("registry/overproof:7", "python3.12")
    assert spec["replicas"] == 3


def test_without_a_most_there_is_no_autoscaler_and_with_one_the_number_is_its_own() -> None:
    fixed = by_kind(ServicePlan(image="i", replicas=4))
    scaled = by_kind(ServicePlan(image="i", replicas=2, replicas_max=5))

    assert "HorizontalPodAutoscaler" not in fixed
    assert fixed["Deployment"]["spec"]["replicas"] == 4
    assert "replicas" not in scaled["Deployment"]["spec"]
    scaler = scaled["HorizontalPodAutoscaler"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["up", "--kube", "--image", "i", "--port", "1", "--no-restart"],
            "--no-restart, --port: not for --kube",
        ),
        (["up", "--image", "i"], "--image: only with --kube"),
        (["down", "--yes"], "--yes: only with --kube"),
        (["status", "--namespace", "n"], "--namespace: only with --kube"),
        (["up", "--kube"], "state --image"),
        (["up", "--kube", "--image", "i", "--replicas-max", "1"], "less than --replicas 3"),
    ],
)
def test_options_that_would_do_nothing_are_refused(words: list[str], said: str, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path)] if "--kube" not in words else []

    done = CliRunner().invoke(app, [*words, *out])

    assert isinstance(done.exception, ConfigError)
    assert said in str(done.exception)

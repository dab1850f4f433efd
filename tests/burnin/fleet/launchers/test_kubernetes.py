"""The Jobs for a Kubernetes cluster: valid to the client's own models, pinned, bounded, and findable."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kubernetes.client import ApiClient, V1Job

from burnin.fleet.host import Access, ClusterJobs, Expected, Host
from burnin.fleet.launchers.kubernetes import RUN_LABEL, job_manifest, job_name
from probes.errors import ConfigError

EXAMPLE = Path(__file__).parents[4] / "burnin/fleets/kubernetes.yaml"
JOBS = ClusterJobs(image="r/i@sha256:" + "0" * 64, namespace="acceptance", resources={"rdma/hca": "1"})


def _host(name: str, *, gpus: int | None = 8) -> Host:
    return Host(name=name, access=Access(launcher="kubernetes"), expected=Expected(gpus=gpus))


def _job(manifest: object) -> V1Job:
    """Return the manifest as the client's own model, which refuses what a Job does not have."""
    return ApiClient().deserialize(json.dumps(manifest), "V1Job", "application/json")


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def test_every_field_of_a_manifest_is_one_that_the_clients_models_know() -> None:
    manifest = job_manifest(_host("gpu-01"), JOBS, run="r1", time_limit_s=120.4)

    # What a model does not know is dropped on the way in, and missing on the way out.
    assert _without_nulls(ApiClient().sanitize_for_serialization(_job(manifest))) == manifest


def test_a_job_is_pinned_to_its_node_runs_once_and_ends_by_itself() -> None:
    job = _job(job_manifest(_host("gpu-01"), JOBS, run="r1", time_limit_s=120.4))
    pod = job.spec.template.spec
    terms = pod.affinity.node_affinity.required_during_scheduling_ignored_during_execution

    assert [(f.key, f.operator, f.values) for t in terms.node_selector_terms for f in t.match_fields] == [
        ("metadata.name", "In", ["gpu-01"])
    ]
    assert (job.spec.backoff_limit, pod.restart_policy) == (0, "Never")
    assert (job.spec.active_deadline_seconds, job.spec.ttl_seconds_after_finished) == (121, 600)
    assert [t.operator for t in pod.tolerations] == ["Exists"]


def test_a_container_has_the_gpus_the_hosts_memory_and_an_input_that_closes_with_us() -> None:
    container = _job(
        job_manifest(_host("gpu-01"), JOBS, run="r1", time_limit_s=60)
    ).spec.template.spec.containers[0]

    assert container.resources.limits == {"nvidia.com/gpu": "8", "rdma/hca": "1"}
    assert (container.stdin, container.stdin_once, container.tty) == (True, True, False)
    assert [mount.mount_path for mount in container.volume_mounts] == ["/dev/shm"]
    assert container.command[:3] == ["python3", "-I", "-S"]


def test_leftovers_are_found_by_the_run() -> None:
    job = _job(job_manifest(_host("gpu-01"), JOBS, run="20261121T0500Z-fleet/ab", time_limit_s=60))

    assert job.metadata.labels[RUN_LABEL] == "20261121T0500Z-fleet-ab"
    assert job.spec.template.metadata.labels == job.metadata.labels
    assert job.metadata.annotations == {"overproof/host": "gpu-01"}


def test_names_are_those_that_kubernetes_takes_and_differ_by_host_and_run() -> None:
    hosts = ["gpu-01", "GPU_01.cluster.example", "x" * 100]
    names = {job_name(host, run) for host in hosts for run in ("r1", "r2")}

    assert len(names) == 6
    assert all(len(name) <= 63 and name == name.lower() and "_" not in name for name in names)


def test_a_host_of_unknown_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="gpu-01: the launcher kubernetes asks for GPUs by number"):
        job_manifest(_host("gpu-01", gpus=None), JOBS, run="r", time_limit_s=60)


def _dry_run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "overproof", "burnin", "run", *arguments, "--dry-run"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_dry_run_prints_a_job_for_each_host_and_makes_no_run(tmp_path: Path) -> None:
    done = _dry_run(tmp_path, str(EXAMPLE))

    assert done.returncode == 0, done.stderr
    manifests = list(yaml.safe_load_all(done.stdout))
    assert [m["metadata"]["annotations"]["overproof/host"] for m in manifests] == [
        f"gpu-{number:02}" for number in range(1, 17)
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("name: f\ngroups: [{hosts: a, gpus: 8}]\n", [], "a is reached by ssh, which creates nothing"),
        (
            "name: f\ngroups: [{hosts: a, gpus: 8}]\n",
            ["--launcher", "kubernetes"],
            "fleet f: say which image",
        ),
        (
            "name: f\nkubernetes: {image: 'pytorch:latest'}\ngroups: [{hosts: a}]\n",
            ["--launcher", "kubernetes"],
            ":2: kubernetes.image",
        ),
    ],
)
def test_what_cannot_be_shown_is_a_wrong_command_and_says_why(
    tmp_path: Path, text: str, arguments: list[str], message: str
) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(text)

    done = _dry_run(tmp_path, str(file), *arguments)

    assert done.returncode == 2
    assert message in done.stderr

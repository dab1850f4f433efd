"""Burn-ins on the cluster of the tests: an image by digest, a fleet file, and what is left of a run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from kubernetes import client

from burnin.fleet.launchers.kubernetes import RUN_LABEL
from reports.run import Run, load_run
from reports.table import read_series
from tests.cluster.images import ENDPOINT_IMAGE
from tests.cluster.node import SOCKET
from tests.cluster.running import Hosts

_CTR = ("ctr", "--address", SOCKET, "--namespace", "k8s.io", "images")
# Torch is too large for an image; the hosts of this cluster share the machine's files.
HOST_PATHS = ["/usr", sys.base_prefix, sys.prefix]
SHORT = ("--device", "cpu", "--duration-s", "4")
# One core in all: beside them the cluster itself has to go on. One device has nobody to exchange data with,
# and on a busy machine a step takes its time.
PLAN = "profile: gate\ncpu_devices: 1\nleave_out: [allreduce]\nstall_s: 60\n"


def image_by_digest(hosts: Hosts) -> str:
    """Return the name by digest of the image that has Python, known to every node by it."""
    for node in hosts.plan.nodes:
        listed = [line.split() for line in hosts.ask(node.name, *_CTR, "ls").splitlines()]
        (digest,) = (words[2] for words in listed if words[0] == ENDPOINT_IMAGE)
        name = f"{ENDPOINT_IMAGE.split(':', maxsplit=1)[0]}@{digest}"
        if name not in {words[0] for words in listed}:
            hosts.ask(node.name, *_CTR, "tag", ENDPOINT_IMAGE, name)
    return name


def write_fleet(folder: Path, image: str, namespace: str, names: list[str]) -> Path:
    """Write a fleet file of nodes that are free."""
    jobs = {"image": image, "namespace": namespace, "host_paths": HOST_PATHS}
    document = {
        "name": "nodes",
        "kubernetes": jobs,
        "defaults": {
            "launcher": "kubernetes",
            "permission": "listed",
            "gpus": 0,
            "python": f"{sys.prefix}/bin/python",
            "wrapper": ["taskset", "-c", "0"],
        },
        "groups": [{"hosts": names}],
    }
    (folder / "plan.yaml").write_text(PLAN)
    path = folder / "fleet.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def fleet_command(fleet: Path, *options: str) -> list[str]:
    """Return the words that burn a fleet in, on the CPU and for as short as can be."""
    out = ["--plan", str(fleet.parent / "plan.yaml"), "--out", str(fleet.parent / "runs")]
    return [sys.executable, "-m", "overproof", "burnin", "run", str(fleet), *SHORT, *out, *options]


@contextmanager
def burning(fleet: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Burn a fleet in beside the test, and end it with it."""
    said = (fleet.parent / "said").open("w+")
    with (
        said,
        subprocess.Popen(fleet_command(fleet, *options), stdout=said, stderr=said, text=True) as running,
    ):
        try:
            yield running
        finally:
            running.kill()


def run_of(fleet: Path) -> Run:
    """Return the last run of a fleet."""
    return load_run(
        sorted(each for each in (fleet.parent / "runs").glob("*-fleet-*") if not each.is_symlink())[-1]
    )


def states(run: Run) -> dict[str, tuple[str, str]]:
    """Return what became of each host, and why."""
    return {str(row["host"]): (str(row["state"]), str(row["detail"])) for row in read_series(run, "host")}


def pods_of_burnins(api: client.ApiClient, namespace: str) -> dict[str, str]:
    """Return each pod of a burn-in, by its node."""
    found = client.CoreV1Api(api).list_namespaced_pod(namespace, label_selector=RUN_LABEL).items
    return {str(pod.spec.node_name): str(pod.metadata.name) for pod in found}


def is_burning(fleet: Path, *names: str) -> Callable[[], bool]:
    """Return what says whether the agents of these nodes load them by now."""

    def say() -> bool:
        runs = list((fleet.parent / "runs").glob("*-fleet-*/hosts"))
        return bool(runs) and all(
            any('"stage.started"' in line for line in _lines(runs[0] / name / "events.ndjson"))
            for name in names
        )

    return say


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []

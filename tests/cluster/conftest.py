"""What the tests on the cluster share: its API, its hosts, and a namespace of their own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kubernetes import client, config
from kubernetes.config import kube_config

from tests.cluster.kube_days import clear_dead_men
from tests.cluster.plan import KUBECONFIG_VARIABLE, KUBECONFIGS_VARIABLE
from tests.cluster.running import Hosts, read_plan
from tests.conftest import is_worker

# Files that take long, the longest first: handed out in this order, workers end at about the same time.
_LONG = [
    "kube_nodes",
    "kube_days",
    "kube_deadman",
    "kube_service",
    "kube_network",
    "kube_containers",
    "kube_burnin",
    "lifecycle",
    "kube_stock",
    "kube_api_away",
    "kube_faults",
    "nodes",
    "kube_inside",
    "kube_gate",
]


def pytest_configure(config: pytest.Config) -> None:
    """Have each worker of pytest-xdist work on a cluster of its own."""
    if is_worker(config) and KUBECONFIG_VARIABLE in os.environ:
        number = int(config.workerinput["workerid"].removeprefix("gw"))
        given = os.environ.get(KUBECONFIGS_VARIABLE, "").split(os.pathsep)
        if number >= len(given):
            raise pytest.UsageError("the tests on a cluster need one for each worker: make test-cluster")
        os.environ["KUBECONFIG"] = os.environ[KUBECONFIG_VARIABLE] = given[number]
        kube_config.KUBE_CONFIG_DEFAULT_LOCATION = given[number]  # read once, on import


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if is_worker(config):
        ranks = {f"test_{name}.py": rank for rank, name in enumerate(_LONG)}
        items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


@pytest.fixture(scope="session")
def api() -> Iterator[client.ApiClient]:
    with config.new_client_from_config(os.environ[KUBECONFIG_VARIABLE]) as shared:
        yield shared


@pytest.fixture(scope="session")
def hosts() -> Hosts:
    plan = read_plan(Path(os.environ[KUBECONFIG_VARIABLE]).parent)
    if plan is None:
        pytest.skip("the hosts of a cluster that was not started here are not ours to hurt")
    return Hosts(plan=plan)


@contextmanager
def _made(api: client.ApiClient) -> Iterator[str]:
    name = f"test-{secrets.token_hex(3)}"
    core = client.CoreV1Api(api)
    core.create_namespace({"metadata": {"name": name}})
    yield name
    core.delete_namespace(name)


@pytest.fixture
def namespace(api: client.ApiClient) -> Iterator[str]:
    with _made(api) as name:
        yield name


@pytest.fixture(scope="module")
def shared_namespace(api: client.ApiClient) -> Iterator[str]:
    """One for all tests of a file, each of which leaves in it what it found."""
    with _made(api) as name:
        yield name


@pytest.fixture
def no_dead_man_left(api: client.ApiClient) -> Iterator[None]:
    """Afterwards none watches any more."""
    yield
    clear_dead_men(api)

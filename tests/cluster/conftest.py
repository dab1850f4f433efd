"""What the tests on the cluster share: its API, its hosts, and a namespace of their own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kubernetes import client, config

from tests.cluster.plan import KUBECONFIG_VARIABLE
from tests.cluster.running import Hosts, read_plan


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

"""The shipped rights on the cluster of the tests, and commands that have no others."""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from kubernetes import client

from tests.cluster.dead_man import api_of, apply
from tests.cluster.plan import KUBECONFIG_VARIABLE


def grant(*manifests: str) -> None:
    """Apply some of our manifests as an administrator does."""
    for manifest in manifests:
        apply(api_of(os.environ[KUBECONFIG_VARIABLE]), manifest)


def kubeconfig_of(api: client.ApiClient, account: str, folder: Path) -> str:
    """Write a kubeconfig of one of our accounts."""
    request = {"spec": {"audiences": [], "expirationSeconds": 600}}
    core = client.CoreV1Api(api)
    token = core.create_namespaced_service_account_token(account, "overproof", request).status.token
    document = yaml.safe_load(Path(os.environ[KUBECONFIG_VARIABLE]).read_text())
    document["users"][0]["user"] = {"token": token}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return str(path)

"""Whether the nodes of a cluster are ready."""

from __future__ import annotations

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from tests.cluster.plan import Plan

_TIMEOUT_S = 5


def nodes_ready(plan: Plan) -> int:
    """Return how many nodes say that they are ready; none while the API does not answer."""
    settings = client.Configuration()
    config.load_kube_config(str(plan.kubeconfig), client_configuration=settings)
    settings.retries = False
    try:
        with client.ApiClient(settings) as api:
            nodes = client.CoreV1Api(api).list_node(_request_timeout=_TIMEOUT_S).items
    except (ApiException, HTTPError):
        return 0
    return sum(is_ready(node.status.conditions) for node in nodes)


def publish_clocks(plan: Plan) -> None:
    """Say what the API does not show of the controllers' clocks, as the owner of a cluster does."""
    clocks = {
        "node_monitor_grace_s": plan.clocks.node_monitor_grace_s,
        "node_monitor_period_s": plan.clocks.node_monitor_period_s,
        "node_eviction_rate_per_s": plan.clocks.pod_eviction_rate_per_s,
    }
    data = {name: str(value) for name, value in clocks.items()}
    with config.new_client_from_config(str(plan.kubeconfig)) as api:
        client.CoreV1Api(api).create_namespaced_config_map(
            "kube-public", {"metadata": {"name": "overproof-clocks"}, "data": data}
        )


def is_ready(conditions: list[client.V1NodeCondition] | None) -> bool:
    """Say whether the conditions of a node or a pod name it ready."""
    return any(each.type == "Ready" and each.status == "True" for each in conditions or [])

"""The host of the control plane: etcd, the API, controllers and scheduler, and the wires between all hosts.

It also routes services for the machine outside, with a kube-proxy of its own, so that the loss of a
worker does not cut them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from probes.json_types import JsonObject
from tests.cluster.host import enter_namespaces, join_control_group, supervise, write_script
from tests.cluster.node import proxy_service, write_node_scripts
from tests.cluster.plan import CONTROL_PLANE, Plan

BRIDGE = "nodes"
UPLINK = "machine"  # the cluster's end of the wire to the machine
# Nobody else asks this API: sparing it would make a thousand nodes a matter of minutes.
_QPS, _BURST = 300, 600
# What follows is for a cluster without workers, whose thousand nodes are simulated and all alike.
_COMPARED_PERCENT = 5  # of the nodes by the scheduler for a pod: by itself it looks at 42
_CONTROLLERS = (
    "*,-ttl-controller,-persistentvolume-attach-detach-controller"  # the two write to each node, in vain
)
_GARBAGE_PERCENT = 400  # the programs may hold more memory, and spend less on giving it back


def write_control_plane(plan: Plan, programs: Mapping[str, Path]) -> Path:
    """Write the scripts of every host and return the one that starts the cluster."""
    folder = plan.folder / CONTROL_PLANE
    folder.mkdir()
    services = {
        "etcd": _etcd(plan, programs["etcd"]),
        "kube-apiserver": _api(plan, programs["kube-apiserver"]),
        "kube-controller-manager": _controllers(plan, programs["kube-controller-manager"]),
        "kube-scheduler": _scheduler(plan, folder, programs["kube-scheduler"]),
        **{node.name: ["sh", str(write_node_scripts(plan, node, programs))] for node in plan.nodes},
    }
    if not plan.nodes:
        inside = write_script(
            folder / "inside.sh",
            [*_network(plan), f"export GOGC={_GARBAGE_PERCENT}", supervise(folder, services)],
        )
        # In the control group of whoever starts it: its work is the starter's, at the starter's weight.
        return write_script(folder / "start.sh", [enter_namespaces(inside, more="--net")])
    proxy = programs["kube-proxy"]
    services["kube-proxy"] = proxy_service(plan, folder, name=CONTROL_PLANE, program=proxy)
    inside = write_script(folder / "inside.sh", [*_network(plan), supervise(folder, services)])
    group = f"{plan.control_groups}/{CONTROL_PLANE}"
    return write_script(
        folder / "start.sh", [join_control_group(group), enter_namespaces(inside, more="--net")]
    )


def _network(plan: Plan) -> list[str]:
    """Return the lines that make the network of the nodes; below a /run of its own: nobody else sees it."""
    return [
        "mount -t tmpfs tmpfs /run",
        f"hostname {CONTROL_PLANE}",
        "ip link set lo up",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        f"ip link add {BRIDGE} type bridge",
        f"ip addr add {plan.address}/24 dev {BRIDGE}",
        f"ip link set {BRIDGE} up",
        *(f"ip route add {node.pods} via {node.address}" for node in plan.nodes),
    ]


def _etcd(plan: Plan, program: Path) -> list[str]:
    return [
        str(program),
        f"--data-dir={plan.folder}/etcd",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=default=http://127.0.0.1:2380",
        "--unsafe-no-fsync",  # the cluster is not meant to outlive the machine
        "--log-level=warn",
    ]


def _api(plan: Plan, program: Path) -> list[str]:
    pki = plan.folder / "pki"
    return [
        str(program),
        f"--advertise-address={plan.address}",
        "--secure-port=6443",
        "--etcd-servers=http://127.0.0.1:2379",
        f"--service-cluster-ip-range={plan.services}",
        "--enable-aggregator-routing",  # other APIs are asked at their endpoints: no service is routed here
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/api.crt",
        f"--tls-private-key-file={pki}/api.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/api-to-kubelet.crt",
        f"--kubelet-client-key={pki}/api-to-kubelet.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/service-accounts.key",
        f"--service-account-signing-key-file={pki}/service-accounts.key",
        f"--requestheader-client-ca-file={pki}/ca.crt",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki}/front-proxy.crt",
        f"--proxy-client-key-file={pki}/front-proxy.key",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        *([] if plan.nodes else ["--disable-admission-plugins=TaintNodesByCondition"]),  # made ready
        f"--default-not-ready-toleration-seconds={plan.clocks.toleration_s}",
        f"--default-unreachable-toleration-seconds={plan.clocks.toleration_s}",
        "--profiling=false",
    ]


def _controllers(plan: Plan, program: Path) -> list[str]:
    pki, clocks = plan.folder / "pki", plan.clocks
    kubeconfig = f"{pki}/kube-controller-manager.kubeconfig"
    return [
        str(program),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        f"--kube-api-qps={_QPS}",
        f"--kube-api-burst={_BURST}",
        *([] if plan.nodes else [f"--controllers={_CONTROLLERS}"]),
        "--use-service-account-credentials",
        f"--service-account-private-key-file={pki}/service-accounts.key",
        f"--root-ca-file={pki}/ca.crt",
        f"--node-monitor-period={clocks.node_monitor_period_s}s",
        f"--node-monitor-grace-period={clocks.node_monitor_grace_s}s",
        f"--node-eviction-rate={clocks.pod_eviction_rate_per_s}",
        f"--horizontal-pod-autoscaler-sync-period={clocks.autoscaler_s}s",
        "--profiling=false",
    ]


def _scheduler(plan: Plan, folder: Path, program: Path) -> list[str]:
    kubeconfig = f"{plan.folder}/pki/kube-scheduler.kubeconfig"
    settings: JsonObject = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig, "qps": _QPS, "burst": _BURST},
        "leaderElection": {"leaderElect": False},
    }
    if not plan.nodes:
        no_spread = {"name": "PodTopologySpread", "args": {"defaultingType": "List"}}
        profile = {"schedulerName": "default-scheduler", "pluginConfig": [no_spread]}
        settings |= {"percentageOfNodesToScore": _COMPARED_PERCENT, "profiles": [profile]}
    path = folder / "kube-scheduler.json"
    path.write_text(json.dumps(settings, indent=1))
    return [
        str(program),
        f"--config={path}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        "--profiling=false",
    ]

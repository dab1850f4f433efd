"""A worker: containerd, kubelet and kube-proxy at their usual places, in namespaces of their own."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.host import (
    enter_namespaces,
    join_control_group,
    mount_control_groups,
    supervise,
    write_script,
)
from tests.cluster.plan import CONTROL_PLANE, Node, Plan

PAUSE_IMAGE = "overproof.test/pause:1"
SOCKET = "/run/containerd/containerd.sock"
BOOT_ID = "boot_id"  # each node is a machine of its own to whoever asks
# A kubelet sets these for the whole machine unless they have this value; a node shows it files that do.
_TUNABLES = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
_CONTAINERD = """\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
# Without CAP_SYS_RESOURCE nobody may lower what a process inherited.
oom_score = 0
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder}/cni"
"""


def write_node_scripts(plan: Plan, node: Node, programs: Mapping[str, Path]) -> Path:
    """Write all files of a worker and return the script that switches it on, again and again."""
    folder = node.folder
    for name in ("cni", "lib", "log", "tunables"):
        (folder / name).mkdir(parents=True)
    (folder / "containerd.toml").write_text(
        _CONTAINERD.format(socket=SOCKET, pause=PAUSE_IMAGE, folder=folder)
    )
    (folder / "cni" / "pods.conflist").write_text(json.dumps(_pod_network(node)))
    (folder / "kubelet.json").write_text(json.dumps(_kubelet_settings(plan, node), indent=1))
    for name, value in _TUNABLES.items():
        (folder / "tunables" / name.replace("/", ".")).write_text(f"{value}\n")
    (folder / BOOT_ID).write_text(f"{uuid.uuid4()}\n")
    services = {
        "containerd": ["containerd", "--config", f"{folder}/containerd.toml"],
        "kubelet": _kubelet(plan, node, programs["kubelet"]),
        "kube-proxy": proxy_service(plan, folder, name=node.name, program=programs["kube-proxy"]),
    }
    inside = write_script(folder / "inside.sh", [*_machine(plan, node), supervise(folder, services)])
    lines = [*_wire(plan, node), join_control_group(f"{plan.control_groups}/{node.name}")]
    lines.append(f"exec ip netns exec {node.name} {enter_namespaces(inside, more='--cgroup')[5:]}")
    return write_script(folder / "start.sh", lines)


def _wire(plan: Plan, node: Node) -> list[str]:
    """Return the lines that give the node a wire to the others; they run on the control plane's host."""
    name = node.name
    return [
        f"ip netns del {name} 2>/dev/null || true",
        f"ip netns add {name}",
        f"ip link add {name} type veth peer name eth0 netns {name}",
        f"ip link set {name} master nodes up",
        f"ip -n {name} link set lo up",
        f"ip -n {name} addr add {node.address}/24 dev eth0",
        f"ip -n {name} link set eth0 up",
        f"ip -n {name} route add default via {plan.address}",
        *(
            f"ip -n {name} route add {other.pods} via {other.address}"
            for other in plan.nodes
            if other.name != name
        ),
    ]


def _machine(plan: Plan, node: Node) -> list[str]:
    """Return the lines that make it look like a machine of its own: names, folders, control groups."""
    folder = node.folder
    tunables = (f"mount --bind {folder}/tunables/{n.replace('/', '.')} /proc/sys/{n}" for n in _TUNABLES)
    return [
        f"hostname {node.name}",
        "mount -t tmpfs tmpfs /run",
        f"mount --bind {folder}/log /var/log",
        f"mount --bind {folder}/lib /var/lib",
        mount_control_groups(),
        *tunables,
        f"mount --bind {folder}/{BOOT_ID} /proc/sys/kernel/random/boot_id",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
    ]


def _pod_network(node: Node) -> dict[str, object]:
    routed = {"type": "ptp", "mtu": 1500, "ipam": _addresses(node)}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [routed, ports]}


def _addresses(node: Node) -> dict[str, object]:
    ranges = [[{"subnet": node.pods}]]
    return {
        "type": "host-local",
        "dataDir": "/run/cni",
        "ranges": ranges,
        "routes": [{"dst": "0.0.0.0/0"}],
    }


def _kubelet_settings(plan: Plan, node: Node) -> dict[str, object]:
    pki, clocks = plan.folder / "pki", plan.clocks
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{pki}/{node.name}.crt",
        "tlsPrivateKeyFile": f"{pki}/{node.name}.key",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "protectKernelDefaults": True,  # says so instead of setting what belongs to the whole machine
        "oomScoreAdj": 0,
        "maxOpenFiles": 10000,
        "resolvConf": "",
        "clusterDomain": "cluster.local",
        "nodeStatusUpdateFrequency": f"{clocks.status_update_s}s",
        "nodeStatusReportFrequency": f"{clocks.status_update_s * 5}s",
        "nodeLeaseDurationSeconds": clocks.lease_duration_s,
        # The disk is the machine's, and how full it is, is not what the tests are about.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "100Mi",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "100Mi",
            "imagefs.inodesFree": "1%",
        },
    }


def _kubelet(plan: Plan, node: Node, program: Path) -> list[str]:
    labels = f"topology.kubernetes.io/zone={node.zone},topology.kubernetes.io/region=test"
    return [
        str(program),
        f"--config={node.folder}/kubelet.json",
        f"--kubeconfig={plan.folder}/pki/{node.name}.kubeconfig",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--node-labels={labels}",
    ]


def proxy_service(plan: Plan, folder: Path, *, name: str, program: Path) -> list[str]:
    """Write the settings of a host's kube-proxy and return its command."""
    settings = folder / "kube-proxy.json"
    settings.write_text(json.dumps(_proxy_settings(plan, name), indent=1))
    return [str(program), f"--config={settings}"]


def _proxy_settings(plan: Plan, name: str) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{plan.folder}/pki/kube-proxy.kubeconfig"},
        "bindAddress": plan.address if name == CONTROL_PLANE else "0.0.0.0",
        "hostnameOverride": name,
        "clusterCIDR": plan.pods,
        "mode": "iptables",
        "iptables": {"minSyncPeriod": "0s"},
        # The limits of connection tracking belong to the whole machine.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "oomScoreAdj": 0,
    }

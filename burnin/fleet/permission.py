"""Whether a host is free for a burn-in: drained or reserved, as Slurm or Kubernetes says.

A host that still does somebody's work is not free, whatever else is said of it. Who does not answer has not
permitted anything.
"""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from burnin.fleet.host import Host
from probes.errors import TargetError
from probes.json_types import JsonObject
from probes.kubernetes_api import KubeClient

DRAINED, RESERVED, IDLE = "drained", "reserved", "idle"
ANSWER_WITHIN_S = 30.0
GPU_RESOURCE_PARTS = ("/gpu", "/mig-")  # nvidia.com/gpu, amd.com/gpu, nvidia.com/mig-1g.10gb
_BUSY_STATES = {"ALLOCATED", "MIXED", "COMPLETING"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """What was said of one host."""

    kind: str | None  # DRAINED, RESERVED or IDLE; None: it is not free
    detail: str  # who says so, or why it is not free


def with_permission(hosts: Sequence[Host], said: Mapping[str, Permission]) -> tuple[Host, ...]:
    """Return the hosts with what was said of them; one that is listed as free by hand stays so."""
    nothing = Permission(kind=None, detail="")
    return tuple(
        host if host.permission else replace(host, permission=said.get(host.name, nothing).kind)
        for host in hosts
    )


def ask_slurm(
    names: Sequence[str], *, environment: Mapping[str, str] | None = None, within_s: float = ANSWER_WITHIN_S
) -> dict[str, Permission]:
    """Ask Slurm for each node.

    Raises:
        TargetError: Slurm does not answer, or is not installed here.
    """
    environment = os.environ if environment is None else environment
    nodes = {fields["NodeName"]: fields for fields in _records("node", environment, within_s)}
    reserved = _reserved_nodes(environment, within_s)
    own = _own_nodes(environment, within_s)
    return {name: judge_slurm_node(name, nodes.get(name), reserved, own) for name in names}


def judge_slurm_node(
    name: str, node: Mapping[str, str] | None, reserved: Mapping[str, str], own: Mapping[str, str]
) -> Permission:
    """Say whether one node is free, from what Slurm shows of it, of its reservations and of our own job."""
    if node is None:
        return Permission(kind=None, detail=f"Slurm has no node {name}")
    states = {state.rstrip("*~#!%$@^-") for state in node["State"].split("+")}
    if name in own:
        return Permission(kind=RESERVED, detail=own[name])
    if states & _BUSY_STATES:
        return Permission(kind=None, detail=f"runs jobs (state {node['State']})")
    if "DRAIN" in states:
        return Permission(kind=DRAINED, detail=f"drained in Slurm: {node.get('Reason', 'no reason given')}")
    if name in reserved:
        return Permission(kind=RESERVED, detail=reserved[name])
    return Permission(kind=None, detail=f"neither drained nor reserved for us (state {node['State']})")


def _reserved_nodes(environment: Mapping[str, str], within_s: float) -> dict[str, str]:
    """Return the nodes of the active reservations that name this user."""
    user, found = getpass.getuser(), {}
    for fields in _records("reservation", environment, within_s):
        if fields.get("State") != "ACTIVE" or user not in fields.get("Users", "").split(","):
            continue
        for name in node_names(fields.get("Nodes", ""), environment, within_s=within_s):
            found[name] = f"reservation {fields['ReservationName']} for {user}"
    return found


def _own_nodes(environment: Mapping[str, str], within_s: float) -> dict[str, str]:
    """Return the nodes of the job that we run in, if nobody shares them with us."""
    job = environment.get("SLURM_JOB_ID")
    if not job:
        return {}
    shown = _fields(slurm_says(["scontrol", "show", "job", "-o", job], environment, within_s=within_s))
    if shown.get("OverSubscribe") != "NO":
        return {}
    names = node_names(shown.get("NodeList", ""), environment, within_s=within_s)
    return dict.fromkeys(names, f"our own exclusive job {job}")


def node_names(nodes: str, environment: Mapping[str, str], *, within_s: float) -> list[str]:
    """Return the names that a list of Slurm's stands for, such as ``gpu[01-16]``."""
    if nodes in ("", "(null)"):
        return []
    return slurm_says(["scontrol", "show", "hostnames", nodes], environment, within_s=within_s).split()


def _records(what: str, environment: Mapping[str, str], within_s: float) -> list[dict[str, str]]:
    said = slurm_says(["scontrol", "show", what, "-o"], environment, within_s=within_s)
    return [_fields(line) for line in said.splitlines() if "=" in line]


def _fields(line: str) -> dict[str, str]:
    """Return the fields of one line of scontrol; the reason comes last and may hold spaces."""
    head, _, reason = line.partition(" Reason=")
    fields = dict(part.split("=", 1) for part in head.split() if "=" in part)
    return fields | ({"Reason": reason.strip()} if reason and "NodeName" in fields else {})


def slurm_says(command: Sequence[str], environment: Mapping[str, str], *, within_s: float) -> str:
    """Run one of Slurm's commands and return what it said.

    Raises:
        TargetError: it is not there, fails, or does not answer in time.
    """
    what = " ".join(command[:3])
    try:
        done = subprocess.run(
            list(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
    except OSError as error:
        raise TargetError(f"{what}: {error.strerror}; are Slurm's commands installed here?") from error
    except subprocess.TimeoutExpired as error:
        raise TargetError(
            f"{what}: no answer within {within_s:.0f} s; see whether slurmctld runs: scontrol ping"
        ) from error
    if done.returncode != 0:
        raise TargetError(f"{what}: {done.stderr.strip()[-300:] or f'exit code {done.returncode}'}")
    return done.stdout


def ask_kubernetes(
    names: Sequence[str], client: KubeClient, *, is_idle_enough: bool = False
) -> dict[str, Permission]:
    """Ask a cluster for each node.

    Where idle is enough, nodes need not be cordoned: our Job asks for all GPUs of its node, so that nobody
    else gets any meanwhile.

    Raises:
        TargetError: the cluster does not answer or refuses.
    """
    nodes = {str(node["metadata"]["name"]): node for node in client.listed("/api/v1/nodes")}
    going = "status.phase!=Succeeded,status.phase!=Failed"
    holders: dict[str, list[str]] = {}
    for pod in client.listed("/api/v1/pods", fieldSelector=going):
        if _holds_gpu(pod["spec"]["containers"]):
            name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            holders.setdefault(str(pod["spec"].get("nodeName")), []).append(name)
    return {
        name: judge_kubernetes_node(
            name, nodes.get(name), holders.get(name, []), is_idle_enough=is_idle_enough
        )
        for name in names
    }


def judge_kubernetes_node(
    name: str, node: JsonObject | None, holders: Sequence[str], *, is_idle_enough: bool = False
) -> Permission:
    """Say whether one node is free: cordoned, unless idle is enough, and no pod on it holds a GPU."""
    if node is None:
        return Permission(kind=None, detail=f"the cluster has no node {name}")
    is_cordoned = bool(node["spec"].get("unschedulable"))
    if not is_cordoned and not is_idle_enough:
        return Permission(kind=None, detail="not cordoned")
    if holders:
        return Permission(kind=None, detail=f"{', '.join(sorted(holders)[:3])} holds GPUs of it")
    if not is_cordoned:
        return Permission(kind=IDLE, detail="no pod holds a GPU")
    return Permission(kind=DRAINED, detail="cordoned, and no pod holds a GPU")


def _holds_gpu(containers: Iterable[JsonObject]) -> bool:
    limits = [(each.get("resources") or {}).get("limits") or {} for each in containers]
    return any(part in resource for each in limits for resource in each for part in GPU_RESOURCE_PARTS)

"""The platform's own clocks: what has to pass before the cluster itself acts on a node that is lost.

The duration of a lease, tolerations, and how long pods took to start are read from the cluster. What its API
does not show are settings of its controllers: stated by the experiment, else published by the cluster's owner
in the ConfigMap ``overproof-clocks`` of ``kube-public``, else taken to be as Kubernetes has them by default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from experiments.faults.fault import FaultRefused
from experiments.kube.choosing.allowed import read_or_none
from experiments.kube.client import FORBIDDEN, ApiRefused, KubeClient
from experiments.kube.pods.pod import moment, restarts_of
from probes.errors import ConfigError
from probes.json_types import JsonObject

PUBLISHED = "/api/v1/namespaces/kube-public/configmaps/overproof-clocks"
STATED, BY_OWNER, ASSUMED, BUILT_IN = "stated", "published", "assumed", "built in"
# Of Kubernetes 1.32 and later; the grace was 40 s before.
DEFAULTS = {"node_monitor_grace_s": 50.0, "node_monitor_period_s": 5.0, "node_eviction_rate_per_s": 0.1}
UNREACHABLE = "node.kubernetes.io/unreachable"
EVERYTHING_S = 300.0  # of a pod that states none: what the API server adds where nobody has told it otherwise
SLACK_S = 10.0  # for what has no clock of its own: the scheduler, the kubelet, a busy API, rounding
START_S_MIN = 2.0  # to be scheduled and started: the API tells both to the second


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """In seconds, for one loss of some nodes."""

    lease_s: float  # of the lease that a kubelet renews in a quarter of it
    grace_s: float  # silence after which a node is not ready
    period_s: float  # how often that is looked at
    toleration_s: float  # how long its pods stay on it then
    queue_s: float  # that the last of several nodes waits for its turn
    start_s: float  # from being made to running, as the pods that are there have shown
    known_by: dict[str, str]  # who says so, of each that the API does not show
    leave_by: str = "their tolerations"  # what has its pods leave it

    @property
    def platform_s(self) -> float:
        """From the loss until other pods run in the place of those that were lost."""
        return self.grace_s + self.period_s + self.toleration_s + self.queue_s + self.start_s

    @property
    def is_assumed(self) -> bool:
        """Whether one of them is no more than a default."""
        return ASSUMED in self.known_by.values()

    def words(self) -> str:
        """Return the sum as a person would check it."""
        by = self.known_by["node_monitor_grace_s"]
        parts = [f"{self.grace_s:g} s until a node is missed ({by}), looked at each {self.period_s:g} s"]
        parts.append(f"{self.toleration_s:g} s until its pods leave it ({self.leave_by})")
        parts += [f"{self.queue_s:g} s in turn"] if self.queue_s else []
        parts.append(f"{self.start_s:g} s to start others (as these have taken)")
        return f"the platform itself takes {self.platform_s:g} s: {', '.join(parts)}"

    def to_json(self) -> JsonObject:
        """Return them as plain JSON, for ledger and timeline."""
        return asdict(self)


def clocks_from_json(row: JsonObject) -> Clocks:
    """Return the clocks that ``to_json`` wrote."""
    return Clocks(**row)


def lease_path(node: str) -> str:
    """Return where the API keeps the lease of a node."""
    return f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}"


def read_clocks(
    client: KubeClient, stated: Mapping[str, float], nodes: Sequence[str], pods: Sequence[JsonObject]
) -> Clocks:
    """Read the clocks for the loss of these nodes, with these pods on them.

    Raises:
        FaultRefused: a node has no lease, or what is published is no number of seconds.
        TargetError: the API does not answer, or does not let us.
    """
    leases = [read_or_none(client, lease_path(node)) for node in nodes]
    if None in leases:
        raise FaultRefused(f"node {nodes[leases.index(None)]}: has no lease, so nobody would miss it")
    settings, known_by = settings_of(stated, _published(client))
    return Clocks(
        lease_s=max(float(lease["spec"]["leaseDurationSeconds"]) for lease in leases if lease),
        grace_s=settings["node_monitor_grace_s"],
        period_s=settings["node_monitor_period_s"],
        toleration_s=max((tolerated_s(pod) for pod in pods), default=0.0),
        queue_s=round((len(nodes) - 1) / settings["node_eviction_rate_per_s"], 1),
        start_s=started_within_s(pods),
        known_by=known_by,
    )


def _published(client: KubeClient) -> Mapping[str, str]:
    try:
        found = read_or_none(client, PUBLISHED)
    except ApiRefused as error:
        if error.status != FORBIDDEN:
            raise
        found = None  # who may not look at it has none
    return (found or {}).get("data") or {}


def settings_of(
    stated: Mapping[str, float], published: Mapping[str, str]
) -> tuple[dict[str, float], dict[str, str]]:
    """Return each setting, and who says so.

    Raises:
        FaultRefused: what is published is no number of seconds.
    """
    settings, known_by = dict(DEFAULTS), dict.fromkeys(DEFAULTS, ASSUMED)
    for name in DEFAULTS:
        if name in stated:
            settings[name], known_by[name] = stated[name], STATED
        elif name in published:
            settings[name], known_by[name] = _number(name, published[name]), BY_OWNER
    return settings, known_by


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 86400:
        raise FaultRefused(f"ConfigMap kube-public/overproof-clocks: {name}: wanted a number, got {text!r}")
    return value


def tolerated_s(pod: JsonObject) -> float:
    """Return how long a pod stays on a node that cannot be reached.

    Raises:
        FaultRefused: it stays for good.
    """
    found = [row for row in pod["spec"].get("tolerations") or [] if _is_of_unreachable(row)]
    if not found:
        return 0.0  # it has to leave at once
    seconds = [row.get("tolerationSeconds") for row in found]
    if None in seconds:
        name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        raise FaultRefused(f"{name}: tolerates a lost node for good, so nothing would take its place")
    return float(max(each for each in seconds if each is not None))


def _is_of_unreachable(row: JsonObject) -> bool:
    is_meant = row.get("key") in (UNREACHABLE, None, "")
    return is_meant and row.get("effect") in ("NoExecute", None, "")


def started_within_s(pods: Iterable[JsonObject]) -> float:
    """Return how long the slowest of these pods took from being made until its containers ran."""
    took_s = [START_S_MIN]
    for pod in pods:
        if restarts_of(pod):
            continue  # it tells only when it was started last
        made = moment(pod["metadata"]["creationTimestamp"])
        states = [
            each.get("state") or {} for each in (pod.get("status") or {}).get("containerStatuses") or []
        ]
        began = [
            moment(s["running"]["startedAt"]) for s in states if (s.get("running") or {}).get("startedAt")
        ]
        took_s += [(each - made).total_seconds() for each in began]
    return max(took_s)


def clocks_of(fault: str, clocks: Clocks) -> Clocks:
    """Return the clocks of a fault; where the garbage collector of pods decides, its own are built in.

    It looks each 20 s. Of a node that is no object any more it lets 40 s pass from one look to the next;
    the pods of one that is out of service it forgets at once.
    """
    by = "the garbage collector of pods"
    if fault == "node.out-of-service":
        return replace(clocks, toleration_s=20.0, queue_s=0.0, leave_by=by)
    if fault != "node.delete":
        return clocks
    known_by = clocks.known_by | {"node_monitor_grace_s": BUILT_IN}
    return replace(
        clocks, grace_s=20.0, period_s=20.0, toleration_s=40.0, queue_s=0.0, known_by=known_by, leave_by=by
    )


def check_recovery(captured: JsonObject, recovery_s: float) -> None:
    """See that the expectation is one that this cluster can meet at all.

    Raises:
        ConfigError: the platform alone takes longer.
    """
    if recovery_s <= (wait_s := captured.get("back_off_s", 0.0)):
        raise ConfigError(
            f"recovery_s: {recovery_s:g} s is what no kubelet can meet now: a container that is to be hit "
            f"was started anew too often of late, so it may wait {wait_s:.0f} s before it starts it again; "
            "come back later, or replace the pod"
        )
    if captured.get("clocks") and recovery_s <= (clocks := clocks_from_json(captured["clocks"])).platform_s:
        raise ConfigError(
            f"recovery_s: {recovery_s:g} s is what no node of this cluster can meet: {clocks.words()}"
        )

"""The faults of our own way to the API: a relay on this machine holds back what passes, for a bounded time.

The platform is not touched. What is tested is that what serves goes on without the control plane being
reached from here, and that our own evidence says what it could not see.
"""

from __future__ import annotations

import os
import time

from experiments.faults.fault import UNDO, Fault, FaultRefused, Undoing, Verification
from experiments.injecting.bounds import being_planned
from experiments.kube.api.relay import HANG, PASS, REFUSE, SLOW
from experiments.kube.api.way import RelayAt, read_relay, why_no_way
from experiments.kube.choosing.aim import Aim
from experiments.kube.choosing.allowed import check_namespaces
from experiments.kube.choosing.capture import base_of
from experiments.kube.client import KubeClient, connect
from experiments.kube.cluster import Cluster, Identity, cluster_from_json
from experiments.kube.deadman.lease import LEASE_S
from experiments.kube.deadman.lease import RENEW_EVERY_S as BEAT_EVERY_S
from experiments.kube.faults import A_CLUSTER, subject_of
from experiments.kube.lock import LOCK_S, RENEW_EVERY_S
from experiments.kube.pods.workloads import find_workloads
from experiments.kube.watching.pod_view import PodView
from probes.errors import TargetError
from probes.json_types import JsonObject
from probes.kubernetes_api import DEADLINE_S, RELAY_VARIABLE, connect_api

# How long both may go without us: they are renewed before and after, and either call may take its time.
LOCK_BEARS_S = LOCK_S - 2 * (RENEW_EVERY_S + DEADLINE_S)
DEAD_MAN_BEARS_S = LEASE_S - 4 * BEAT_EVERY_S
SLOW_S_MAX = 600.0
DELAY_MS_MAX = 1000.0  # a new connection takes four times as long, and has five seconds
_AWAY_S = 3.0  # without an answer
_LOOK = "/api/v1/namespaces/kube-system"
_LATEST_S = 60.0  # after it was captured until it has to be injected


def capture_api(
    fault: str,
    aim: Aim,
    client: KubeClient,
    identity: Identity,
    *,
    kind: str,
    delay_ms: float,
    for_s: float,
) -> JsonObject:
    """Return what being in our own way needs.

    Raises:
        FaultRefused: it would last longer than lock or dead-man bear, or there can be no relay.
    """
    _check_bounds(aim.cluster, kind, delay_ms, for_s)
    if why := why_no_way(aim.cluster):
        raise FaultRefused(why)
    view = PodView(client, aim.cluster.namespaces)
    view.refresh()
    victim = {"name": f"our way to {identity.context}", "identity": identity.uid, "what": identity.server}
    captured = base_of(
        fault, aim, identity, victims=[victim], others=[], at_once=0, hit=[],
        workloads=find_workloads(client, view.pods),
        carries=_carries(aim.cluster, kind, delay_ms, for_s),
    )  # fmt: skip
    captured["arguments"] = {"kind": kind, "delay_s": delay_ms / 1000, "for_s": for_s}
    if being_planned() is None:
        captured["relay"] = os.environ.get(RELAY_VARIABLE, "")
        captured["at"] = {"host": os.uname().nodename, "over_ns": time.time_ns() + _ns(for_s + _LATEST_S)}
    return captured


def _check_bounds(cluster: Cluster, kind: str, delay_ms: float, for_s: float) -> None:
    if kind not in (SLOW, HANG, REFUSE):
        raise FaultRefused(f"how: wanted {HANG} or {REFUSE}, got {kind!r}")
    if kind == SLOW and not 0 < delay_ms <= DELAY_MS_MAX:
        raise FaultRefused(
            f"delay_ms: wanted more than 0, at most {DELAY_MS_MAX:g}: beyond it calls would run out "
            f"of time; got {delay_ms!r}"
        )
    longest_s, why = LOCK_BEARS_S, f"the day's lock is another's {LOCK_S} s after we last renewed it"
    if kind == SLOW:
        longest_s, why = SLOW_S_MAX, "no more is needed"
    elif cluster.dead_man is not None:
        longest_s, why = DEAD_MAN_BEARS_S, f"the dead-man counts us as gone after {LEASE_S} s of silence"
    if not 0 < for_s <= longest_s:
        raise FaultRefused(f"for_s: wanted more than 0, at most {longest_s:g}: {why}; got {for_s!r}")


def _carries(cluster: Cluster, kind: str, delay_ms: float, for_s: float) -> list[str]:
    what = f"comes {delay_ms:g} ms later, each way" if kind == SLOW else "does not come through"
    said = [
        f"what this game day asks of the API {what}, by a relay on this machine; nobody else is touched",
        f"when we are killed: over at once, the relay ends with us; else after {for_s:g} s by its own clock",
    ]
    if kind != SLOW:
        said.append("what the cluster does meanwhile is not seen, and counts as unseen")
    if kind != SLOW and cluster.dead_man is not None:
        said.append(f"the dead-man bears it: {LEASE_S} s of silence are what it takes for our end")
    return said


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def recheck_api(captured: JsonObject) -> None:
    """See that the namespaces may still be hit, and that our way goes through a relay with nothing in it.

    Raises:
        FaultRefused: not so.
    """
    cluster = cluster_from_json(captured["cluster"])
    check_namespaces(connect(cluster), cluster.namespaces)
    relay = read_relay(captured["relay"])
    if not relay.is_running or relay.tell("GET")["kind"] != PASS:
        raise FaultRefused(f"relay to the API, process {relay.pid}: is gone, or is in the way already")


def be_in_the_way(captured: JsonObject) -> None:
    """Have the relay hold back what passes."""
    read_relay(captured["relay"]).tell("PUT", captured["arguments"])


def verify_api(captured: JsonObject) -> Verification:
    """See that our own way is as it is to be, and that the API itself is well without it."""
    cluster, wanted = cluster_from_json(captured["cluster"]), captured["arguments"]
    is_slow = wanted["kind"] == SLOW
    through_s, said = _asked(connect(cluster), within_s=DEADLINE_S if is_slow else _AWAY_S)
    to_others = connect_api(cluster.kubeconfig, cluster.context, is_direct=True)
    direct_s, direct = _asked(to_others, within_s=DEADLINE_S)
    if direct_s is None:
        return Verification(is_verified=False, observed=f"the API is away for others too: {direct}")
    beside = f"it answers others in {direct_s:.2f} s"
    if is_slow:
        is_later = through_s is not None and through_s >= max(2 * wanted["delay_s"], direct_s)
        took = said if through_s is None else f"the API answers us in {through_s:.2f} s"
        return Verification(is_verified=is_later, observed=f"{took}; {beside}")
    observed = f"no answer to us: {said}" if through_s is None else f"it answers us in {through_s:.2f} s"
    return Verification(is_verified=through_s is None, observed=f"{observed}; {beside}")


def _asked(client: KubeClient, *, within_s: float) -> tuple[float | None, str]:
    """Return how long an answer took; None: there was none, and why."""
    began = time.monotonic()
    try:
        client.ask("GET", _LOOK, within_s=within_s)
    except TargetError as error:
        return None, str(error)
    return time.monotonic() - began, ""


def undo_api(captured: JsonObject) -> Undoing:
    """Get out of our own way, and see by a call through it that the API answers.

    Raises:
        TargetError: it does not, or the relay does not hear us.
    """
    at = captured["at"]
    if at["host"] != os.uname().nodename:
        return _undone_elsewhere(at)
    did, has_acted, ended_ns = "the relay is gone, and what it held back with it", False, 0
    relay = _relay_of(captured)
    if relay is not None and relay.is_running:
        before = relay.tell("GET")
        after = relay.tell("DELETE")
        has_acted, ended_ns = before["kind"] != PASS, int(after["ended_ns"])
        did = f"ended by {after['ended_by']}" if ended_ns else "nothing was in our way"
    uid, cluster = str(captured["identity"]["uid"]), cluster_from_json(captured["cluster"])
    began = time.monotonic()
    found = connect(cluster).identity()
    took_s = time.monotonic() - began
    if found.uid != uid:
        raise TargetError(f"{found} answers, and is not the cluster that was planned ({uid})")
    ago_s = max(0.0, (time.time_ns() - ended_ns) / 1e9) if ended_ns else 0.0
    did = f"{did}; the API answers in {took_s:.2f} s"
    return Undoing(is_restored=True, did=did, has_acted=has_acted, ago_s=ago_s)


def _relay_of(captured: JsonObject) -> RelayAt | None:
    try:
        return read_relay(captured["relay"])
    except TargetError:  # the day has ended, and has taken its file away
        return None


def _undone_elsewhere(at: JsonObject) -> Undoing:
    """Say of a relay on another machine what is sure: that its time is over."""
    left_s = (int(at["over_ns"]) - time.time_ns()) / 1e9
    if left_s > 0:
        raise TargetError(f"a relay on {at['host']} was in its way: over by itself in {left_s:.0f} s at most")
    did = f"over by the clock of the relay on {at['host']}; not seen from here"
    return Undoing(is_restored=True, did=did, has_acted=False, is_seen=False)


def _fault(name: str) -> Fault:
    return Fault(
        name=name,
        fidelity="K",
        ends_by=UNDO,
        subject=subject_of,
        recheck=recheck_api,
        inject=be_in_the_way,
        verify=verify_api,
        undo=undo_api,
        needs=(A_CLUSTER, "an API that is reached by TLS, and by no proxy"),
        covers=("control-plane",),
        is_undone_anywhere=True,
    )


API_SLOW = _fault("api.slow")
API_AWAY = _fault("api.away")

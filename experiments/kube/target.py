"""A Kubernetes cluster as the target of a game day; labels in it say what may be hit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from experiments.day import Day
from experiments.declared.fault import NAME as DECLARED
from experiments.declared.target import folder_of, judge_declared, reached_at, taken_folder
from experiments.evidence import Evidence
from experiments.experiment import Experiment
from experiments.faults.fault import PLATFORM
from experiments.impact.recovery import Times
from experiments.injecting.permission import Condition, look_at_declared_leftovers
from experiments.kube.api.judging import judge_sight
from experiments.kube.api.way import WayToApi, needs_way
from experiments.kube.choosing.aim import Aim, aiming_at
from experiments.kube.choosing.capture import is_node
from experiments.kube.choosing.conditions import look_at_cluster
from experiments.kube.cluster import Cluster
from experiments.kube.deadman.hold import DeadManHold
from experiments.kube.deadman.objects import DeadManSettings
from experiments.kube.judging import judge_other_pods, judge_workloads_whole
from experiments.kube.lock import ClusterLock
from experiments.kube.nodes.clocks import check_recovery
from experiments.kube.nodes.clocks_judging import judge_split
from experiments.kube.undoing.client_api import ClientApi
from experiments.kube.watching.sampler import KubeSampler, workloads_under
from experiments.kube.watching.samples import OF_API
from experiments.kube.watching.seen import AFTER, BEFORE, KUBE_SEEN, see_cluster
from experiments.plan import Hit, Plan
from experiments.targets.kind import Asked, Ground, Held, Reached, TargetKind
from probes.errors import TargetError
from probes.finding import Finding
from probes.json_types import JsonObject


def _cluster(experiment: Experiment) -> Cluster:
    assert experiment.target.kubernetes is not None
    return experiment.target.kubernetes


def _ground(experiment: Experiment, _folder: Path, seed: int) -> Ground:
    target, cluster = experiment.target, _cluster(experiment)
    aim = Aim(name=target.name, cluster=cluster, seed=seed, run="")
    _, identity = aim.reach()
    where: JsonObject = {"target": target.name, "url": target.endpoint}
    where |= {"folder": f"{identity}, namespaces {', '.join(cluster.namespaces)}"}
    where["cluster"] = identity.to_json() | cluster.to_json()

    def refine(hit: Hit, captured: JsonObject) -> Hit:
        check_recovery(captured, experiment.recovery_s)
        return hit

    return Ground(where=where, surroundings=lambda: aiming_at(aim), refine=refine)


def _lines(hit: Hit) -> list[str]:
    ends = "healed by the platform" if hit.ends_by == PLATFORM else "undone by us"
    who = ", ".join(f"{victim['name']} ({victim['what']})" for victim in hit.victims)
    kind = "nodes" if any(is_node(victim) for victim in hit.victims) else "pods"
    share = f"{hit.at_once} of {hit.replicas} {kind} at once ({hit.share:.0%})"
    return [
        f"  {hit.action}: {hit.fault} on {who}; selected by {hit.selector}",
        f"    {'no pod and no node' if hit.fault.startswith(OF_API) else share}; {ends}",
        *(f"    {carried}" for carried in hit.carries),
    ]


def _faults(plan: Plan) -> list[str]:
    return [hit.fault for hit in plan.targets if hit.fault != DECLARED]


def _nodes(plan: Plan) -> list[str]:
    return [str(victim["name"]) for hit in plan.targets for victim in hit.victims if is_node(victim)]


def _conditions(asked: Asked) -> Sequence[Condition]:
    assert asked.plan is not None
    return [
        *asked.now(),
        look_at_declared_leftovers(asked.experiment.target.name, asked.out),
        *look_at_cluster(_cluster(asked.experiment), _faults(asked.plan), _nodes(asked.plan)),
        *asked.alerts(),
    ]


def _reach(day: Day) -> Reached:
    return reached_at(day, taken_folder(day))


def _way(day: Day, cluster: Cluster, faults: Sequence[str]) -> WayToApi | None:
    """Begin what is to be in our own way to the API; None: nothing is."""
    if not needs_way(faults):
        return None
    way = WayToApi(cluster, day.folder, day.writer, day.marked())
    day.stack.callback(way.end)
    way.start()
    return way


def _hold(day: Day, asked: Asked) -> Held:
    """Watch the workloads and nodes that are to be hit, and see how all others are."""
    assert asked.plan is not None
    cluster, nodes = _cluster(day.experiment), _nodes(asked.plan)
    way = _way(day, cluster, _faults(asked.plan))
    client, workloads = workloads_under(cluster)
    lock = ClusterLock(ClientApi(client=client), cluster.namespaces, day.folder.name)
    day.stack.callback(lock.release)  # before it is taken: that may be cut short in the middle
    lock.take()
    day.event("cluster.locked", namespaces=[*cluster.namespaces])
    if cluster.dead_man is not None:
        settings = DeadManSettings(**asdict(cluster.dead_man))
        hold = DeadManHold(ClientApi(client=client), day.folder, settings, away_from=nodes)
        # Before it is taken: it may be cut short in the middle.
        day.stack.callback(lambda: day.event("dead-man.ended", left=hold.release()))
        place = hold.take()
        day.event("dead-man.watches", namespace=place.namespace, name=place.name)
    sampler = KubeSampler(client, workloads, nodes, day.writer)
    day.stack.callback(sampler.stop)
    sampler.start()

    def check() -> None:
        if sampler.error is not None:
            raise sampler.error
        if way is not None:
            way.check()
        if lock.lost:
            raise TargetError(f"{lock.lost}; the game day stops and puts everything back")

    def see(when: str) -> None:
        day.event(KUBE_SEEN, when=when, cluster=see_cluster(cluster))

    see(BEFORE)
    return Held(check=check, see_after=lambda: see(AFTER))


def _judge(seen: Evidence, times: Times) -> list[Finding]:
    """Judge pods and nodes, then what of the time was the platform's, and what was not seen."""
    subject, recovery_s = seen.victims_subject, seen.recovery_s
    if all(fault.is_on_cluster for fault in seen.faults):
        whole = judge_workloads_whole(
            times, seen.samples, seen.faults, seen.entries, subject=subject, recovery_s=recovery_s,
            evidence=times.to_json(),
        )  # fmt: skip
        findings = [whole, judge_other_pods(seen.faults, seen.cluster_seen, subject=subject)]
    else:
        findings = judge_declared(seen, times)
    findings += judge_split(times, seen.samples, seen.faults, subject=subject, recovery_s=recovery_s)
    return [*findings, *judge_sight(seen.faults, seen.api_rows, subject=subject, recovery_s=recovery_s)]


KIND = TargetKind(
    folder=folder_of,
    ground=_ground,
    lines=_lines,
    conditions=_conditions,
    is_planned_first=True,
    reach=_reach,
    hold=_hold,
    is_seen_without_traffic=True,
    judge=_judge,
)

"""Hosts as the target of a game day, reached over SSH; each says itself whether it may be hit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.day import Day
from experiments.declared.target import folder_of, reached_at, taken_folder, watched_job
from experiments.evidence import Evidence
from experiments.experiment import Experiment
from experiments.faults.fault import PLATFORM
from experiments.hosts import choice
from experiments.hosts.conditions import look_at_hosts
from experiments.hosts.hold import HostHold
from experiments.hosts.judging import AFTER, BEFORE, HOSTS_SEEN, judge_hosts_whole, judge_other_hosts
from experiments.hosts.reaccept import reaccept
from experiments.hosts.seen import see_hosts
from experiments.hosts.session import close_sessions
from experiments.impact.recovery import Times
from experiments.injecting.permission import Condition
from experiments.plan import REACCEPT, Hit, Plan
from experiments.targets.kind import Asked, Ground, Held, Reached, TargetKind
from probes.finding import Finding
from probes.json_types import JsonObject


def _ground(experiment: Experiment, _folder: Path, seed: int) -> Ground:
    target = experiment.target
    where: JsonObject = {"target": target.name, "folder": ", ".join(host.name for host in target.hosts)}
    where["url"] = target.endpoint
    if experiment.reaccept is not None:
        where[REACCEPT] = experiment.reaccept.profile
    aim = choice.Target(hosts=target.hosts, seed=seed, run="")
    return Ground(where=where, surroundings=lambda: choice.aiming_at(aim), refine=_refine)


def _refine(hit: Hit, captured: JsonObject) -> Hit:
    return replace(hit, undo_after_s=captured["undo_after_s"])


def _lines(hit: Hit) -> list[str]:
    ends = "healed by the platform, else undone" if hit.ends_by == PLATFORM else "undone by us"
    lines = [
        f"  {hit.action}: {hit.fault} on {hit.subject}; selected by {hit.selector}",
        f"    {hit.at_once} of {hit.replicas} hosts at once ({hit.share:.0%}); {ends}, and by the "
        f"host itself after {hit.undo_after_s:g} s whatever becomes of us",
    ]
    return [*lines, *([f"    at stake there too: {', '.join(hit.carries)}"] if hit.carries else [])]


def faults_by_host(plan: Plan) -> dict[str, list[str]]:
    """Return what each host would get, for its owner to allow: faults, and the burn-in afterwards."""
    found: dict[str, list[str]] = {}
    for hit in plan.targets:
        if hit.undo_after_s is not None:
            for victim in hit.victims:
                found.setdefault(str(victim["name"]), []).append(hit.fault)
    if REACCEPT in plan.lab:
        for names in found.values():
            names.append(REACCEPT)
    return found


def _conditions(asked: Asked) -> Sequence[Condition]:
    assert asked.plan is not None
    hosts = asked.experiment.target.hosts
    return [*asked.now(), *look_at_hosts(hosts, faults_by_host(asked.plan), run=asked.run)]


def _reach(day: Day) -> Reached:
    training = watched_job(day)
    day.stack.callback(close_sessions)
    return reached_at(day, taken_folder(day), training)


def _hold(day: Day, asked: Asked) -> Held:
    """Keep other game days off the hosts that are to be hit, and see that all others are well."""
    assert asked.plan is not None
    hosts, wanted = day.experiment.target.hosts, faults_by_host(asked.plan)
    hold = HostHold([host for host in hosts if host.name in wanted], day.folder.name)
    hold.take()
    day.stack.callback(hold.release)

    def see(when: str) -> None:
        day.event(HOSTS_SEEN, when=when, hosts=see_hosts(hosts))

    def give_back() -> None:
        if day.experiment.reaccept is not None:
            reaccept(day, day.experiment.reaccept)

    see(BEFORE)
    return Held(see_after=lambda: see(AFTER), give_back=give_back)


def _judge(seen: Evidence, times: Times) -> list[Finding]:
    subject, moments = seen.victims_subject, times.to_json()
    whole = judge_hosts_whole(
        seen.faults, seen.entries, subject=subject, recovery_s=seen.recovery_s, evidence=moments
    )
    return [whole, judge_other_hosts(seen.faults, seen.hosts_seen, subject=subject)]


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

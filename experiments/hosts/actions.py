"""Actions, rollbacks and probes for Chaos Toolkit, on the hosts of a game day's target.

An action is named like its fault, ``link_down`` for ``link.down``. Every one takes ``host``, one by name; or
``hosts``; or ``count``, so many by the seed. ``undo_after_s`` is when the host undoes it without us, counted
from the moment at which it was looked at.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from experiments.chaos.run_context import record_folder
from experiments.faults.fault import PLATFORM, FaultRefused, load_fault
from experiments.hosts.capture import at_another, capture_hosts, check_allowed, check_share
from experiments.hosts.choice import choose, target_now
from experiments.hosts.faults import see_healed
from experiments.hosts.session import answer_or_none
from experiments.injecting.bounds import being_planned
from experiments.injecting.injection import inject_fault, undo_pending
from experiments.injecting.ledger import Entry, read_ledger
from experiments.live.timeline import Timeline
from probes.errors import TargetError
from probes.json_types import JsonObject
from probes.outcome import Outcome

UNDO_AFTER_S = 300.0
_POLL_S = 0.25


def process_kill(
    host: str = "",
    hosts: Sequence[str] = (),
    count: int = 1,
    pattern: str = "",
    pid_file: str = "",
    unit: str = "",
    count_max: int = 1,
    restart: Sequence[str] = (),
    supervisor: str = "",
    undo_after_s: float = UNDO_AFTER_S,
) -> list[JsonObject]:
    """Kill processes of a host by SIGKILL: by a pattern over their command lines, a pid file, or a unit.

    ``restart`` are the words that undoing starts it again with where nobody else has; a unit needs none;
    ``supervisor`` names who restarts it, where there is nothing on the host to start it with.
    """
    selector = _selector(pattern, pid_file, unit, count_max)
    arguments = selector | {"restart": [*restart], "supervisor": supervisor}
    return _hit("process.kill", arguments, host, hosts, count, undo_after_s)


def process_stop(
    host: str = "",
    hosts: Sequence[str] = (),
    count: int = 1,
    pattern: str = "",
    pid_file: str = "",
    unit: str = "",
    count_max: int = 1,
    undo_after_s: float = UNDO_AFTER_S,
) -> list[JsonObject]:
    """Stop processes of a host without ending them: connections stay open and nothing answers."""
    selector = _selector(pattern, pid_file, unit, count_max)
    return _hit("process.stop", selector, host, hosts, count, undo_after_s)


def link_down(
    interface: str,
    host: str = "",
    hosts: Sequence[str] = (),
    count: int = 1,
    may_cut_ssh: bool = False,
    undo_after_s: float = UNDO_AFTER_S,
) -> list[JsonObject]:
    """Take a network interface of a host down.

    The one that carries our own connection only with ``may_cut_ssh``: then the timer on the host alone undoes
    it, and the action lasts until that has happened.
    """
    arguments = {"interface": interface, "may_cut_ssh": may_cut_ssh}
    return _hit("link.down", arguments, host, hosts, count, undo_after_s)


def network_blackhole(
    addresses: Sequence[str] = (),
    ports: Sequence[int] = (),
    interface: str = "",
    direction: str = "both",
    protocol: str = "",
    host: str = "",
    hosts: Sequence[str] = (),
    count: int = 1,
    may_cut_ssh: bool = False,
    undo_after_s: float = UNDO_AFTER_S,
) -> list[JsonObject]:
    """Have a host drop what it would send to, or take from, some addresses, ports or interface."""
    arguments: JsonObject = {"addresses": [*addresses], "ports": [*ports], "interface": interface}
    arguments |= {"direction": direction, "protocol": protocol, "may_cut_ssh": may_cut_ssh}
    return _hit("network.blackhole", arguments, host, hosts, count, undo_after_s)


def network_bandwidth(
    interface: str,
    rate_mbit: float,
    host: str = "",
    hosts: Sequence[str] = (),
    count: int = 1,
    undo_after_s: float = UNDO_AFTER_S,
) -> list[JsonObject]:
    """Limit what a host sends through an interface to ``rate_mbit`` Mbit/s."""
    arguments = {"interface": interface, "rate_mbit": rate_mbit}
    return _hit("network.bandwidth", arguments, host, hosts, count, undo_after_s)


def disk_full(
    folder: str,
    leave_bytes: int | None = None,
    leave_percent: float | None = None,
    may_fill_root: bool = False,
    host: str = "",
    hosts: Sequence[str] = (),
    count: int = 1,
    undo_after_s: float = UNDO_AFTER_S,
) -> list[JsonObject]:
    """Fill the file system of a folder of a host until only ``leave_bytes`` or ``leave_percent`` are free."""
    arguments: JsonObject = {"folder": folder, "may_fill_root": may_fill_root}
    left = {"leave_bytes": leave_bytes, "leave_percent": leave_percent}
    arguments |= {key: value for key, value in left.items() if value is not None}
    return _hit("disk.full", arguments, host, hosts, count, undo_after_s)


def service_stop(
    unit: str,
    host: str = "",
    hosts: Sequence[str] = (),
    count: int = 1,
    may_cut_ssh: bool = False,
    undo_after_s: float = UNDO_AFTER_S,
) -> list[JsonObject]:
    """Stop a unit of systemd on a host, such as kubelet, nvidia-fabricmanager or slurmd.

    What systemd stops with it is started again with it. sshd only with ``may_cut_ssh``.
    """
    arguments = {"unit": unit} | ({"may_cut_ssh": True} if may_cut_ssh else {})
    return _hit("service.stop", arguments, host, hosts, count, undo_after_s)


def host_power(
    machine: str,
    switch_off: Sequence[str],
    switch_on: Sequence[str],
    status: Sequence[str],
    host: str,
    is_on: str = "",
    is_off: str = "",
    undo_after_s: float = UNDO_AFTER_S,
) -> list[JsonObject]:
    """Switch ``machine`` off, by commands of yours that run on ``host``, which is another one.

    Both are hosts of the target. The commands are lists of words; ``status`` prints what the patterns
    ``is_on`` and ``is_off`` match, by default the words on and off. The timer that switches it on again runs
    on ``host``.
    """
    if machine == host:
        raise FaultRefused(f"{machine}: cannot hold the timer that switches it on again; name another host")
    target = target_now()
    (victim,) = choose(target, host=machine, hosts=(), count=1)
    check_allowed(victim, "host.power", target)
    arguments: JsonObject = {"machine": machine, "status": [*status], "is_on": is_on, "is_off": is_off}
    arguments |= {"switch_off": [*switch_off], "switch_on": [*switch_on]}
    return _hit("host.power", arguments, host, (), 1, undo_after_s, victim=machine)


def gpu_clock_cap(
    gpu: str,
    mhz: float,
    host: str,
    locked_before: str | Sequence[float] = "",
    undo_after_s: float = UNDO_AFTER_S,
) -> list[JsonObject]:
    """Hold the clock of one GPU, by its UUID, at ``mhz``.

    ``locked_before`` is none, or what clocks are locked to now as [low, high]: no driver tells, and undoing
    puts that back.
    """
    before = locked_before if isinstance(locked_before, str) else [*locked_before]
    arguments: JsonObject = {"gpu": gpu, "mhz": mhz, "locked_before": before}
    return _hit("gpu.clock-cap", arguments, host, (), 1, undo_after_s)


def gpu_power_cap(gpu: str, watts: float, host: str, undo_after_s: float = UNDO_AFTER_S) -> list[JsonObject]:
    """Lower the power limit of one GPU, by its UUID, to ``watts``."""
    return _hit("gpu.power-cap", {"gpu": gpu, "watts": watts}, host, (), 1, undo_after_s)


def gpu_unbind(
    host: str, gpu: str = "", pci: str = "", undo_after_s: float = UNDO_AFTER_S
) -> list[JsonObject]:
    """Take the driver away from one idle GPU, by its UUID or PCI address: it is gone for everybody."""
    return _hit("gpu.unbind", {"gpu": gpu, "pci": pci}, host, (), 1, undo_after_s)


def gpu_dcgm_inject(
    number: int,
    field: int,
    value: float,
    host: str,
    for_s: float = UNDO_AFTER_S,
    undo_after_s: float = UNDO_AFTER_S,
) -> list[JsonObject]:
    """Have DCGM tell a value for a field of one GPU, by DCGM's numbers, that nothing has measured.

    Every client of DCGM on the host sees it, such as an exporter or whoever cordons nodes.
    """
    arguments: JsonObject = {"number": number, "field": field, "value": value, "for_s": for_s}
    return _hit("gpu.dcgm-inject", arguments, host, (), 1, undo_after_s)


def gpu_xid(
    xid: int, pci: str, host: str, consent: str = "", undo_after_s: float = UNDO_AFTER_S
) -> list[JsonObject]:
    """Write an XID of one GPU, by its PCI address, into the kernel's log, where nothing has happened.

    It cannot be taken back, so ``consent`` has to be: the site's automation will act on it.
    """
    return _hit("gpu.xid", {"xid": xid, "pci": pci, "consent": consent}, host, (), 1, undo_after_s)


def _selector(pattern: str, pid_file: str, unit: str, count_max: int) -> JsonObject:
    return {"pattern": pattern, "pid_file": pid_file, "unit": unit, "count_max": count_max}


def _hit(
    name: str,
    arguments: JsonObject,
    host: str,
    hosts: Sequence[str],
    count: int,
    undo_after_s: float,
    *,
    victim: str = "",
) -> list[JsonObject]:
    """Capture on every chosen host first, then break one after the other, each armed by itself.

    ``victim`` is whom it hits where that is not the host that carries it out.
    """
    target = target_now()
    chosen = choose(target, host=host, hosts=hosts, count=count)
    captured = capture_hosts(name, arguments, chosen, target, undo_after_s=undo_after_s)
    if victim:
        captured = [at_another(each, victim, target) for each in captured]
    folder = Path()  # where a plan is made there is none
    if being_planned() is None:
        folder = record_folder()
        check_share([victim] if victim else [each.name for each in chosen], target, folder)
    return [inject_fault(load_fault(name), each, folder) for each in captured]


def undo_faults() -> JsonObject:
    """Undo whatever this experiment has left on hosts, and see that it is restored.

    Raises:
        TargetError: something could not be restored; says when the host does it by itself.
    """
    undone = undo_pending(record_folder(), by="rollback")
    if failed := [u for u in undone if not u.is_restored]:
        raise TargetError("; ".join(f"{u.entry.subject}: not restored: {u.did}" for u in failed))
    return {"undone": [{"subject": u.entry.subject, "did": u.did} for u in undone]}


def hosts_answer(within_s: float = 15.0) -> JsonObject:
    """Say whether every host of the target can be reached, and is still the same boot of it."""
    rows = []
    for host in target_now().hosts:
        answer = answer_or_none(host, "look", connect_s=within_s)
        rows.append({"host": host.name, "observed": answer if isinstance(answer, str) else answer["boot_id"]})
        if isinstance(answer, str):
            rows[-1]["is_silent"] = True
    silent = [row for row in rows if row.get("is_silent")]
    return {"outcome": (Outcome.FAIL if silent else Outcome.PASS).value, "hosts": rows}


def process_runs(
    pattern: str = "", pid_file: str = "", unit: str = "", hosts: Sequence[str] = (), processes_min: int = 1
) -> JsonObject:
    """Say whether each host of the target, or of ``hosts``, runs so many such processes, none stopped."""
    target = target_now()
    selector = _selector(pattern, pid_file, unit, 0)
    chosen = [host for host in target.hosts if not hosts or host.name in hosts]
    rows, outcomes = [], []
    for host in chosen:
        answer = answer_or_none(host, "processes", arguments=selector)
        if isinstance(answer, str):
            outcomes.append(Outcome.INCONCLUSIVE)
            rows.append({"host": host.name, "observed": answer})
            continue
        running = [row for row in answer["processes"] if row["state"] not in ("T", "t")]
        outcomes.append(Outcome.PASS if len(running) >= processes_min else Outcome.FAIL)
        rows.append({"host": host.name, "observed": answer["processes"]})
    outcome = next((o for o in (Outcome.FAIL, Outcome.INCONCLUSIVE) if o in outcomes), Outcome.PASS)
    return {"outcome": (outcome if rows else Outcome.INCONCLUSIVE).value, "hosts": rows}


def faults_healed(within_s: float = 60.0) -> JsonObject:
    """Wait, at most so long, until the platform has healed what this experiment has broken on hosts.

    When each was seen healed is put on the timeline, which the verdict reads.
    """
    began, folder = time.monotonic(), record_folder()
    waiting = {entry.id: entry for entry in read_ledger(folder) if _is_to_heal(entry)}
    rows: dict[str, str] = dict.fromkeys(waiting, "nobody could look")
    with Timeline(folder, "fault") as timeline:
        while waiting:
            for entry in list(waiting.values()):
                try:
                    is_healed, rows[entry.id] = see_healed(entry.captured)
                except TargetError as error:
                    is_healed, rows[entry.id] = False, str(error)
                if is_healed:
                    timeline.note("fault.healed", id=entry.id, subject=entry.subject, observed=rows[entry.id])
                    del waiting[entry.id]
            if not waiting or time.monotonic() - began > within_s:
                break
            time.sleep(_POLL_S)
    outcome = Outcome.FAIL if waiting else Outcome.PASS
    waited_s = round(time.monotonic() - began, 3)
    return {"outcome": outcome.value, "seen": rows, "waited_s": waited_s}


def _is_to_heal(entry: Entry) -> bool:
    is_on_host = "host_fault" in entry.captured
    return entry.is_pending and is_on_host and load_fault(entry.fault).ends_by == PLATFORM

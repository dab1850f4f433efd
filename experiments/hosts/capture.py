"""What an action would hit on the chosen hosts, asked of each of them; nothing is touched."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.faults.fault import FaultRefused
from experiments.hosts.choice import Target
from experiments.hosts.host import Host
from experiments.hosts.session import session_of
from experiments.injecting.bounds import MAX_SHARE, being_planned, read_plan
from experiments.injecting.ledger import read_ledger
from probes.errors import ConfigError
from probes.json_types import JsonObject

UNDO_AFTER_S_MAX = 86_400.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def capture_hosts(
    fault: str, arguments: JsonObject, chosen: Sequence[Host], target: Target, *, undo_after_s: float
) -> list[JsonObject]:
    """Return for each host all that arming, injecting and undoing need.

    Raises:
        FaultRefused: a host refuses it, or is the one that we run on.
        TargetError: a host cannot be reached.
    """
    if not 1 <= undo_after_s <= UNDO_AFTER_S_MAX:
        raise ConfigError(f"undo_after_s: wanted 1 to {UNDO_AFTER_S_MAX:g}, got {undo_after_s!r}")
    rows = []
    for host in chosen:
        before_ns = time.time_ns()
        is_planned = being_planned() is not None
        seen = session_of(host).ask("capture", fault=fault, arguments=arguments, with_carries=is_planned)
        if seen["boot_id"] == _BOOT_ID.read_text().strip():
            raise FaultRefused(f"{host.name}: is the machine that we run on ourselves; choose another host")
        identity = seen["state"].get("identity") or arguments
        victim = {"name": host.name, "what": seen["state"]["subject"], "identity": identity}
        rows.append(
            {
                "host_fault": fault,
                "host": host.to_json(),
                "id": f"{fault}-{secrets.token_hex(6)}",
                "run": target.run,
                "arguments": arguments,
                "state": seen["state"],
                "boot_id": seen["boot_id"],
                "undo_after_s": undo_after_s,
                "undo_at_boottime_s": seen["boottime_s"] + undo_after_s,
                "undo_at_ns": before_ns + round(undo_after_s * 1e9),
                "victims": [victim],
                "others": [{"name": other.name} for other in target.hosts if other != host],
                "at_once": len(chosen),
                "carries": seen["carries"],
            }
        )
    return rows


def check_allowed(host: Host, fault: str, target: Target) -> None:
    """Refuse a host that a fault hits from elsewhere where its owner has not allowed that on the host itself.

    Raises:
        FaultRefused: it may not be hit, or is the one that we run on.
        TargetError: it cannot be reached.
    """
    seen = session_of(host).ask("look", faults=[fault], run=target.run)
    for why in (seen["not_allowed"], seen["taken"]):
        if why:
            raise FaultRefused(f"{host.name}: {why}")
    if seen["boot_id"] == _BOOT_ID.read_text().strip():
        raise FaultRefused(f"{host.name}: is the machine that we run on ourselves; choose another host")


def at_another(captured: JsonObject, victim: str, target: Target) -> JsonObject:
    """Return what was captured on one host of a fault that hits another."""
    victims = [row | {"name": victim} for row in captured["victims"]]
    others = [{"name": other.name} for other in target.hosts if other.name != victim]
    return captured | {"victims": victims, "others": others}


def check_share(names: Sequence[str], target: Target, folder: Path) -> None:
    """Refuse to have more hosts broken at once than may be, counting those that still are.

    Raises:
        FaultRefused: it would be too many.
    """
    pending = [entry for entry in read_ledger(folder) if entry.is_pending and "host_fault" in entry.captured]
    hit = {str(victim["name"]) for entry in pending for victim in entry.captured["victims"]} | set(names)
    share, plan = len(hit) / len(target.hosts), read_plan(folder)
    stated = None if plan is None else plan["max_share"]
    limit = stated if stated is not None else MAX_SHARE if len(hit) > 1 else 1.0
    if share > limit:
        raise FaultRefused(
            f"{', '.join(sorted(hit))}: {share:.0%} of the hosts would be broken at once, at most "
            f"{limit:.0%} may be; the experiment's extension can state another max_share"
        )

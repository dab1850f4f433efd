"""The faults of hosts as the ledger knows them: four functions, the same for each, by way of the agent."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable
from typing import Literal

from experiments.faults.fault import PLATFORM, UNDO, Fault, Undoing, Verification
from experiments.hosts.brings_about import OF_FIELDS, OF_SERVICES, OF_XIDS, by_field, by_unit, by_xid
from experiments.hosts.host import Host, host_from_json
from experiments.hosts.session import session_of
from probes.errors import TargetError
from probes.json_types import JsonObject

UNDO_CONNECT_S = 5.0  # undoing must not wait long for one host where there are others
TIMER_EXTRA_S = 30.0  # after its time until the timer has undone it, and the way in is there again
_POLL_S = 0.5


def host_of(captured: JsonObject) -> Host:
    """Return the host that a fault is on."""
    return host_from_json(captured["host"])


def subject_of(captured: JsonObject) -> str:
    """Return what is hit, and where."""
    return f"host:{captured['host']['name']} {captured['state']['subject']}"


def timer_words(captured: JsonObject) -> str:
    """Say when the timer on the host undoes a fault without us."""
    left_s = captured["undo_at_ns"] / 1e9 - time.time()
    at = datetime.datetime.fromtimestamp(captured["undo_at_ns"] / 1e9, tz=datetime.UTC)
    when = f"in {left_s:.0f} s" if left_s > 0 else f"{-left_s:.0f} s ago"
    return f"the timer on {captured['host']['name']} undoes it without us at {at:%H:%M:%S} UTC ({when})"


def arm(captured: JsonObject) -> None:
    """Have the host write the undo on its disk and start the timer; it looks at its bounds again."""
    keys = ("id", "arguments", "state", "run", "boot_id", "undo_at_boottime_s")
    order = {key: captured[key] for key in keys}
    session_of(host_of(captured)).ask(
        "arm", **order, fault=captured["host_fault"], by=f"{captured['run']} of {os.uname().nodename}"
    )


def inject(captured: JsonObject) -> None:
    """Break what is armed."""
    session_of(host_of(captured)).ask("inject", id=captured["id"])


def verify(captured: JsonObject) -> Verification:
    """See on the host whether it took hold; where it cuts us off, once it is undone."""
    session = session_of(host_of(captured))
    if not captured["state"].get("may_cut_ssh"):
        return Verification(**session.ask("verify", id=captured["id"]))
    deadline = time.monotonic() + captured["undo_at_ns"] / 1e9 - time.time() + TIMER_EXTRA_S
    seen = Verification(is_verified=False, observed="nothing was seen of it")
    while not seen.is_verified and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        try:
            seen = Verification(**session.ask("verify", id=captured["id"], within_s=5.0, connect_s=3.0))
        except TargetError as error:
            seen = Verification(is_verified=False, observed=str(error))
    return seen


def undo(captured: JsonObject) -> Undoing:
    """Have the host put it back, from whatever machine we are on.

    Raises:
        TargetError: it cannot be reached; says when its timer does it.
    """
    order = {"id": captured["id"], "fault": captured["host_fault"], "state": captured["state"]}
    try:
        session = session_of(host_of(captured))
        done = session.ask("undo", **order, by=f"us, on {os.uname().nodename}", connect_s=UNDO_CONNECT_S)
    except TargetError as error:
        raise TargetError(f"{error}; {timer_words(captured)}") from error
    return Undoing(
        is_restored=done["is_restored"],
        did=f"{done['did']} (by {done['by']})",
        has_acted=done["has_acted"],
        is_seen=done.get("is_seen", True),
        ago_s=round(done["ago_s"], 3),
    )


def see_healed(captured: JsonObject) -> tuple[bool, str]:
    """Say whether the platform has healed a fault, as seen on the host."""
    answer = session_of(host_of(captured)).ask("healed", id=captured["id"])
    return bool(answer["is_healed"]), str(answer["observed"])


def look_at(captured: JsonObject) -> str:
    """Say what has become of a fault on its host, for whoever looks for what is left."""
    try:
        answer = session_of(host_of(captured)).ask("look", connect_s=UNDO_CONNECT_S)
    except TargetError as error:
        return f"{error}; {timer_words(captured)}"
    row = next((row for row in answer["armed"] if row["id"] == captured["id"]), None)
    if row is None:
        return "nothing is armed on the host"
    if row["undone"]:
        return f"undone on the host by {row['undone']['by']}: {row['undone']['did']}"
    return f"still there; its timer: {row['timer']}, {row['left_s']:.0f} s left"


def host_fault(
    name: str,
    *,
    fidelity: str,
    covers: tuple[str, ...],
    needs: tuple[str, ...] = (),
    risk: Literal["low", "medium", "high"] = "medium",
    heals: str = "",
    is_undoable: bool = True,
    narrow: Callable[[JsonObject], tuple[str, ...]] | None = None,
) -> Fault:
    """Return the fault of this name in the agent's table; what somebody heals is the platform's to end."""
    return Fault(
        name=name,
        fidelity=fidelity,
        ends_by=PLATFORM if heals else UNDO,
        subject=subject_of,
        recheck=arm,
        inject=inject,
        verify=verify,
        undo=undo,
        risk=risk,
        is_undoable=is_undoable,
        needs=("a host that is reached over SSH", *needs),
        covers=covers,
        heals=heals,
        is_undone_anywhere=True,
        narrow=narrow,
    )


# One constant for each name in experiments.host_agent.faults.FAULTS: PROCESS_KILL is process.kill.
PROCESS_KILL = host_fault("process.kill", fidelity="P", covers=("software-crash",), heals="who supervises it")
PROCESS_STOP = host_fault("process.stop", fidelity="P", covers=("hang",))
LINK_DOWN = host_fault("link.down", fidelity="N", covers=("network-link", "nic"), needs=("iproute2", "root"))
NETWORK_BLACKHOLE = host_fault(
    "network.blackhole", fidelity="N", covers=("network-link",), needs=("nftables", "root")
)
NETWORK_BANDWIDTH = host_fault(
    "network.bandwidth", fidelity="N", covers=("network-link", "straggler"), needs=("iproute2", "root")
)
DISK_FULL = host_fault("disk.full", fidelity="P", covers=("disk-full",))
SERVICE_STOP = host_fault(
    "service.stop", fidelity="P", covers=OF_SERVICES, needs=("systemd", "root"), narrow=by_unit
)
# Runs on another host than the one that goes off: that one's timer would go off with it.
HOST_POWER = host_fault(
    "host.power",
    fidelity="H",
    covers=("host-down", "power-supply"),
    needs=("another host that reaches its management controller", "commands of yours for IPMI or Redfish"),
    risk="high",
)
GPU_CLOCK_CAP = host_fault(
    "gpu.clock-cap",
    fidelity="H",
    covers=("gpu-thermal", "straggler"),
    needs=("nvidia-smi", "root"),
    risk="low",
)
GPU_POWER_CAP = host_fault(
    "gpu.power-cap",
    fidelity="H",
    covers=("gpu-thermal", "straggler"),
    needs=("nvidia-smi", "root"),
    risk="low",
)
GPU_UNBIND = host_fault(
    "gpu.unbind", fidelity="H", covers=("gpu-lost",), needs=("an idle NVIDIA GPU", "root"), risk="high"
)
GPU_DCGM_INJECT = host_fault(
    "gpu.dcgm-inject", fidelity="S", covers=OF_FIELDS, needs=("DCGM's daemon",), risk="high", narrow=by_field
)
GPU_XID = host_fault(
    "gpu.xid",
    fidelity="S",
    covers=OF_XIDS,
    needs=("a kernel log that may be written to", "your word that automation may act on it"),
    risk="high",
    is_undoable=False,
    narrow=by_xid,
)

"""How each fault is met on a real host: one row each. Every fault has to have one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from experiments.host_agent.faults.xid import CONSENT
from probes.child import wait_until
from probes.json_types import JsonObject
from tests.experiments.hosts.real_hosts import start_program
from tests.experiments.hosts.stand_ins import UUID, StandIn, h100, stand_in, unit
from tests.ssh_hosts import SshHost


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fault on one host, which has a link data0 beside the one that carries us."""

    arrange: Callable[[SshHost], JsonObject]  # what is to be hit; returns the fault's arguments
    observe: Callable[[SshHost], object]  # other while the fault is there, and afterwards as it was
    setup: str = ""  # shell lines that the host runs before its sshd
    is_undoable: bool = True


def _sleeping(host: SshHost) -> JsonObject:
    start_program(host, "exec sleep 70001")
    assert wait_until(lambda: "70001" in host.run("ps", "-eo", "args"), timeout_s=20)
    return {"pattern": "^sleep 70001"}


def _states(host: SshHost) -> list[str]:
    """Return of each such process whether it is stopped, not who it is."""
    lines = host.run("ps", "-eo", "state,args").splitlines()
    return ["T" if line.startswith("T") else "S" for line in lines if "sleep 70001" in line]


def _link(host: SshHost) -> list[str]:
    shown = host.run("ip", "-o", "addr", "show", "dev", "data0", "scope", "global").splitlines()
    routes = host.run("ip", "route", "show", "dev", "data0").splitlines()
    routes += host.run("ip", "-6", "route", "show", "dev", "data0").splitlines()
    is_up = "UP" in host.run("ip", "-o", "link", "show", "dev", "data0").split("<")[1].split(">")[0].split(
        ","
    )
    return sorted([line.split()[3] for line in shown] + routes + [f"up: {is_up}"])


def _disk(host: SshHost) -> list[str]:
    free = host.run("stat", "-f", "-c", "%f", f"{host.folder}/small")
    return [free, host.run("ls", "-A", f"{host.folder}/small")]


# Stand-ins of tools lie in the host's own /usr/local/sbin, where a fault looks for tools first.
_TOOLS = "mkdir -p {folder}/tools\nmount --bind {folder}/tools /usr/local/sbin\n"
# A bus with one GPU: pipes whose readers do the kernel's part. The driver's files lie in its own /proc.
_BUS = """\
mkdir -p {folder}/pci/devices/0000:10:00.0 {folder}/pci/drivers/nvidia
ln -s ../../drivers/nvidia {folder}/pci/devices/0000:10:00.0/driver
mkfifo {folder}/pci/drivers/nvidia/bind {folder}/pci/drivers/nvidia/unbind
(while read -r a; do rm "{folder}/pci/devices/$a/driver"; done <>{folder}/pci/drivers/nvidia/unbind) &
(while read -r a; do ln -s ../../drivers/nvidia "{folder}/pci/devices/$a/driver"; done \\
  <>{folder}/pci/drivers/nvidia/bind) &
mount --bind {folder}/pci /sys/bus/pci
mount -t tmpfs tmpfs /proc/driver
mkdir -p /proc/driver/nvidia/gpus/0000:10:00.0
echo "Device Minor: 77" >/proc/driver/nvidia/gpus/0000:10:00.0/information
"""


def _tool(host: SshHost, name: str, state: object) -> StandIn:
    return stand_in(host.folder / "tools", name, state)


def _stopping(host: SshHost) -> JsonObject:
    _tool(host, "systemctl", {"kubelet.service": unit()})
    host.run("/usr/local/sbin/systemctl", "start", "kubelet.service")
    return {"unit": "kubelet.service"}


def _power(host: SshHost) -> JsonObject:
    words = [str(_tool(host, "bmc", {"power": "on", "is_dead": False}).path)]
    switches = {"switch_off": [*words, "off"], "switch_on": [*words, "on"]}
    return {"machine": "node-7", "status": [*words, "status"]} | switches


def _with_gpu(arguments: JsonObject) -> Callable[[SshHost], JsonObject]:
    def arrange(host: SshHost) -> JsonObject:
        _tool(host, "nvidia-smi", h100())
        return {"gpu": UUID} | arguments

    return arrange


def _dcgm(host: SshHost) -> JsonObject:
    _tool(host, "dcgmi", {"measured": {"150": "41"}, "injected": {}})
    return {"number": 0, "field": 150, "value": 99, "for_s": 60}


def _gpu(host: SshHost) -> object:
    gpu = StandIn(host.folder / "tools" / "nvidia-smi").state[UUID]
    return gpu["power.limit"], gpu["lock"]


ROWS = {
    "process.kill": Row(
        arrange=lambda host: _sleeping(host) | {"restart": ["sleep", "70001"]}, observe=_states
    ),
    "process.stop": Row(arrange=_sleeping, observe=_states),
    "link.down": Row(arrange=lambda _: {"interface": "data0"}, observe=_link),
    "network.blackhole": Row(
        arrange=lambda _: {"addresses": ["10.78.0.0/16"]},
        observe=lambda host: host.run("nft", "list", "tables"),
    ),
    "network.bandwidth": Row(
        arrange=lambda _: {"interface": "data0", "rate_mbit": 10},
        observe=lambda host: host.run("tc", "qdisc", "show", "dev", "data0"),
    ),
    "disk.full": Row(
        arrange=lambda host: {"folder": f"{host.folder}/small", "leave_bytes": 100_000},
        observe=_disk,
        setup="mkdir {folder}/small\nmount -t tmpfs -o size=4m tmpfs {folder}/small\n",
    ),
    "service.stop": Row(
        arrange=_stopping,
        observe=lambda host: host.run(
            "/usr/local/sbin/systemctl", "show", "--property=ActiveState", "kubelet.service"
        ),
        setup=_TOOLS,
    ),
    "host.power": Row(
        arrange=_power, observe=lambda host: StandIn(host.folder / "tools" / "bmc").state, setup=_TOOLS
    ),
    "gpu.clock-cap": Row(
        arrange=_with_gpu({"mhz": 990, "locked_before": "none"}), observe=_gpu, setup=_TOOLS
    ),
    "gpu.power-cap": Row(arrange=_with_gpu({"watts": 300}), observe=_gpu, setup=_TOOLS),
    "gpu.unbind": Row(
        arrange=lambda _: {"pci": "0000:10:00.0"},
        observe=lambda host: host.run("ls", "/sys/bus/pci/devices/0000:10:00.0"),
        setup=_BUS,
    ),
    "gpu.dcgm-inject": Row(
        arrange=_dcgm,
        observe=lambda host: host.run("/usr/local/sbin/dcgmi", "dmon", "-e", "150").split()[-1],
        setup=_TOOLS,
    ),
    "gpu.xid": Row(
        arrange=lambda _: {"xid": 79, "pci": "0000:10:00", "consent": CONSENT},
        observe=lambda host: (host.folder / "kmsg").read_text(),
        setup="touch {folder}/kmsg\nmount --bind {folder}/kmsg /dev/kmsg\n",
        is_undoable=False,
    ),
}

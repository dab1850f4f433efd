"""The sampler: one process that reads every sensor, so that a call which never returns blocks nothing else.

One thread reads all GPUs in turn, another waits for XIDs; the main thread watches them, names the call that
hangs, and leaves that GPU behind with its thread. Commands come on standard input, the lifeline as well.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path

from burnin.node.gpu_rounds import GpuRounds
from burnin.node.gpu_watch import GpuWatch, read_identity
from burnin.node.log_watch import LogWatch
from burnin.node.raw import RawStore
from burnin.node.speaker import Speaker
from burnin.node.watched_call import Watch, start_thread, watched
from probes import nvml
from probes.acs import read_iommu, read_ports_above
from probes.bmc_log import read_bmc_log
from probes.dimms import read_modules, read_node_memory
from probes.fingerprint import read_fingerprints
from probes.host import read_counters, read_room
from probes.host_setup import MANAGEMENT_TOOLS, read_setup, read_tools
from probes.json_types import JsonObject
from probes.kernel_log import pci_key
from probes.nvme_health import read_drives
from probes.pci_devices import read_aer_counters, read_pci_devices
from probes.platform import read_platform
from probes.rdma import read_port_counters, read_ports

CALL_DEADLINE_S = 5.0  # NVML answers in milliseconds; a driver that takes this long is in trouble
INVENTORY_DEADLINE_S = 15.0  # loading the driver of a node without persistence mode takes seconds
XID_WAIT_S = 1.0
WATCH_EVERY_S = 0.25
HOST_EVERY_S = 1.0
# Another file tree in place of this host's own, for tests; the record says so.
ROOT_VARIABLE = "OVERPROOF_HOST_ROOT"


def main() -> None:
    """Sample until the lifeline ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: we end with the agent
    bounds = json.loads(sys.stdin.readline() or "{}")
    Sampler(Speaker("sampler"), raw_bytes_max=int(bounds.get("raw_bytes_max", 0))).run()


class Sampler:
    """All sensors of this machine."""

    def __init__(self, speaker: Speaker, *, raw_bytes_max: int) -> None:
        self._speaker = speaker
        self._raw = RawStore(bytes_max=raw_bytes_max)
        self._watches: list[Watch] = []
        self._gpus: list[GpuWatch] = []
        self._rounds: list[GpuRounds] = []
        self._inventory: JsonObject | None = None  # None: NVML has not answered yet
        self._root = Path(os.environ.get(ROOT_VARIABLE, "/"))
        self._log = LogWatch(speaker, self._root)

    def run(self) -> None:
        """Take the inventory, then follow every GPU and the host."""
        if self._root != Path("/"):
            self._speaker.say("host.root", path=str(self._root))
        self._speaker.say("host.platform", platform=read_platform(self._root), is_root=os.geteuid() == 0)
        start_thread(lambda: self._tell_bmc("before"), "controller")
        self._snapshot_host("before")
        start_thread(self._take_inventory, "inventory")
        deadline = time.monotonic() + INVENTORY_DEADLINE_S
        while self._inventory is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if self._inventory is None:
            detail = f"NVML did not answer within {INVENTORY_DEADLINE_S:.0f} s"
            self._inventory = {"nvml": "silent", "detail": detail, "gpus": []}
        self._log.gpus = _addresses(self._inventory)
        start_thread(self._log.follow, "kernel log")
        self._speaker.say("nvml.inventory", **self._inventory)
        for gpu in self._gpus:
            gpu.wanted.append("before")
            self._watches.append(gpu.watch)
        self._begin(GpuRounds(self._gpus))
        start_thread(self._obey, "lifeline")
        start_thread(self._tell_setup, "setup")
        self._watch_over()

    def _begin(self, rounds: GpuRounds) -> None:
        self._rounds.append(rounds)
        start_thread(rounds.follow, "gpus")

    def _take_inventory(self) -> None:
        """Ask NVML what there is. Runs in a thread that may never come back."""
        try:
            nvml.open_nvml()
            driver, unreachable = nvml.read_driver_version(), []
            gpus = []
            for index in range(nvml.count_gpus()):
                try:
                    gpus.append(self._read_gpu(index))
                except (nvml.SensorError, nvml.Unsupported) as error:
                    unreachable.append({"index": index, "error": str(error)})
            self._inventory = {"nvml": "answers", "driver": driver, "gpus": gpus, "unreachable": unreachable}
        except nvml.LibraryAbsent as error:
            self._inventory = _without_nvml(str(error))
        except (nvml.SensorError, nvml.Unsupported) as error:
            self._inventory = {"nvml": "failed", "detail": str(error), "gpus": []}
        if self._gpus:
            start_thread(self._follow_xids, "xid")

    def _read_gpu(self, index: int) -> JsonObject:
        watch = Watch("nvml")
        handle = nvml.open_gpu(index)
        identity, lacking = read_identity(handle, watch)
        uuid = str(identity["uuid"])
        watched_gpu = GpuWatch(
            handle=handle, uuid=uuid, speaker=self._speaker, watch=Watch(uuid), raw=self._raw
        )
        self._gpus.append(watched_gpu)
        try:
            identity["processes"] = watched(watch, "processes", lambda: nvml.read_processes(handle))
        except (nvml.Unsupported, nvml.SensorError) as error:
            lacking["processes"] = str(error)
        return identity | {"index": index, "lacking": lacking}

    def _follow_xids(self) -> None:
        """Tell each XID and each other event that the driver delivers."""
        watch = Watch("xid")
        self._watches.append(watch)
        try:
            events, bits = watched(
                watch, "open", lambda: nvml.open_events([gpu.handle for gpu in self._gpus])
            )
        except (nvml.Unsupported, nvml.SensorError) as error:
            self._speaker.say(
                "xid.unavailable", error=str(error), is_lacking=isinstance(error, nvml.Unsupported)
            )
            return
        self._speaker.say("xid.watching", bits=bits)
        while True:
            try:
                event = watched(
                    watch, "wait", lambda: nvml.wait_for_event(events, timeout_ms=round(XID_WAIT_S * 1000))
                )
            except (nvml.Unsupported, nvml.SensorError) as error:
                self._speaker.say("xid.unavailable", error=str(error), is_lacking=False)
                return
            if event is not None:
                self._speaker.say("gpu.xid" if "xid" in event else "gpu.event", **event)

    def _obey(self) -> None:
        """Take snapshots and hand over what was kept when the agent wants it; leave when it has gone."""
        for line in sys.stdin:
            command = json.loads(line)
            if "raw" in command:
                self._raw.hand_over(self._speaker)
                continue
            when = str(command["snapshot"])
            self._log.tell_new()
            for gpu in self._gpus:
                gpu.wanted.append(when)
            self._tell_bmc(when)
            self._snapshot_host(when)  # last: it says that all of the host was read
        os._exit(0)

    def _snapshot_host(self, when: str) -> None:
        devices = read_aer_counters(self._root) | read_port_counters(self._root)
        self._speaker.say(
            "host.snapshot",
            when=when,
            values=read_counters(self._root),
            devices=devices,
            drives=read_drives(self._root),
        )

    def _tell_bmc(self, when: str) -> None:
        """Say what the management controller has noted; its tool is of this host, not of a planted tree."""
        log = read_bmc_log() if self._root == Path("/") else None
        self._speaker.say("host.bmc", when=when, log=log)

    def _tell_setup(self) -> None:
        """Say how the host is set up. Tools may take their time: this runs in a thread of its own."""
        self._speaker.say(
            "host.setup",
            setup=read_setup(self._root),
            ports=read_ports(self._root),
            selection=os.environ.get("NCCL_IB_HCA"),
            pci=read_pci_devices(self._root),
            acs=read_ports_above(self._root),
            iommu=read_iommu(self._root),
            modules=read_modules(self._root),
            node_bytes=read_node_memory(self._root),
            fingerprints=read_fingerprints(self._root),
        )
        if self._gpus and self._root == Path("/"):
            self._speaker.say("host.tools", tools=read_tools(MANAGEMENT_TOOLS))

    def _watch_over(self) -> None:
        """Name each call that does not return, and sample the host meanwhile."""
        host_at = 0.0
        while True:
            for watch in list(self._watches):
                if watch.hangs(deadline_s=CALL_DEADLINE_S + (XID_WAIT_S if watch.subject == "xid" else 0)):
                    watch.is_told = True
                    self._speaker.say(
                        "sensor.hung", gpu=watch.subject, sensor=watch.call, waited_s=CALL_DEADLINE_S
                    )
            for others in [rounds.split() for rounds in self._rounds]:
                if others is not None:
                    self._begin(others)
            if time.monotonic() - host_at >= HOST_EVERY_S:
                host_at = time.monotonic()
                self._tell_host()
            time.sleep(WATCH_EVERY_S)

    def _tell_host(self) -> None:
        room = read_room()
        names = ("memory_available_bytes", "load_1min", "cpu_pressure_pct")
        self._speaker.sample("host", **{name: room[name] for name in names})


def _addresses(inventory: JsonObject) -> dict[tuple[int, int, int], str]:
    """Return the UUIDs of the GPUs by where they sit on the bus."""
    keys = ((pci_key(str(gpu.get("pci_bus_id", ""))), str(gpu["uuid"])) for gpu in inventory["gpus"])
    return {key: uuid for key, uuid in keys if key is not None}


def _without_nvml(detail: str) -> JsonObject:
    """A machine without NVML has no NVIDIA GPU, unless the driver's own device file says otherwise."""
    if Path("/dev/nvidiactl").exists():
        return {"nvml": "failed", "detail": f"{detail}, although /dev/nvidiactl exists", "gpus": []}
    return {"nvml": "absent", "detail": detail, "gpus": []}


if __name__ == "__main__":
    main()

"""The faults of hosts by name. The ledger and the timer's file name one by its key here, never by code."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.host_agent.fault import HostFault

# Name -> "module:attribute" of the fault, imported on the host when it is used.
FAULTS = {
    "process.kill": "experiments.host_agent.faults.process:KILL",
    "process.stop": "experiments.host_agent.faults.process:STOP",
    "link.down": "experiments.host_agent.faults.link:DOWN",
    "network.blackhole": "experiments.host_agent.faults.blackhole:BLACKHOLE",
    "network.bandwidth": "experiments.host_agent.faults.bandwidth:BANDWIDTH",
    "disk.full": "experiments.host_agent.faults.disk:FULL",
    "service.stop": "experiments.host_agent.faults.service:STOP",
    "host.power": "experiments.host_agent.faults.power:OFF",
    "gpu.clock-cap": "experiments.host_agent.faults.clock_cap:CLOCK_CAP",
    "gpu.power-cap": "experiments.host_agent.faults.power_cap:POWER_CAP",
    "gpu.unbind": "experiments.host_agent.faults.unbind:UNBIND",
    "gpu.dcgm-inject": "experiments.host_agent.faults.dcgm:INJECT",
    "gpu.xid": "experiments.host_agent.faults.xid:XID",
}


def load_host_fault(name: str) -> HostFault:
    """Return the fault of this name.

    Raises:
        KeyError: there is none.
    """
    module, _, attribute = FAULTS[name].partition(":")
    fault: HostFault = getattr(importlib.import_module(module), attribute)
    return fault

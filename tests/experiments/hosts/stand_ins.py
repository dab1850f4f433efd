"""Stand-ins for vendors' tools: each records what it was told, and keeps state that its answers are made of.

They print what the real ones print, after sources and published samples; none was seen beside a real one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEAD = """\
#!{python} -IS
import json, os, subprocess, sys, time
from pathlib import Path
me = Path(__file__)
words = sys.argv[1:]
with me.with_suffix(".told").open("a") as told:
    told.write(json.dumps(words) + "\\n")
state = json.loads(me.with_suffix(".json").read_text())
def keep():
    beside = me.with_suffix(f".{{os.getpid()}}")
    beside.write_text(json.dumps(state))
    beside.replace(me.with_suffix(".json"))
"""
_SMI = """
def option(name):
    return words[words.index(name) + 1]
if words == ["-L"]:
    for number, uuid in enumerate(state):
        print(f"GPU {number}: NVIDIA H100 80GB HBM3 (UUID: {uuid})")
    sys.exit(0)
uuid = option("-i")
if uuid not in state:
    print(f"No devices were found"); sys.exit(6)
gpu = state[uuid]
if "-pl" in words:
    before, gpu["power.limit"] = gpu["power.limit"], f"{float(option('-pl')):.2f}"
    gpu["enforced.power.limit"] = gpu["power.limit"]
    keep()
    print(f"Power limit for GPU {gpu['pci.bus_id']} was set to {gpu['power.limit']} W from {before} W.")
    print("All done.")
    if gpu.get("scenario"):  # what the twin of NVML answers from
        Path(gpu["scenario"]).write_text(f"limit_mw {int(float(gpu['power.limit']) * 1000)}\\n")
elif "-lgc" in words:
    gpu["lock"] = [int(part) for part in option("-lgc").split(",")]
    keep()
    print("All done.")
elif "-rgc" in words:
    gpu["lock"] = None
    keep()
    print("All done.")
elif any(word.startswith("--query-supported-clocks") for word in words):
    print("\\n".join(str(clock) for clock in range(1980, 330, -15)))
else:
    names = next(word for word in words if word.startswith("--query-gpu=")).partition("=")[2].split(",")
    busy = float(gpu["utilization.gpu"]) > 0
    held = gpu["lock"] and not gpu.get("ignores_lock")
    clock = 345 if not busy else min(1980, gpu["lock"][1]) if held else 1980
    print(", ".join({"uuid": uuid, "clocks.sm": str(clock)}.get(name) or gpu[name] for name in names))
"""
_SYSTEMCTL = """
def is_alive(unit):
    pid = unit["pid"]
    try:
        return bool(pid) and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
verb, name = words[0], words[-1]
unit = state.get(name)
if verb == "show":
    asked = next(word for word in words if word.startswith("--property=")).partition("=")[2].split(",")
    shown = {"Id": name, "LoadState": "not-found", "ActiveState": "inactive"}
    if unit:
        shown = unit["shows"] | {"Id": unit["shows"].get("Id", name), "LoadState": "loaded"}
        shown |= {"InvocationID": unit["invocation"]}
        shown |= {"ActiveState": "active" if is_alive(unit) else "inactive"}
    print("\\n".join(f"{key}={shown.get(key, '')}" for key in asked))
elif verb == "start" and unit and not unit.get("broken"):
    if not is_alive(unit):
        held = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started = subprocess.Popen(["sleep", "600"], start_new_session=True, **held)
        started.returncode = 0
        unit |= {"pid": started.pid, "invocation": os.urandom(8).hex()}
        keep()
elif verb == "stop" and unit:
    for other in [unit] + [state[taken] for taken in unit["shows"].get("RequiredBy", "").split()]:
        if is_alive(other):
            os.kill(other["pid"], 9)
        while is_alive(other):
            time.sleep(0.01)
elif verb not in ("list-units", "reset-failed"):
    print(f"Job for {name} failed."); sys.exit(1)
"""
_DCGMI = """
# An injected value is newer than what is measured for a moment; the last XID stays: nothing measures one.
LASTS_S = 3.0
def value(field):
    injected = state["injected"].get(field)
    is_newer = injected and (field == "230" or time.time() < injected[1])
    return injected[0] if is_newer else state["measured"].get(field, "N/A")
if words[0] == "discovery":
    print("1 GPU found.")
elif words[:2] == ["test", "--inject"]:
    field = words[words.index("-f") + 1]
    state["injected"][field] = [words[words.index("-v") + 1], time.time() + LASTS_S]
    keep()
    print("Successfully injected field info.")
elif words[0] == "dmon":
    print("#Entity   FIELD\\nID\\nGPU 0     " + value(words[words.index("-e") + 1]))
"""
_BMC = """
if state["is_dead"]:
    print("Error: Unable to establish IPMI v2 / RMCP+ session"); sys.exit(1)
if words[-1] in ("on", "off"):
    state["power"] = words[-1]
    keep()
print(f"Chassis Power is {state['power']}")
"""
_SOURCES = {"nvidia-smi": _SMI, "systemctl": _SYSTEMCTL, "dcgmi": _DCGMI, "bmc": _BMC}


@dataclass(frozen=True)
class StandIn:
    """One tool in a folder."""

    path: Path

    @property
    def state(self) -> Any:
        return json.loads(self.path.with_suffix(".json").read_text())

    def set(self, state: Any) -> None:
        self.path.with_suffix(".json").write_text(json.dumps(state))

    def told(self) -> list[list[str]]:
        """Return what it was told, in order."""
        file = self.path.with_suffix(".told")
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def told_to_change(self, *verbs: str) -> list[list[str]]:
        """Return the orders among them."""
        return [words for words in self.told() if set(words) & set(verbs)]


def stand_in(folder: Path, name: str, state: Any, *, python: str = sys.executable) -> StandIn:
    """Install a stand-in with this state."""
    folder.mkdir(parents=True, exist_ok=True)
    tool = StandIn(folder / name)
    tool.path.write_text(_HEAD.format(python=python) + _SOURCES[name])
    tool.path.chmod(0o755)
    tool.set(state)
    return tool


UUID = "GPU-00000000-0000-0000-0000-000000000000"  # as the twin of NVML names the first GPU


def h100(**changed: Any) -> dict[str, Any]:
    """Return what nvidia-smi tells of one GPU under load."""
    gpu = {"pci.bus_id": "00000000:10:00.0", "utilization.gpu": "97", "lock": None, "power.limit": "700.00"}
    gpu |= {"power.min_limit": "200.00", "power.max_limit": "700.00", "enforced.power.limit": "700.00"}
    return {UUID: gpu | changed}


def unit(**shows: str) -> dict[str, Any]:
    """Return a unit of systemd that is down."""
    return {"pid": 0, "invocation": "", "shows": {"UnitFileState": "enabled"} | shows}


def end_units(systemctl: StandIn) -> None:
    """Kill the processes of all units."""
    for one in systemctl.state.values():
        if one["pid"]:
            try:
                os.kill(one["pid"], signal.SIGKILL)
            except ProcessLookupError:
                continue

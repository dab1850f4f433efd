"""A host's settings, from a file tree, and tools that answer, fail, or do not exist."""

from __future__ import annotations

from pathlib import Path

from probes.host_setup import read_setup, read_tools
from tests.probes.trees import plant

HOST = {
    "sys/devices/system/cpu/online": "0-63,128-191\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave\n",
    "sys/devices/system/node/node0/cpulist": "0-63\n",
    "sys/devices/system/node/node1/cpulist": "128-191\n",
    "proc/meminfo": "MemTotal:       2113568 kB\nHugePages_Total:      16\n",
    "sys/kernel/iommu_groups/0/type": "DMA\n",
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.133.20  Sat\n",
    "proc/driver/nvidia-nvswitch/devices/0000:c1:00.0/information": "x\n",
    "proc/41/comm": "nv-fabricmanage\n",
    "sys/class/nvme/nvme0/model": "SAMSUNG MZQL21T9\n",
    "sys/class/nvme/nvme0/state": "live\n",
}


def test_settings_are_read_as_the_kernel_states_them(tmp_path: Path) -> None:
    setup = read_setup(plant(tmp_path, HOST))

    assert (setup["cores_online"], setup["numa_nodes"], setup["hugepages"]) == (128, 2, 16)
    assert (setup["governors"], setup["memory_bytes"]) == (["performance", "powersave"], 2113568 * 1024)
    assert (setup["driver"], setup["has_nvswitch"], setup["has_fabric_manager"]) == ("570.133.20", True, True)
    assert (setup["has_persistence_daemon"], setup["iommu_groups"]) == (False, 1)
    assert setup["nvmes"] == [{"name": "nvme0", "model": "SAMSUNG MZQL21T9", "state": "live"}]


def test_what_a_host_does_not_state_is_none(tmp_path: Path) -> None:
    setup = read_setup(tmp_path)

    assert [setup[n] for n in ("cores_online", "numa_nodes", "memory_bytes", "driver", "shm_bytes")] == [
        None
    ] * 5


def test_a_tool_that_is_not_installed_says_nothing_and_one_that_fails_says_why() -> None:
    found = read_tools((("no-such-tool-here",), ("sh", "-c", "echo broken >&2; exit 3"), ("true",)))

    assert [(tool["tool"], tool["error"]) for tool in found] == [("sh", "broken"), ("true", "")]
    assert all(0 <= tool["took_s"] < 5 for tool in found)

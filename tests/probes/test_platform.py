"""Bare metal, virtual machine or container."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.platform import BARE_METAL, CONTAINER, VIRTUAL_MACHINE, read_platform
from tests.probes.trees import plant


@pytest.mark.parametrize(
    ("files", "platform"),
    [
        ({"proc/cpuinfo": "flags\t\t: fpu vme avx512f\n"}, BARE_METAL),
        ({"proc/cpuinfo": "flags\t\t: fpu hypervisor avx\n"}, VIRTUAL_MACHINE),
        ({".dockerenv": "", "proc/cpuinfo": "flags\t\t: fpu hypervisor avx\n"}, CONTAINER),
        ({"run/.containerenv": ""}, CONTAINER),
        ({"proc/1/cgroup": "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-1.scope\n"}, CONTAINER),
        ({"proc/1/environ": "PATH=/bin\0container=podman\0"}, CONTAINER),
        ({"proc/1/cgroup": "0::/init.scope\n"}, BARE_METAL),
        ({}, BARE_METAL),
    ],
)
def test_the_marks_of_each_platform_are_known(files: dict[str, str], platform: str, tmp_path: Path) -> None:
    assert read_platform(plant(tmp_path, files)) == platform

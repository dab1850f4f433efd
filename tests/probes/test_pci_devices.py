"""GPUs and adapters on the bus, from a file tree."""

from __future__ import annotations

from pathlib import Path

from probes.pci_devices import read_aer_counters, read_pci_devices
from tests.probes.trees import plant


def _machine(root: Path) -> Path:
    """An adapter below a bridge: sysfs nests the one in the other's folder and links to it."""
    bridge = "sys/devices/pci0000:5d/0000:5d:01.0"
    nic = f"{bridge}/0000:5e:00.0"
    plant(
        root,
        {
            f"{bridge}/class": "0x060400\n",
            f"{bridge}/max_link_speed": "16.0 GT/s PCIe\n",
            f"{bridge}/max_link_width": "16\n",
            f"{nic}/class": "0x020700\n",
            f"{nic}/current_link_speed": "16.0 GT/s PCIe\n",
            f"{nic}/max_link_speed": "32.0 GT/s PCIe\n",
            f"{nic}/current_link_width": "16\n",
            f"{nic}/max_link_width": "16\n",
            f"{nic}/numa_node": "1\n",
            f"{nic}/aer_dev_correctable": "RxErr 3\nBadTLP 1\nTOTAL_ERR_COR 4\n",
            f"{nic}/aer_dev_fatal": "Undefined 0\nTOTAL_ERR_FATAL 0\n",
        },
    )
    listing = root / "sys/bus/pci/devices"
    listing.mkdir(parents=True)
    (listing / "0000:5d:01.0").symlink_to(root / bridge)
    (listing / "0000:5e:00.0").symlink_to(root / nic)
    return root


def test_an_adapter_tells_its_link_and_what_its_slot_allows_and_a_bridge_is_none(tmp_path: Path) -> None:
    assert read_pci_devices(_machine(tmp_path)) == [
        {
            "address": "0000:5e:00.0",
            "what": "nic",
            "speed_gts": 16.0,
            "speed_gts_max": 32.0,
            "width": 16,
            "width_max": 16,
            "numa_node": 1,
            "slot_speed_gts_max": 16.0,
            "slot_width_max": 16,
        }
    ]


def test_errors_are_totals_by_severity_and_a_file_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    assert read_aer_counters(_machine(tmp_path)) == {
        "aer/0000:5e:00.0/correctable": 4,
        "aer/0000:5e:00.0/fatal": 0,
    }

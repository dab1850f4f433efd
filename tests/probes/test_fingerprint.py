"""What a host runs on, read from planted trees."""

from __future__ import annotations

from pathlib import Path

from probes.fingerprint import read_fingerprints
from tests.probes.trees import plant


def test_kernel_bios_and_adapter_firmware_are_read(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "proc/sys/kernel/osrelease": "5.15.0-1042-nvidia\n",
            "proc/cpuinfo": "processor\t: 0\nmicrocode\t: 0x2b000590\n",
            "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.4 LTS"\n',
            "sys/class/dmi/id/bios_version": "1.3.2\n",
            "sys/class/dmi/id/product_serial": "1660923000123\n",
            "sys/class/infiniband/mlx5_0/fw_ver": "28.39.1002\n",
            "sys/class/infiniband/mlx5_0/hca_type": "MT4129\n",
            "sys/class/infiniband/mlx5_0/board_id": "MT_0000000838\n",
        },
    )

    nic = {"adapter": "mlx5_0", "type": "MT4129", "board": "MT_0000000838", "firmware": "28.39.1002"}
    assert read_fingerprints(tmp_path) == {
        "host": {
            "kernel": "5.15.0-1042-nvidia",
            "os": "Ubuntu 22.04.4 LTS",
            "microcode": "0x2b000590",
            "bios": "1.3.2",
            "serial": "1660923000123",
        },
        "nics": [nic],
    }


def test_what_nobody_filled_in_is_no_serial_number(tmp_path: Path) -> None:
    plant(tmp_path, {"sys/class/dmi/id/product_serial": "To Be Filled By O.E.M.\n"})

    assert read_fingerprints(tmp_path) == {"host": {}, "nics": []}

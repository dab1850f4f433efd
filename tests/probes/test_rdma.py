"""InfiniBand and RoCE ports, and which of them NCCL would take."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.rdma import read_port_counters, read_ports, select_adapters
from tests.probes.trees import plant

PORT = "sys/class/infiniband/mlx5_0/ports/1"
PORTS = [("mlx5_0", 1), ("mlx5_1", 1), ("mlx5_10", 1), ("mlx5_bond_0", 1), ("irdma0", 2)]


def test_a_port_tells_state_rate_layer_and_addresses(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            f"{PORT}/state": "4: ACTIVE\n",
            f"{PORT}/phys_state": "5: LinkUp\n",
            f"{PORT}/rate": "400 Gb/sec (4X NDR)\n",
            f"{PORT}/link_layer": "InfiniBand\n",
            f"{PORT}/gids/0": "fe80:0000:0000:0000:b83f:d203:00c6:0d1e\n",
            f"{PORT}/gids/1": "0000:0000:0000:0000:0000:0000:0000:0000\n",
            f"{PORT}/counters/link_downed": "2\n",
            f"{PORT}/counters/symbol_error": "0\n",
        },
    )

    assert read_ports(tmp_path) == [
        {
            "adapter": "mlx5_0",
            "port": 1,
            "state": "ACTIVE",
            "physical": "LinkUp",
            "rate_gbps": 400.0,
            "layer": "InfiniBand",
            "gids": 1,
        }
    ]
    assert read_port_counters(tmp_path) == {"port/mlx5_0:1/link_downed": 2, "port/mlx5_0:1/symbol_error": 0}


def test_a_host_without_adapters_has_none(tmp_path: Path) -> None:
    assert (read_ports(tmp_path), read_port_counters(tmp_path)) == ([], {})


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        ("", ["mlx5_0", "mlx5_1", "mlx5_10", "mlx5_bond_0", "irdma0"]),
        ("mlx5", ["mlx5_0", "mlx5_1", "mlx5_10", "mlx5_bond_0"]),
        ("mlx5_1", ["mlx5_1", "mlx5_10"]),
        ("=mlx5_1", ["mlx5_1"]),
        ("=mlx5_0,mlx5_1", ["mlx5_0", "mlx5_1"]),
        ("^mlx5_bond", ["mlx5_0", "mlx5_1", "mlx5_10", "irdma0"]),
        ("^=mlx5_1,mlx5_0", ["mlx5_10", "mlx5_bond_0", "irdma0"]),
        ("irdma0:2", ["irdma0"]),
        ("irdma0:1", []),
    ],
)
def test_the_selection_means_what_it_means_to_nccl(selection: str, names: list[str]) -> None:
    assert [name for name, _ in select_adapters(selection, PORTS)] == names

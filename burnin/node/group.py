"""A group of devices that exchange data: they meet in a file, so neither DNS nor a fixed port is needed."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist

from burnin.node.bench import Bench

BACKEND = {"cpu": "gloo", "cuda": "nccl"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """This device's place among those that work together."""

    rank: int
    world: int
    store: str  # path of the file through which the ranks find each other
    devices: tuple[str, ...] = ()  # by rank


def join(bench: Bench, group: Group, *, timeout_s: float, prefix: str = "") -> None:
    """Meet through a file: no name is looked up and no port is agreed on; a CPU's group stays on loopback."""
    if bench.kind == "cpu":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    bench.pace.entered = 0
    bench.pace.enter()
    store = dist.FileStore(group.store, group.world)  # type: ignore[attr-defined]
    dist.init_process_group(
        BACKEND[bench.kind],
        store=dist.PrefixStore(prefix, store) if prefix else store,  # type: ignore[attr-defined]
        rank=group.rank,
        world_size=group.world,
        timeout=datetime.timedelta(seconds=timeout_s),
    )
    bench.pace.leave()
    bench.pace.step()


def leave() -> None:
    """Leave the group, if we are in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def goes_on(bench: Bench, *, is_wanted: bool) -> bool:
    """The first rank decides, since ranks that follow their own clocks would end up waiting for each other.

    It lines the ranks up as well, so that the time of an exchange is not that of the slowest check before it.
    """
    flag = torch.tensor([int(is_wanted)], dtype=torch.int32, device=bench.torch_device)
    bench.pace.enter()
    dist.broadcast(flag, src=0)
    decided = bool(flag.item())
    bench.pace.leave()
    return decided

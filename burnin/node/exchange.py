"""The collectives of a trial: what each rank puts in, what must come out, and how bus bandwidth is counted.

Sizes and factors are those of nccl-tests: the size is that of the larger buffer of one rank, and the factor
turns bytes per second into what each link carries, whatever the number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

from burnin.node.allreduce import contribution

ELEMENT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where this rank stands in the group, and on what device."""

    rank: int
    world: int
    device: torch.device
    local_ranks: int = 1  # ranks of this host, which follow each other


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """One way to exchange data."""

    busbw_factor: Callable[[int], float]
    own: Callable[[Place, int], torch.Tensor]  # what this rank puts in, in a message of so many elements
    expected: Callable[[Place, int], torch.Tensor]  # what must come out, by integer arithmetic on this device
    run: Callable[[Place, torch.Tensor, torch.Tensor], None]
    is_reduced: bool = False  # in place, and a number that each rank adds comes out once for each of them


def _whole(place: Place, count: int) -> torch.Tensor:
    return contribution(place.rank, count, place.device)


def _part(place: Place, count: int) -> torch.Tensor:
    return contribution(place.rank, count // place.world, place.device)


def _sum(place: Place, count: int) -> torch.Tensor:
    total = torch.zeros(count, dtype=torch.int64, device=place.device)
    for rank in range(place.world):
        total += contribution(rank, count, place.device)
    return total


def _parts(place: Place, count: int) -> torch.Tensor:
    each = count // place.world
    return torch.cat([contribution(rank, each, place.device) for rank in range(place.world)])


def _shares(place: Place, count: int) -> torch.Tensor:
    """Return the share that each rank has for this one."""
    each = count // place.world
    first = place.rank * each
    return torch.cat([contribution(rank, each, place.device, first=first) for rank in range(place.world)])


def _all_reduce(place: Place, sent: torch.Tensor, received: torch.Tensor) -> None:
    del place, received  # in place: a copy would be timed as well
    dist.all_reduce(sent)


def _all_gather(place: Place, sent: torch.Tensor, received: torch.Tensor) -> None:
    del place
    dist.all_gather_into_tensor(received, sent)


def _all_to_all(place: Place, sent: torch.Tensor, received: torch.Tensor) -> None:
    del place
    dist.all_to_all_single(received, sent)


def ring(distance: int) -> Collective:
    """Return the exchange in which each rank sends to the one so far after it, and hears from the one before.

    At distance 1 it is the ring of nccl-tests.
    """

    def run(place: Place, sent: torch.Tensor, received: torch.Tensor) -> None:
        following, before = (place.rank + distance) % place.world, (place.rank - distance) % place.world
        operations = [dist.P2POp(dist.isend, sent, following), dist.P2POp(dist.irecv, received, before)]
        for request in dist.batch_isend_irecv(operations):
            request.wait()

    def expected(place: Place, count: int) -> torch.Tensor:
        return contribution((place.rank - distance) % place.world, count, place.device)

    return Collective(busbw_factor=lambda _: 1.0, own=_whole, expected=expected, run=run)


def _outer_share(world: int) -> float:
    return (world - 1) / world


COLLECTIVES = {
    "all_reduce": Collective(
        busbw_factor=lambda world: 2 * _outer_share(world),
        own=_whole,
        expected=_sum,
        run=_all_reduce,
        is_reduced=True,
    ),
    "all_gather": Collective(busbw_factor=_outer_share, own=_part, expected=_parts, run=_all_gather),
    "all_to_all": Collective(busbw_factor=_outer_share, own=_whole, expected=_shares, run=_all_to_all),
}


def collectives_of(name: str, place: Place) -> list[Collective]:
    """Return what is measured under a name: one exchange, or one for each distance between hosts.

    ``pairwise`` brings every host together with every other, both ways; its figure is that of the slowest.
    """
    if name == "send_recv":
        return [ring(1)]
    if name == "pairwise":
        step = place.local_ranks if place.local_ranks < place.world else 1
        return [ring(distance) for distance in range(step, place.world, step)]
    return [COLLECTIVES[name]]


def elements_of(size_bytes: int, world: int) -> int:
    """Return how many elements a message of this size has; as many for each rank, at least one."""
    return max(size_bytes // ELEMENT_BYTES // world, 1) * world

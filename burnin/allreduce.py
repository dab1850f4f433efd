"""The all-reduce stage on one device: every element of every result is checked.

The group needs neither DNS nor a fixed port: the ranks meet in a file.
"""

from __future__ import annotations

import datetime
import os
import random
import time
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist

from burnin.bench import Bench
from burnin.product import flip_bit, words
from probes.json_types import JsonObject

STAGE = "allreduce"
BACKEND = {"cpu": "gloo", "cuda": "nccl"}
SIZES_BYTES = {
    "cpu": (1 << 10, 1 << 16, 1 << 20, 1 << 23),
    "cuda": (8, 1 << 20, 1 << 26, 1 << 30),
}
CHUNK_S = 0.5  # how often the rate goes into the series
ROUNDS_MIN = 5  # at each size, however short the stage
_MODULUS = 8191  # contributions are integers below this: their sums are exact in fp32 for 2048 ranks
MISCOMPARES_TOLD_MAX = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """This device's place among those that reduce together."""

    rank: int
    world: int
    store: str  # path of the file through which the ranks find each other


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What has been seen at one size."""

    rounds: int = 0
    busy_s: float = 0.0
    miscompared_rounds: int = 0
    miscompared_elements: int = 0


def run_allreduce(bench: Bench, *, length_s: float, options: JsonObject, group: Group) -> None:
    """Reduce among all devices for about ``length_s`` seconds, each message size for its share."""
    sizes = [int(size) for size in options.get("sizes_bytes") or SIZES_BYTES[bench.kind]]
    _join(bench, group, timeout_s=max(30.0, 4 * length_s))
    try:
        _prove_detector(bench, group)
        for size in sizes:
            _reduce_size(bench, group, size, length_s=length_s / len(sizes))
    finally:
        dist.destroy_process_group()


def _join(bench: Bench, group: Group, *, timeout_s: float) -> None:
    """Meet through a file: no name is looked up and no port is agreed on; a CPU's group stays on loopback."""
    if bench.kind == "cpu":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    bench.pace.is_waiting = True
    dist.init_process_group(
        BACKEND[bench.kind],
        store=dist.FileStore(group.store, group.world),  # type: ignore[attr-defined]
        rank=group.rank,
        world_size=group.world,
        timeout=datetime.timedelta(seconds=timeout_s),
    )
    bench.pace.is_waiting = False
    bench.pace.step()


def _contribution(rank: int, count: int, device: torch.device) -> torch.Tensor:
    """Return what a rank puts in: integers that differ by element and rank."""
    index = torch.arange(count, dtype=torch.int64, device=device)
    return (index * (31 + 2 * rank) + rank * 977) % _MODULUS


def _reduce(bench: Bench, buffer: torch.Tensor) -> float:
    """All-reduce in place and return the seconds it took; meanwhile this device waits for the others."""
    bench.pace.is_waiting = True
    started = time.perf_counter()
    dist.all_reduce(buffer)
    if buffer.is_cuda:
        torch.cuda.synchronize(buffer.device)
    took_s = time.perf_counter() - started
    bench.pace.is_waiting = False
    bench.pace.step()
    return took_s


def _expected(group: Group, count: int, device: torch.device) -> torch.Tensor:
    """Return the sum over all ranks, by integer arithmetic on this device alone."""
    total = torch.zeros(count, dtype=torch.int64, device=device)
    for rank in range(group.world):
        total += _contribution(rank, count, device)
    return total


def _differing(result: torch.Tensor, expected: torch.Tensor) -> int:
    return int((words(result) != words(expected.to(result.dtype))).sum().item())


def _prove_detector(bench: Bench, group: Group) -> None:
    """Flip one bit in a reduced buffer of our own, after the reduction, and see whether the check tells."""
    count = 4096
    buffer = _contribution(group.rank, count, bench.torch_device).float()
    _reduce(bench, buffer)
    expected = _expected(group, count, bench.torch_device)
    before = _differing(buffer, expected)
    flip_bit(buffer, address=bench.seed % count, bit=0)
    bench.speaker.say(
        "control",
        stage=STAGE,
        device=bench.device,
        detector="bit flip in a reduced buffer",
        is_found=_differing(buffer, expected) != before,
        fidelity="end to end",
    )


def _reduce_size(bench: Bench, group: Group, size: int, *, length_s: float) -> None:
    """Reduce one size until its time is up; a row for the series every half second."""
    own = _contribution(group.rank, size // 4, bench.torch_device)
    total = _expected(group, size // 4, bench.torch_device)
    tally, until = _Tally(), time.monotonic() + length_s
    told, told_at = _Tally(), time.monotonic()
    while True:
        # Each round's numbers differ, so that the result of an earlier one cannot pass.
        offset = tally.rounds % 1000
        buffer = (own + offset).float()
        if not _goes_on(bench, is_wanted=tally.rounds < ROUNDS_MIN or time.monotonic() < until):
            break
        tally.busy_s += _reduce(bench, buffer)
        _seed_fault(bench, buffer, tally)
        _check(bench, buffer, total + offset * group.world, size, tally)
        if time.monotonic() - told_at >= CHUNK_S:
            _sample(bench, group, size, tally, told)
            told, told_at = replace(tally), time.monotonic()
    if tally.rounds > told.rounds:
        _sample(bench, group, size, tally, told)
    _tell(bench, group, size, tally)


def _goes_on(bench: Bench, *, is_wanted: bool) -> bool:
    """The first rank decides, since ranks that follow their own clocks would end up waiting for each other.

    It lines the ranks up as well, so that the time of a reduction is not that of the slowest check before it.
    """
    flag = torch.tensor([int(is_wanted)], dtype=torch.int32, device=bench.torch_device)
    bench.pace.is_waiting = True
    dist.broadcast(flag, src=0)
    goes_on = bool(flag.item())
    bench.pace.is_waiting = False
    return goes_on


def _check(bench: Bench, buffer: torch.Tensor, expected: torch.Tensor, size: int, tally: _Tally) -> None:
    tally.rounds += 1
    wrong = _differing(buffer, expected)
    if not wrong:
        return
    tally.miscompared_rounds += 1
    tally.miscompared_elements += wrong
    if tally.miscompared_rounds <= MISCOMPARES_TOLD_MAX:
        bench.speaker.say(
            "miscompare",
            stage=STAGE,
            device=bench.device,
            format="fp32",
            product=tally.rounds - 1,
            elements=wrong,
            size_bytes=size,
        )


def _sample(bench: Bench, group: Group, size: int, tally: _Tally, told: _Tally) -> None:
    busbw = _busbw_gbps(size, group, tally.rounds - told.rounds, tally.busy_s - told.busy_s)
    bench.speaker.sample(STAGE, subject=f"{bench.device} {size_text(size)}", busbw_gbps=busbw)


def _seed_fault(bench: Bench, buffer: torch.Tensor, tally: _Tally) -> None:
    if tally.rounds != 2 or not bench.seeded:
        return
    address = random.Random(bench.seed).randrange(buffer.numel())
    if "bit_flip" in bench.seeded:
        flip_bit(buffer, address=address, bit=5)
    if "nan" in bench.seeded:
        buffer[address] = float("nan")
    bench.act_dead()


def _busbw_gbps(size: int, group: Group, rounds: int, busy_s: float) -> float:
    """Bus bandwidth as nccl-tests define it: what each link carries, whatever the number of ranks."""
    return size * rounds / max(busy_s, 1e-9) * 2 * (group.world - 1) / group.world / 1e9


def _tell(bench: Bench, group: Group, size: int, tally: _Tally) -> None:
    bench.speaker.say(
        "allreduce.result",
        stage=STAGE,
        device=bench.device,
        backend=BACKEND[bench.kind],
        ranks=group.world,
        size_bytes=size,
        rounds=tally.rounds,
        elements=tally.rounds * (size // 4),
        busbw_gbps=_busbw_gbps(size, group, tally.rounds, tally.busy_s),
        miscompared_rounds=tally.miscompared_rounds,
        miscompared_elements=tally.miscompared_elements,
    )


def size_text(size: int) -> str:
    """Return a size as people say it."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:g} {unit}"
    return f"{size} B"

"""The all-reduce stage on one device: every size and algorithm, every element of every result checked."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist

from burnin.node.bench import Bench
from burnin.node.group import BACKEND, Group, goes_on, join, leave
from burnin.node.product import flip_bit, words
from probes.json_types import JsonObject

STAGE = "allreduce"
AUTO = "auto"  # the library chooses
SIZES_BYTES = {
    "cpu": (8, 1 << 10, 1 << 16, 1 << 20, 1 << 23),
    "cuda": (8, 1 << 10, 1 << 15, 1 << 20, 1 << 23, 1 << 26, 1 << 28, 1 << 30, 1 << 32),
}
# Contribution and sum in int64, the buffer, and what the comparison makes: of the message's own size.
FOOTPRINT = 12
CHUNK_S = 0.5  # how often the rate goes into the series
ROUNDS_MIN = 5  # at each size, however short the stage
_MODULUS = 8191  # contributions are integers below this: their sums are exact in fp32 for 2048 ranks
MISCOMPARES_TOLD_MAX = 16


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What has been seen at one size."""

    rounds: int = 0
    busy_s: float = 0.0
    miscompared_rounds: int = 0
    miscompared_elements: int = 0


def run_allreduce(bench: Bench, *, length_s: float, options: JsonObject, group: Group) -> None:
    """Reduce among all devices for about ``length_s`` seconds, each size and algorithm for its share."""
    started, checked = time.monotonic(), 0
    wanted = [int(size) for size in options.get("sizes_bytes") or SIZES_BYTES[bench.kind]]
    algorithms = [str(name) for name in options.get("algorithms") or [AUTO]]
    if bench.kind == "cpu":
        algorithms = [AUTO]  # gloo has one only
    for index, algorithm in enumerate(algorithms):
        _choose(algorithm)
        join(bench, group, timeout_s=max(30.0, 4 * length_s), prefix=f"{index}")
        try:
            if not _is_available(bench, algorithm):
                continue
            if index == 0:
                _prove_detector(bench, group)
                if bench.only_controls:
                    return
            sizes = [size for size in wanted if size <= _size_max(bench)]
            _tell_plan(bench, algorithm, sizes, [size for size in wanted if size not in sizes])
            for size in sizes:
                share_s = length_s / len(sizes) / len(algorithms)
                checked += _reduce_size(bench, group, size, algorithm, length_s=share_s)
        finally:
            leave()
    bench.say_loaded(STAGE, loaded_s=time.monotonic() - started, checked_elements=checked)


def _choose(algorithm: str) -> None:
    """Have NCCL use one algorithm in the groups that are made from now on."""
    if algorithm == AUTO:
        os.environ.pop("NCCL_ALGO", None)
    else:
        os.environ["NCCL_ALGO"] = algorithm


def _is_available(bench: Bench, algorithm: str) -> bool:
    """Reduce once: NCCL refuses, on every rank alike, an algorithm that this node cannot have."""
    if algorithm == AUTO:
        return True
    try:
        _reduce(bench, torch.ones(1 << 10, device=bench.torch_device))
    except RuntimeError as error:
        bench.pace.leave()
        bench.speaker.say(
            "algorithm.unavailable",
            stage=STAGE,
            device=bench.device,
            algorithm=algorithm,
            error=str(error)[:300],
        )
        return False
    return True


def _size_max(bench: Bench) -> int:
    """Return the largest message for which every rank has the memory: they must all choose the same sizes."""
    if bench.kind == "cpu":
        return 1 << 62
    torch.cuda.empty_cache()
    free = torch.tensor([torch.cuda.mem_get_info(bench.torch_device)[0]], device=bench.torch_device)
    bench.pace.enter()
    dist.all_reduce(free, op=dist.ReduceOp.MIN)
    smallest = int(free.item())
    bench.pace.leave()
    return smallest // FOOTPRINT


def _tell_plan(bench: Bench, algorithm: str, sizes: list[int], too_large: list[int]) -> None:
    bench.speaker.say(
        "allreduce.plan",
        stage=STAGE,
        device=bench.device,
        algorithm=algorithm,
        sizes_bytes=sizes,
        too_large_bytes=too_large,  # for the memory that is free on some rank
    )


def contribution(rank: int, count: int, device: torch.device, *, first: int = 0) -> torch.Tensor:
    """Return what a rank puts in: integers that differ by element and rank."""
    index = torch.arange(first, first + count, dtype=torch.int64, device=device)
    return (index * (31 + 2 * rank) + rank * 977) % _MODULUS


def _reduce(bench: Bench, buffer: torch.Tensor) -> float:
    """All-reduce in place and return the seconds it took; meanwhile this device waits for the others."""
    bench.pace.enter()
    started = time.perf_counter()
    dist.all_reduce(buffer)
    if buffer.is_cuda:
        torch.cuda.synchronize(buffer.device)
    took_s = time.perf_counter() - started
    bench.pace.leave()
    bench.pace.step()
    return took_s


def _expected(group: Group, count: int, device: torch.device) -> torch.Tensor:
    """Return the sum over all ranks, by integer arithmetic on this device alone."""
    total = torch.zeros(count, dtype=torch.int64, device=device)
    for rank in range(group.world):
        total += contribution(rank, count, device)
    return total


def differing(result: torch.Tensor, expected: torch.Tensor) -> int:
    """Return how many elements are not, bit by bit, what they should be."""
    return int((words(result) != words(expected.to(result.dtype))).sum().item())


def _prove_detector(bench: Bench, group: Group) -> None:
    """Flip one bit in a reduced buffer of our own, after the reduction, and see whether the check tells."""
    count = 4096
    buffer = contribution(group.rank, count, bench.torch_device).float()
    _reduce(bench, buffer)
    expected = _expected(group, count, bench.torch_device)
    before = differing(buffer, expected)
    flip_bit(buffer, address=bench.seed % count, bit=0)
    bench.speaker.say(
        "control",
        stage=STAGE,
        device=bench.device,
        detector="bit flip in a reduced buffer",
        is_found=differing(buffer, expected) != before,
        fidelity="end to end",
    )


def _reduce_size(bench: Bench, group: Group, size: int, algorithm: str, *, length_s: float) -> int:
    """Reduce one size until its time is up; a row for the series every half second.

    Returns how many elements were checked.
    """
    own = contribution(group.rank, size // 4, bench.torch_device)
    total = _expected(group, size // 4, bench.torch_device)
    tally, until = _Tally(), time.monotonic() + length_s
    told, told_at = _Tally(), time.monotonic()
    while True:
        # Each round's numbers differ, so that the result of an earlier one cannot pass.
        offset = tally.rounds % 1000
        buffer = (own + offset).float()
        if not goes_on(bench, is_wanted=tally.rounds < ROUNDS_MIN or time.monotonic() < until):
            break
        _stay_away(bench, tally)
        tally.busy_s += _reduce(bench, buffer)
        _seed_fault(bench, buffer, tally)
        _check(bench, buffer, total + offset * group.world, size, tally)
        if time.monotonic() - told_at >= CHUNK_S:
            _sample(bench, group, size, algorithm, tally, told)
            told, told_at = replace(tally), time.monotonic()
    if tally.rounds > told.rounds:
        _sample(bench, group, size, algorithm, tally, told)
    _tell(bench, group, size, algorithm, tally)
    return tally.rounds * (size // 4)


def _stay_away(bench: Bench, tally: _Tally) -> None:
    """A seeded fault: claim to wait for the others, and never join them."""
    if "absent" in bench.seeded and tally.rounds == 2:
        bench.pace.is_waiting = True
        while True:
            time.sleep(1)  # ended by the agent: that is what is being shown


def _check(bench: Bench, buffer: torch.Tensor, expected: torch.Tensor, size: int, tally: _Tally) -> None:
    tally.rounds += 1
    wrong = differing(buffer, expected)
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


def _sample(bench: Bench, group: Group, size: int, algorithm: str, tally: _Tally, told: _Tally) -> None:
    busbw = _busbw_gbps(size, group, tally.rounds - told.rounds, tally.busy_s - told.busy_s)
    what = size_text(size) if algorithm == AUTO else f"{size_text(size)} {algorithm}"
    bench.speaker.sample(STAGE, subject=f"{bench.device} {what}", busbw_gbps=busbw)


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


def _tell(bench: Bench, group: Group, size: int, algorithm: str, tally: _Tally) -> None:
    bench.speaker.say(
        "allreduce.result",
        stage=STAGE,
        device=bench.device,
        backend=BACKEND[bench.kind],
        algorithm=algorithm,
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

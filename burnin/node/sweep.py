"""Every collective of a trial at every size, each result checked, each window of iterations timed."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass

import torch
import torch.distributed as dist

from burnin.node.allreduce import FOOTPRINT, differing
from burnin.node.exchange import ELEMENT_BYTES, Collective, Place, collectives_of, elements_of
from burnin.node.pace import Pace
from burnin.node.product import flip_bit
from burnin.node.speaker import Speaker
from burnin.node.trial_order import TrialOrder

SIZES_BYTES = {
    "cpu": (8, 1 << 16, 1 << 20, 1 << 22),
    "cuda": (8, 1 << 10, 1 << 15, 1 << 20, 1 << 25, 1 << 28, 1 << 30, 1 << 32),
}
SMALL_BYTES = 1 << 16  # up to here one iteration is too short to be timed by itself
SMALL_ITERATIONS = 20
WINDOWS_MIN, WINDOWS_MAX = 5, 1000
FAULT_AT = 2  # the window in which a seeded fault shows
SLOW_S = 0.03  # what a seeded slow rank adds to each window


@dataclass(slots=True, kw_only=True)
class Tally:
    """What one rank has seen of one collective at one size."""

    windows: int = 0
    iterations: int = 0
    busy_s: float = 0.0
    worst_s: float = 0.0  # of one iteration, in the slowest window
    wrong_elements: int = 0


def run_sweep(order: TrialOrder, place: Place, speaker: Speaker, pace: Pace) -> None:
    """Measure each size of each collective for its share of time."""
    wanted = order.sizes_bytes or SIZES_BYTES[place.device.type]
    sizes = [size for size in wanted if size <= _size_max(place, pace)]
    plan = {"collectives": list(order.collectives), "sizes_bytes": sizes}
    too_large = [size for size in wanted if size not in sizes]
    speaker.say("rank.plan", rank=place.rank, **plan, too_large_bytes=too_large)
    for name in order.collectives:
        for size in sizes:
            _sweep(order, place, speaker, pace, name, size)
    _line_up(place, pace, is_wanted=False)


def _sweep(order: TrialOrder, place: Place, speaker: Speaker, pace: Pace, name: str, size: int) -> None:
    """Measure one size; of several exchanges the slowest is told, and what was wrong in any of them."""
    measured = collectives_of(name, place)
    share_s = order.length_s / len(measured)
    tallies = [_measure(order, place, pace, each, size, length_s=share_s) for each in measured]
    factor = measured[0].busbw_factor(place.world)
    speaker.say(
        "rank.sweep",
        rank=place.rank,
        ranks=place.world,
        collective=name,
        size_bytes=size,
        iterations=min(tally.iterations for tally in tallies),
        mean_s=max(tally.busy_s / tally.iterations for tally in tallies),
        worst_s=max(tally.worst_s for tally in tallies),
        busbw_bytes=elements_of(size, place.world) * ELEMENT_BYTES * factor,
        wrong_elements=sum(tally.wrong_elements for tally in tallies),
    )


def _size_max(place: Place, pace: Pace) -> int:
    """Return the largest message for which every rank has the memory: they must all choose the same sizes."""
    if place.device.type == "cpu":
        return 1 << 62
    torch.cuda.empty_cache()
    free = torch.tensor([torch.cuda.mem_get_info(place.device)[0]], device=place.device)
    pace.enter()
    dist.all_reduce(free, op=dist.ReduceOp.MIN)
    smallest = int(free.item())
    pace.leave()
    return smallest // FOOTPRINT


def _line_up(place: Place, pace: Pace, *, is_wanted: bool) -> bool:
    """Let every rank come here, so that a slow check is not timed as a slow exchange; the first decides."""
    flag = torch.tensor([int(is_wanted and place.rank == 0)], dtype=torch.int32, device=place.device)
    pace.enter()
    dist.all_reduce(flag)
    decided = bool(flag.item())
    pace.leave()
    pace.step()
    return decided


def _measure(
    order: TrialOrder, place: Place, pace: Pace, collective: Collective, size: int, *, length_s: float
) -> Tally:
    count = elements_of(size, place.world)
    own, expected = collective.own(place, count), collective.expected(place, count)
    batch = SMALL_ITERATIONS if size <= SMALL_BYTES else 1
    received = [torch.empty_like(expected, dtype=torch.float32) for _ in range(batch)]
    tally, until = Tally(), time.monotonic() + length_s
    is_first = True  # not counted: libraries set up connections and memory with it
    while True:
        # Each window's numbers differ, so that the result of an earlier one cannot pass.
        offset = (tally.windows + 500 * is_first) % 1000
        sent = [(own + offset + turn).float() for turn in range(batch)]
        going = tally.windows < WINDOWS_MIN or time.monotonic() < until
        if not _line_up(place, pace, is_wanted=going and tally.windows < WINDOWS_MAX):
            return tally
        is_faulty = tally.windows == FAULT_AT and not is_first
        took_s = _exchange(order, place, pace, collective, sent, received, is_faulty=is_faulty)
        results = sent if collective.is_reduced else received
        if is_faulty and "bit_flip" in order.faults:
            flip_bit(results[0], address=random.Random(order.seed).randrange(count), bit=5)
        factor = place.world if collective.is_reduced else 1
        for turn, result in enumerate(results):
            tally.wrong_elements += differing(result, expected + factor * (offset + turn))
        if not is_first:
            tally.windows += 1
            tally.iterations += batch
            tally.busy_s += took_s
            tally.worst_s = max(tally.worst_s, took_s / batch)
        is_first = False


def _exchange(
    order: TrialOrder,
    place: Place,
    pace: Pace,
    collective: Collective,
    sent: list[torch.Tensor],
    received: list[torch.Tensor],
    *,
    is_faulty: bool,
) -> float:
    """Exchange every message of one window and return the seconds it took."""
    started = time.perf_counter()
    _act_faulty(order, pace, is_faulty=is_faulty)
    pace.enter()
    for mine, theirs in zip(sent, received, strict=True):
        collective.run(place, mine, theirs)
    if place.device.type == "cuda":
        torch.cuda.synchronize(place.device)
    took_s = time.perf_counter() - started
    pace.leave()
    pace.step()
    return took_s


def _act_faulty(order: TrialOrder, pace: Pace, *, is_faulty: bool) -> None:
    """Show the fault that was seeded into this host, if any."""
    if "slow" in order.faults:
        time.sleep(SLOW_S)
    if is_faulty and "crash" in order.faults:
        os.kill(os.getpid(), signal.SIGKILL)
    while is_faulty and "absent" in order.faults:
        pace.is_waiting = True  # it claims to wait for the others, and never comes
        time.sleep(1)

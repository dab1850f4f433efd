"""The bandwidth stage on one device: copies within its memory, from the host and back; contents verified.

Where cores stand in for a GPU every path is a copy within host memory, and called so.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from statistics import median

import torch

from burnin.node.bench import Bench
from burnin.node.exact import compare
from burnin.node.pattern import scramble
from burnin.node.product import flip_bit, wait_for_device
from burnin.node.rounds import TOGETHER
from burnin.node.seeding import SLOW_FACTOR

STAGE = "bandwidth"
# Within the device; to it; from it; to and from it at once.
PATHS = ("device copy", "host to device", "device to host", "both directions")
SIZE_BYTES = {"cpu": 1 << 22, "cuda": 1 << 28}
COPIES = {"cpu": 4, "cuda": 8}  # timed at once
ROUNDS_MIN = 3  # of each path, however short the stage
MISCOMPARES_TOLD_MAX = 16


@dataclass(slots=True, kw_only=True)
class _Rig:
    """Buffers on both sides."""

    host_source: torch.Tensor
    host_target: torch.Tensor
    device_source: torch.Tensor
    device_target: torch.Tensor
    is_pinned: bool
    streams: list[torch.cuda.Stream]  # two, so that both directions run at once; none on a CPU


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What has been seen on one path."""

    gbps: list[float] = field(default_factory=list)
    words: int = 0
    miscompared_words: int = 0


def run_bandwidth(bench: Bench, *, length_s: float, phase: str = TOGETHER) -> None:
    """Copy along each path for its share of ``length_s`` seconds, and check what arrived."""
    started, checked = time.monotonic(), 0
    rig = _set_up(bench)
    if phase == TOGETHER:
        _prove_detector(bench, rig)
    if bench.only_controls:
        return
    for index, path in enumerate(PATHS):
        tally, salt = _Tally(), 0
        until = started + length_s * (index + 1) / len(PATHS)
        while salt < ROUNDS_MIN or time.monotonic() < until:
            _round(bench, rig, path, salt, tally)
            salt += 1
        _tell(bench, rig, path, phase, tally)
        checked += tally.words
    bench.say_loaded(STAGE, loaded_s=time.monotonic() - started, checked_elements=checked)


def _set_up(bench: Bench) -> _Rig:
    count, is_gpu = SIZE_BYTES[bench.kind] // 8, bench.kind == "cuda"
    index = torch.arange(count, dtype=torch.int64, device=bench.torch_device)
    device_source = scramble(index, bench.seed)
    # Pinned, or the driver would copy through a buffer of its own and we would measure that.
    host_source, host_target = (torch.empty(count, dtype=torch.int64, pin_memory=is_gpu) for _ in range(2))
    host_source.copy_(device_source)
    bench.pace.step()
    return _Rig(
        host_source=host_source,
        host_target=host_target,
        device_source=device_source,
        device_target=torch.empty_like(device_source),
        is_pinned=is_gpu and host_source.is_pinned() and host_target.is_pinned(),
        streams=[_stream(bench) for _ in range(2)] if is_gpu else [],
    )


def _stream(bench: Bench) -> torch.cuda.Stream:
    return torch.cuda.Stream(bench.torch_device)  # type: ignore[no-untyped-call]


def _copies(rig: _Rig, path: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return target and source of each copy that a path is made of."""
    within = (rig.device_target, rig.device_source)
    to_device, to_host = (rig.device_target, rig.host_source), (rig.host_target, rig.device_source)
    return {
        "device copy": [within],
        "host to device": [to_device],
        "device to host": [to_host],
        "both directions": [to_device, to_host],
    }[path]


def _round(bench: Bench, rig: _Rig, path: str, salt: int, tally: _Tally) -> None:
    """Time a few copies of contents that no earlier round had, then check every word that arrived."""
    for source in (rig.host_source, rig.device_source):
        source.bitwise_xor_(salt + 1)
    copies = _copies(rig, path)
    wait_for_device(rig.device_source)
    clock = time.process_time if bench.kind == "cpu" else time.perf_counter
    count = COPIES[bench.kind] * (SLOW_FACTOR if "slow" in bench.seeded else 1)
    started = clock()
    for _ in range(count):
        _copy_all(rig, copies)
    wait_for_device(rig.device_source)
    took_s = max(clock() - started, 1e-9)
    moved = SIZE_BYTES[bench.kind] * COPIES[bench.kind]
    # Per direction; a copy within the device reads and writes the same memory, and both count.
    tally.gbps.append(moved * (2 if path == "device copy" else 1) / took_s / 1e9)
    if salt == 1:
        _seed_fault(bench, copies[-1][0])
    for target, _ in copies:
        own = rig.host_source if target is rig.host_target else rig.device_source
        _check(bench, path, target, own, tally)
    bench.pace.step()


def _copy_all(rig: _Rig, copies: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    if not rig.streams:
        for target, source in copies:
            target.copy_(source)
        return
    for stream, (target, source) in zip(rig.streams, copies, strict=False):
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)


def _check(bench: Bench, path: str, target: torch.Tensor, own: torch.Tensor, tally: _Tally) -> None:
    """Compare with the source of the side that received: the two sides make the same, each on its own."""
    miscompare = compare(target, own)
    tally.words += target.numel()
    if miscompare is None:
        return
    tally.miscompared_words += miscompare.count
    if tally.miscompared_words > MISCOMPARES_TOLD_MAX * miscompare.count:
        return
    bench.speaker.say(
        "miscompare",
        stage=STAGE,
        device=bench.device,
        format=path,
        product=len(tally.gbps) - 1,
        elements=miscompare.count,
        addresses=[address * 8 for address in miscompare.addresses],
        patterns=miscompare.patterns,
        period=None if miscompare.period is None else miscompare.period * 8,
    )


def _seed_fault(bench: Bench, target: torch.Tensor) -> None:
    if "bit_flip" in bench.seeded:
        place = random.Random(f"{bench.seed}/{bench.device}/copy")
        flip_bit(target, address=place.randrange(target.numel()), bit=place.randrange(64))
    bench.act_dead()


def _prove_detector(bench: Bench, rig: _Rig) -> None:
    """Flip one bit in what a copy brought and see whether the check names it."""
    rig.device_target.copy_(rig.device_source)
    address = bench.seed * 31 % rig.device_target.numel()
    flip_bit(rig.device_target, address=address, bit=bench.seed % 64)
    found = compare(rig.device_target, rig.device_source)
    bench.speaker.say(
        "control",
        stage=STAGE,
        device=bench.device,
        detector="bit flip in a copy",
        is_found=found is not None and found.addresses == [address],
        fidelity="end to end",
    )


def _tell(bench: Bench, rig: _Rig, path: str, phase: str, tally: _Tally) -> None:
    gbps = median(tally.gbps)
    name = path if bench.kind == "cuda" else f"{path} (memcpy in host memory)"
    bench.speaker.sample(STAGE, device=bench.device, path=name, phase=phase, gbps=gbps)
    bench.speaker.say(
        "bandwidth.result",
        stage=STAGE,
        device=bench.device,
        path=path,
        phase=phase,
        means="copy engine" if bench.kind == "cuda" else "memcpy in host memory",
        is_pinned=rig.is_pinned,
        size_bytes=SIZE_BYTES[bench.kind],
        rounds=len(tally.gbps),
        gbps=gbps,
        gbps_min=min(tally.gbps),
        gbps_max=max(tally.gbps),
        words=tally.words,
        miscompared_words=tally.miscompared_words,
    )

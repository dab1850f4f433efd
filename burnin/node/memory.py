"""The memory stage on one device: patterns over nearly all that is free, every word checked on the device.

Products run beside it all the time: memory that fails tends to do so under load, and to be right when idle.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import torch

from burnin.node.bench import Bench
from burnin.node.beside import Load, keep_loaded, settle, start_load
from burnin.node.exact import Miscompare, compare
from burnin.node.pattern import PATTERNS, expected_words
from burnin.node.product import flip_bit
from probes.host import read_room
from probes.json_types import JsonObject

STAGE = "memory"
WORD_BYTES = 8
SHARE = 0.96  # of the free memory of a GPU; what is left holds the chunk that is expected
BLOCK_BYTES = 1 << 30  # what is asked for at once; smaller towards the end
BLOCK_BYTES_MIN = 1 << 24
CPU_SHARE = 0.02  # a host's memory is in use by others; a bounded part only shows that the test works
CPU_BYTES_MAX = 1 << 25
CHUNK_BYTES = {"cpu": 1 << 22, "cuda": 1 << 26}  # checked at once
MISCOMPARES_TOLD_MAX = 16
STUCK_EVERY = 4096  # words between those that a seeded stuck bit hits


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What has been seen with one pattern."""

    passes: int = 0
    words: int = 0
    wall_s: float = 0.0
    work_s: float = 0.0  # the same on a GPU; on cores only the time that they worked for us
    load_busy_s: float = 0.0
    load_flops: float = 0.0
    miscompared_words: int = 0
    told: int = 0


def run_memory(bench: Bench, *, length_s: float, options: JsonObject) -> None:
    """Write and check every pattern once at least, and go on until ``length_s`` seconds are over."""
    until, started = time.monotonic() + length_s, time.monotonic()
    _prove_detector(bench)
    if bench.only_controls:
        return
    blocks, load = _take_memory(bench, bytes_max=options.get("bytes_max"))
    tallies = {name: _Tally() for name in PATTERNS}
    turn = 0
    while not turn or time.monotonic() < until:
        for name in PATTERNS:
            if turn and time.monotonic() >= until:
                break
            _pass(bench, blocks, load, name, turn, tallies[name])
        turn += 1
    for name, tally in tallies.items():
        _tell(bench, load, name, tally)
    checked = sum(tally.words for tally in tallies.values())
    bench.say_loaded(STAGE, loaded_s=time.monotonic() - started, checked_elements=checked)
    blocks.clear()
    del load
    if bench.kind == "cuda":
        torch.cuda.empty_cache()


def _take_memory(bench: Bench, *, bytes_max: int | None) -> tuple[list[torch.Tensor], Load]:
    """Reserve what the load needs, then take nearly all that was free, and put on the record how much."""
    if bench.kind == "cuda":
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(bench.torch_device)
        wanted = int(free * SHARE)
    else:
        free = int(read_room()["memory_available_bytes"] or CPU_BYTES_MAX)
        wanted = min(int(free * CPU_SHARE), CPU_BYTES_MAX)
    wanted = min(wanted, bytes_max or wanted)
    load = start_load(bench)
    blocks, left, size = [], wanted, BLOCK_BYTES
    while left >= BLOCK_BYTES_MIN and size >= BLOCK_BYTES_MIN:
        size = min(size, left)
        try:
            count = size // WORD_BYTES
            blocks.append(torch.empty(count, dtype=torch.int64, device=bench.torch_device))
            left -= size
        except torch.OutOfMemoryError:
            size //= 2  # what is free lies in pieces
        bench.pace.step()
    covered = sum(block.numel() * WORD_BYTES for block in blocks)
    bench.speaker.say("memory.share", device=bench.device, free_bytes=free, covered_bytes=covered)
    return blocks, load


def _pass(bench: Bench, blocks: list[torch.Tensor], load: Load, name: str, turn: int, tally: _Tally) -> None:
    """Write all of the memory, then check all of it: a word that lands at a second place is seen, too."""
    seed = turn if name != "random" else bench.seed * 1009 + turn
    started, cpu_started = time.perf_counter(), time.process_time()
    busy_s, flops = load.busy_s, load.flops
    for first, chunk in _chunks(bench, blocks):
        chunk.copy_(_expected(bench, name, first, chunk, seed))
        keep_loaded(load)
        bench.pace.step()
    _seed_fault(bench, blocks, name, turn)
    for first, chunk in _chunks(bench, blocks):
        _check(bench, chunk, _expected(bench, name, first, chunk, seed), name, first, tally)
        keep_loaded(load)
        bench.pace.step()
    settle(load)
    took_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    tally.passes += 1
    tally.wall_s += took_s
    tally.work_s += took_s if bench.kind == "cuda" else cpu_s
    tally.load_busy_s += load.busy_s - busy_s
    tally.load_flops += load.flops - flops
    moved = 2 * sum(block.numel() for block in blocks) * WORD_BYTES  # written once, read once
    bench.speaker.sample(STAGE, device=bench.device, pattern=name, gbps=moved / took_s / 1e9)


def _check(
    bench: Bench, chunk: torch.Tensor, expected: torch.Tensor, name: str, first: int, tally: _Tally
) -> None:
    miscompare = compare(chunk, expected)
    tally.words += chunk.numel()
    if miscompare is not None:
        again = compare(chunk, expected)
        _note(bench, name, first, miscompare, tally, repeated=again.count if again else 0)


def _chunks(bench: Bench, blocks: list[torch.Tensor]) -> list[tuple[int, torch.Tensor]]:
    """Return each chunk with the number of its first word, counted over all blocks."""
    size, first, chunks = CHUNK_BYTES[bench.kind] // WORD_BYTES, 0, []
    for block in blocks:
        for start in range(0, block.numel(), size):
            chunk = block[start : start + size]
            chunks.append((first + start, chunk))
        first += block.numel()
    return chunks


def _expected(bench: Bench, name: str, first: int, chunk: torch.Tensor, turn: int) -> torch.Tensor:
    return expected_words(name, first=first, count=chunk.numel(), turn=turn, device=bench.torch_device)


def _note(
    bench: Bench, name: str, first: int, miscompare: Miscompare, tally: _Tally, *, repeated: int
) -> None:
    """Put a miscompare on the record at once: the worker may not live to sum up."""
    tally.miscompared_words += miscompare.count
    tally.told += 1
    if tally.told > MISCOMPARES_TOLD_MAX:
        return
    bench.speaker.say(
        "miscompare",
        stage=STAGE,
        device=bench.device,
        format=name,
        product=tally.passes,
        elements=miscompare.count,
        addresses=[(first + address) * WORD_BYTES for address in miscompare.addresses],
        patterns=miscompare.patterns,
        period=None if miscompare.period is None else miscompare.period * WORD_BYTES,
        repeated=repeated,  # still wrong when read a second time: it lies in the memory, not on the way
    )


def _tell(bench: Bench, load: Load, name: str, tally: _Tally) -> None:
    bench.speaker.say(
        "memory.result",
        stage=STAGE,
        device=bench.device,
        pattern=name,
        passes=tally.passes,
        words=tally.words,
        gbps=2 * tally.words * WORD_BYTES / max(tally.wall_s, 1e-9) / 1e9,
        load=load.name,
        load_share=tally.load_busy_s / max(tally.work_s, 1e-9),
        load_tflops=tally.load_flops / max(tally.wall_s, 1e-9) / 1e12,
        miscompared_words=tally.miscompared_words,
    )


def _seed_fault(bench: Bench, blocks: list[torch.Tensor], name: str, turn: int) -> None:
    """Do to our own blocks, between writing and checking, what the user asked to see found."""
    if not bench.seeded or turn or name != "checkerboard":
        return
    place, block = random.Random(f"{bench.seed}/{bench.device}/memory"), blocks[-1]
    if "bit_flip" in bench.seeded:
        flip_bit(block, address=place.randrange(block.numel()), bit=place.randrange(64))
    if "stuck_bit" in bench.seeded:
        stuck = block[place.randrange(STUCK_EVERY) :: STUCK_EVERY]
        stuck.bitwise_or_(3 << 2 * place.randrange(31))  # two neighbours, of which one is clear in each word
    if "wrong_address" in bench.seeded:
        half = block.numel() // 2
        at = place.randrange(half - 1) | 1
        block[half + at - 1] = block[at]  # one word apart, so that even a checkerboard differs
    bench.act_dead()


def _prove_detector(bench: Bench) -> None:
    """Flip one bit in words of our own and see whether the check names it."""
    count = 1 << 16
    words = expected_words("random", first=0, count=count, turn=bench.seed, device=bench.torch_device)
    expected = words.clone()
    address = random.Random(bench.seed).randrange(count)
    flip_bit(words, address=address, bit=bench.seed % 64)
    found = compare(words, expected)
    bench.speaker.say(
        "control",
        stage=STAGE,
        device=bench.device,
        detector="bit flip in memory",
        is_found=found is not None and found.addresses == [address],
        fidelity="end to end",
    )

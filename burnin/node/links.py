"""The links stage on one device of a pair: one way, the other way, both at once; every word is checked.

On GPUs the two exchange through NCCL, which copies from peer to peer where the machine lets it, and says so;
on a CPU through gloo on loopback.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass, field
from statistics import median

import torch
import torch.distributed as dist

from burnin.node.bench import Bench
from burnin.node.exact import compare
from burnin.node.group import BACKEND, Group, goes_on, join, leave
from burnin.node.nccl_log import NcclLog
from burnin.node.pattern import expected_words
from burnin.node.product import flip_bit, wait_for_device
from burnin.node.rounds import link_name

STAGE = "links"
SIZE_BYTES = {"cpu": 1 << 20, "cuda": 1 << 28}
ROUNDS_MIN = 3
FIRST_TO_SECOND, SECOND_TO_FIRST, BOTH = "first to second", "second to first", "both ways"
WAYS = (FIRST_TO_SECOND, SECOND_TO_FIRST, BOTH)
TIMEOUT_S_MIN = 30.0
MISCOMPARES_TOLD_MAX = 4
# What a user can set to keep NCCL from copying from peer to peer.
STEERING = ("NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL", "NCCL_P2P_DIRECT_DISABLE", "NCCL_IGNORE_DISABLED_P2P")

_log: list[NcclLog] = []  # NCCL opens its log once in a process


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What this device has received one way."""

    rounds: int = 0
    gbps: list[float] = field(default_factory=list)
    words: int = 0
    miscompared_words: int = 0


def run_links(bench: Bench, *, length_s: float, group: Group, phase: str) -> None:
    """Exchange with the one partner for about ``length_s`` seconds."""
    started, checked = time.monotonic(), 0
    if bench.kind == "cuda" and not _log:
        _log.append(NcclLog())
    for log in _log:
        log.new_transports()  # of what came before, in which others took part
    join(bench, group, timeout_s=max(TIMEOUT_S_MIN, 4 * length_s))
    try:
        _prove_detector(bench, group)
        if bench.only_controls:
            return
        for way in WAYS:
            tally = _exchange(bench, group, way, length_s=length_s / len(WAYS))
            checked += tally.words
            if tally.rounds:
                _tell(bench, group, way, phase, tally)
    finally:
        leave()
    bench.say_loaded(STAGE, loaded_s=time.monotonic() - started, checked_elements=checked)


def _words(bench: Bench, sender: int, turn: int) -> torch.Tensor:
    """Return what a sender sends in one round: no other sender and no other round has the same."""
    count = SIZE_BYTES[bench.kind] // 8
    first = (2 * turn + sender) * count
    return expected_words("random", first=first, count=count, turn=bench.seed, device=bench.torch_device)


def _exchange(bench: Bench, group: Group, way: str, *, length_s: float) -> _Tally:
    """Send, receive and check until the first rank says that it is enough."""
    sends = way in (BOTH, FIRST_TO_SECOND if group.rank == 0 else SECOND_TO_FIRST)
    receives = way in (BOTH, SECOND_TO_FIRST if group.rank == 0 else FIRST_TO_SECOND)
    received = torch.empty(SIZE_BYTES[bench.kind] // 8, dtype=torch.int64, device=bench.torch_device)
    tally, until, turn = _Tally(), time.monotonic() + length_s, 0
    while True:
        sent = _words(bench, group.rank, turn) if sends else None
        expected = _words(bench, 1 - group.rank, turn) if receives else None
        if sent is not None and way != BOTH and turn == 1:
            _seed_fault(bench, sent)
        if not goes_on(bench, is_wanted=turn < ROUNDS_MIN or time.monotonic() < until):
            return tally
        took_s = _swap(bench, group, sent, received if receives else None)
        if expected is not None:
            _check(bench, group, way, received, expected, tally, took_s)
        turn += 1


def _swap(bench: Bench, group: Group, sent: torch.Tensor | None, received: torch.Tensor | None) -> float:
    """Send and receive what there is to send and to receive; return the seconds it took."""
    partner = 1 - group.rank
    operations = [] if sent is None else [dist.P2POp(dist.isend, sent, partner)]
    operations += [] if received is None else [dist.P2POp(dist.irecv, received, partner)]
    bench.pace.enter()
    started = time.perf_counter()
    for request in dist.batch_isend_irecv(operations):
        request.wait()
    wait_for_device(received if received is not None else torch.empty(0, device=bench.torch_device))
    took_s = time.perf_counter() - started
    bench.pace.leave()
    bench.pace.step()
    return took_s


def _check(
    bench: Bench,
    group: Group,
    way: str,
    received: torch.Tensor,
    expected: torch.Tensor,
    tally: _Tally,
    took_s: float,
) -> None:
    tally.rounds += 1
    tally.words += received.numel()
    tally.gbps.append(received.numel() * 8 / max(took_s, 1e-9) / 1e9)
    miscompare = compare(received, expected)
    if miscompare is None:
        return
    tally.miscompared_words += miscompare.count
    if tally.rounds <= MISCOMPARES_TOLD_MAX:
        bench.speaker.say(
            "miscompare",
            stage=STAGE,
            device=bench.device,
            link=link_name(*group.devices),
            sender=group.devices[1 - group.rank],
            format=way,
            product=tally.rounds - 1,
            elements=miscompare.count,
            addresses=[address * 8 for address in miscompare.addresses],
            patterns=miscompare.patterns,
            period=None if miscompare.period is None else miscompare.period * 8,
        )


def _seed_fault(bench: Bench, sent: torch.Tensor) -> None:
    """Spoil what this device sends: its partner has to see it."""
    if "bit_flip" in bench.seeded:
        place = random.Random(f"{bench.seed}/{bench.device}/link")
        flip_bit(sent, address=place.randrange(sent.numel()), bit=place.randrange(64))
    bench.act_dead()


def _prove_detector(bench: Bench, group: Group) -> None:
    """Receive a buffer in which we flip one bit ourselves, and see whether the check names it."""
    received = torch.empty(SIZE_BYTES[bench.kind] // 8, dtype=torch.int64, device=bench.torch_device)
    _swap(bench, group, _words(bench, group.rank, 0), received)
    address = bench.seed * 31 % received.numel()
    expected = _words(bench, 1 - group.rank, 0)
    before = compare(received, expected)
    flip_bit(received, address=address, bit=bench.seed % 64)
    found = compare(received, expected)
    bench.speaker.say(
        "control",
        stage=STAGE,
        device=bench.device,
        detector="bit flip in a received buffer",
        is_found=found is not None
        and found != before
        and (before is not None or found.addresses == [address]),
        fidelity="end to end",
    )


def _tell(bench: Bench, group: Group, way: str, phase: str, tally: _Tally) -> None:
    link, transports = link_name(*group.devices), _log[0].new_transports() if _log else []
    gbps = median(tally.gbps)
    subject = f"{link} {way}" if way == BOTH else link
    bench.speaker.sample(STAGE, link=subject, phase=phase, receiver=bench.device, gbps=gbps)
    bench.speaker.say(
        "link.result",
        stage=STAGE,
        link=link,
        receiver=bench.device,
        sender=group.devices[1 - group.rank],
        way=way,
        phase=phase,
        backend=BACKEND[bench.kind],
        transports=transports,  # as NCCL names them; P2P/…: from peer to peer
        nccl_settings={k: v for k, v in os.environ.items() if k in STEERING},
        size_bytes=SIZE_BYTES[bench.kind],
        rounds=tally.rounds,
        gbps=gbps,
        words=tally.words,
        miscompared_words=tally.miscompared_words,
    )

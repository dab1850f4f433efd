"""A short load on the host itself: each core computes what has one right answer, each node holds patterns.

One process on each core, so that a wrong result names the core; one on each node, bound to its cores, so that
its memory comes from there. Standard library only: vector units beyond those of hashing are not reached.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
import os
import re
import signal
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from burnin.node.disk_load import measure_disks
from burnin.node.speaker import Speaker
from probes.child import watch_lifeline
from probes.host import read_usable_cores
from probes.json_types import JsonObject

GRACE_S = 10.0
BLOCK_BYTES = 1 << 20
MEMORY_BYTES_MIN = 16 << 20
MEMORY_BYTES_PER_S = 64 << 20  # of the load's length; a node's part takes a fraction of it
MEMORY_BYTES_MAX = 512 << 20
_NODES = Path("/sys/devices/system/node")
_BYTES = bytes(range(256)) * 4096


def _float() -> bytes:
    x = 0.3
    for _ in range(20_000):  # chaotic: one wrong bit anywhere is another number at the end
        x = 3.9999 * x * (1.0 - x)
    return x.hex().encode()


def _integer() -> bytes:
    return hashlib.sha256(pow(3, 200_003, 2**2203 - 1).to_bytes(276, "little")).hexdigest().encode()


# What each core computes, and the one right answer, found on other machines than the one under test. IEEE 754
# leaves no choice in the floating-point one: each operation is rounded by itself.
CHECKS: dict[str, tuple[Callable[[], bytes], bytes]] = {
    "hash": (
        lambda: hashlib.sha256(_BYTES).hexdigest().encode(),
        b"fbbab289f7f94b25736c58be46a994c441fd02552cc6022352e3d86d2fab7c83",
    ),
    "integer": (_integer, b"8d58801890bca695156a2266b7a5a529927c7bf598c58271cfd61be792a5de46"),
    "float": (_float, b"0x1.06f966712a4cep-2"),
    "checksum": (lambda: hex(zlib.crc32(_BYTES)).encode(), b"0x4d0e435"),
}


def main() -> None:
    """Do what the first line says, then leave; leave at once with all children when the lifeline ends."""
    order = json.loads(sys.stdin.readline() or "null")
    if order is None:
        return
    watch_lifeline(lambda: os.killpg(0, signal.SIGKILL))
    load_host(Speaker("host"), length_s=float(order["length_s"]), disk=order.get("disk"))
    signal.pause()  # the agent ends us, and takes an end of our own for a death


def load_host(speaker: Speaker, *, length_s: float, disk: JsonObject | None) -> None:
    """Load cores, then memory, then disks, and say what came of each."""
    cores, nodes = read_usable_cores(), read_nodes()
    speaker.say("host.load", cores=cores, nodes=list(nodes), length_s=length_s, disk=disk)
    _prove(speaker)
    for result in _run_each({str(core): [core] for core in cores}, lambda: check_core(length_s), length_s):
        speaker.say("host.core", **result)
    size = round(min(max(length_s * MEMORY_BYTES_PER_S, MEMORY_BYTES_MIN), MEMORY_BYTES_MAX))
    for result in _run_each(nodes, lambda: check_memory(size), length_s):
        speaker.say("host.memory", **result)
    if disk is not None:
        for result in measure_disks(disk):
            speaker.say("host.disk", **result)
    speaker.say("host.load.done")


def _prove(speaker: Speaker) -> None:
    """Seed a wrong bit into each result and into memory, and see whether the checks find it."""
    found = {
        "wrong result of a core": [wrong_results(flipped=name) for name in CHECKS] == [[n] for n in CHECKS],
        "flipped bit in host memory": bool(
            check_memory(2 * BLOCK_BYTES, flipped_at=BLOCK_BYTES + 77)["wrong"]
        ),
    }
    for detector, is_found in found.items():
        said = {"stage": "preflight", "device": "agent", "fidelity": "end to end"}
        speaker.say("control", detector=detector, is_found=is_found, **said)


def check_core(length_s: float) -> JsonObject:
    """Compute on this core until the time is up, and at least once."""
    deadline, rounds = time.monotonic() + length_s, 0
    wrong: list[str] = []
    while not rounds or (time.monotonic() < deadline and not wrong):
        wrong = wrong_results()
        rounds += 1
    return {"rounds": rounds, "wrong": wrong}


def wrong_results(*, flipped: str = "") -> list[str]:
    """Return the checks whose answer is not the right one; ``flipped`` names one to spoil on purpose."""
    wrong = []
    for name, (compute, right) in CHECKS.items():
        got = compute()
        if name == flipped:
            got = bytes((got[0] ^ 1, *got[1:]))
        if got != right:
            wrong.append(name)
    return wrong


def check_memory(size: int, *, flipped_at: int | None = None) -> JsonObject:
    """Fill a region with each pattern and compare every byte; say at which offset what is wrong."""
    libc = ctypes.CDLL(None)
    for function in (libc.memcmp, libc.memcpy):
        function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    patterns = [b"\0" * BLOCK_BYTES, b"\x55" * BLOCK_BYTES, b"\xaa" * BLOCK_BYTES, _random_block()]
    wrong: list[JsonObject] = []
    write_s = read_s = 0.0
    with mmap.mmap(-1, size) as region:
        view = ctypes.c_char.from_buffer(region)
        start, blocks = ctypes.addressof(view), range(0, size - size % BLOCK_BYTES, BLOCK_BYTES)
        for number, pattern in enumerate(patterns):
            began = time.monotonic()
            for at in blocks:
                libc.memcpy(start + at, pattern, BLOCK_BYTES)
            filled = time.monotonic()
            if flipped_at is not None and number == 0:
                region[flipped_at] ^= 0x10
            bad = [at for at in blocks if libc.memcmp(start + at, pattern, BLOCK_BYTES)]
            write_s, read_s = write_s + filled - began, read_s + time.monotonic() - filled
            wrong += [_first_wrong(region, at, pattern) | {"pattern": number} for at in bad[:8]]
        del view
    total = len(patterns) * size / 1e9
    return {
        "bytes": size,
        "wrong": wrong,
        "write_gbps": round(total / max(write_s, 1e-9), 2),
        "read_gbps": round(total / max(read_s, 1e-9), 2),
    }


def _random_block() -> bytes:
    return b"".join(hashlib.sha512(n.to_bytes(4, "little")).digest() for n in range(BLOCK_BYTES // 64))


def _first_wrong(region: mmap.mmap, at: int, pattern: bytes) -> JsonObject:
    got = region[at : at + BLOCK_BYTES]
    offset = next((n for n in range(BLOCK_BYTES) if got[n] != pattern[n]), None)
    if offset is None:
        return {"offset": at, "got": None, "wanted": None}  # right again when read once more
    return {"offset": at + offset, "got": got[offset], "wanted": pattern[offset]}


def read_nodes(folder: Path = _NODES) -> dict[str, list[int]]:
    """Return the cores of each NUMA node that we may use; one node where the kernel names none."""
    usable, found = set(read_usable_cores()), {}
    for path in sorted(folder.glob("node[0-9]*/cpulist")):
        cores = usable & set(_cores(path.read_text()))
        if cores:
            found[path.parent.name] = sorted(cores)
    return found or {"node0": sorted(usable)}


def _cores(text: str) -> list[int]:
    pairs = re.findall(r"(\d+)(?:-(\d+))?", text)
    return [core for first, last in pairs for core in range(int(first), int(last or first) + 1)]


def _run_each(
    places: Mapping[str, Sequence[int]], work: Callable[[], JsonObject], length_s: float
) -> list[JsonObject]:
    """Do the work once on each place, all at the same time, in processes; ``died`` says how one ended."""
    reading, writing = os.pipe()
    pids = {_fork(name, cores, work, writing): name for name, cores in places.items()}
    os.close(writing)
    os.set_blocking(reading, False)
    text, ended = b"", dict[str, int]()
    deadline = time.monotonic() + 2 * length_s + GRACE_S
    while len(ended) < len(pids) and time.monotonic() < deadline:
        text += _read(reading)
        for pid in [pid for pid, name in pids.items() if name not in ended]:
            if os.waitpid(pid, os.WNOHANG)[0]:
                ended[pids[pid]] = 0
        time.sleep(0.01)
    text += _read(reading)
    os.close(reading)
    for pid, name in pids.items():
        if name not in ended:
            os.kill(pid, signal.SIGKILL)
    told = {row["place"]: row for row in map(json.loads, text.splitlines())}
    how = {name: "did not answer" if name not in ended else "died" for name in places}
    return [told.get(name) or {"place": name, "died": how[name]} for name in places]


def _fork(name: str, cores: Sequence[int], work: Callable[[], JsonObject], writing: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.sched_setaffinity(0, cores)
        line = json.dumps({"place": name, **work()}) + "\n"
        os.write(writing, line.encode())  # whole: it is shorter than what a pipe takes at once
    finally:
        os._exit(0)


def _read(reading: int) -> bytes:
    text = b""
    while True:
        try:
            chunk = os.read(reading, 65536)
        except BlockingIOError:
            return text
        if not chunk:
            return text
        text += chunk


if __name__ == "__main__":
    main()

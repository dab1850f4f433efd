"""Readings as they were taken, ten times a second: kept on the node within a bound, handed over at the end.

Only what a second comes to travels while the run is going on. When the bound is reached, the oldest go.
"""

from __future__ import annotations

import base64
import gzip
import json
import threading
import time
from collections import deque

from burnin.node.speaker import Speaker
from probes.json_types import JsonObject

RAW_BLOCK, RAW_KEPT = "raw.block", "raw.kept"
READINGS_PER_BLOCK = 2400  # half a minute of eight GPUs: 20 KiB, which is a line of moderate length
_LEVEL = 6


class RawStore:
    """Blocks of readings, compressed; joined they are one gzip file of JSON lines."""

    def __init__(self, *, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._lines: list[str] = []
        self._blocks: deque[tuple[int, bytes]] = deque()  # how many readings, and they
        self._bytes = self._dropped = 0
        self._lock = threading.Lock()  # two threads read GPUs once one of them hangs

    def add(self, gpu: str, reading: JsonObject) -> None:
        """Keep one reading of a GPU."""
        if not self._bytes_max:
            return
        line = json.dumps({"t_ns": time.time_ns(), "gpu": gpu, **reading}, separators=(",", ":"))
        with self._lock:
            self._lines.append(line + "\n")
            if len(self._lines) >= READINGS_PER_BLOCK:
                self._close_block()

    def _close_block(self) -> None:
        block = gzip.compress("".join(self._lines).encode(), _LEVEL, mtime=0)
        self._blocks.append((len(self._lines), block))
        self._lines.clear()
        self._bytes += len(block)
        while self._bytes > self._bytes_max:
            count, oldest = self._blocks.popleft()
            self._bytes -= len(oldest)
            self._dropped += count

    def hand_over(self, speaker: Speaker) -> None:
        """Say everything that was kept, and how much was not."""
        with self._lock:
            if self._lines:
                self._close_block()
            blocks, size, dropped = list(self._blocks), self._bytes, self._dropped
            self._blocks.clear()
            self._bytes = 0
        for _, block in blocks:
            speaker.say(RAW_BLOCK, gzip=base64.b64encode(block).decode())
        readings = sum(count for count, _ in blocks)
        speaker.say(RAW_KEPT, readings=readings, dropped=dropped, kept_bytes=size, bytes_max=self._bytes_max)

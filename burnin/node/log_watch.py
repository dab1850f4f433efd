"""Tells what the kernel's log says while the sampler runs, and of which GPU."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from burnin.node.speaker import Speaker
from probes.kernel_log import (
    Journal,
    KernelLog,
    LogAbsent,
    LogUnreadable,
    Trouble,
    find_trouble,
    open_log,
    pci_key,
)

EVERY_S = {"/dev/kmsg": 0.5, "journalctl -k": 10.0}  # a read of a descriptor, and a process of its own
TOLD_MAX = 500  # a flood of messages says nothing new


class LogWatch:
    """The kernel's log, from now on."""

    def __init__(self, speaker: Speaker, root: Path) -> None:
        self._speaker = speaker
        self._reading = threading.Lock()
        self._told = 0
        self._log: KernelLog | Journal | None = None  # None: it cannot be read
        self.gpus: Mapping[tuple[int, int, int], str] = {}  # UUIDs by where they sit, once that is known
        try:
            self._log = open_log(root)
            speaker.say("kernel.log", state="watched", reader=self._log.reader, detail="")
        except LogUnreadable as error:
            speaker.say("kernel.log", state="forbidden", reader="", detail=str(error))
        except LogAbsent as error:
            speaker.say("kernel.log", state="absent", reader="", detail=str(error))

    def follow(self) -> None:
        """Tell what comes, for ever. Ends at once where there is nothing to read."""
        while self._log is not None:
            self.tell_new()
            if self._log is not None:
                time.sleep(EVERY_S[self._log.reader])

    def tell_new(self) -> None:
        """Tell what has come since the last time."""
        with self._reading:
            if self._log is None:
                return
            lost = self._log.lost
            try:
                messages = self._log.read_new()
            except (LogUnreadable, LogAbsent, OSError) as error:
                self._log = None
                self._speaker.say("kernel.log", state="failed", reader="", detail=str(error))
                return
            if self._log.lost > lost:
                self._speaker.say("kernel.log", state="lost", reader=self._log.reader, detail="overwritten")
            for trouble in filter(None, map(find_trouble, messages)):
                self._tell(trouble)

    def _tell(self, trouble: Trouble) -> None:
        self._told += 1
        if self._told > TOLD_MAX:
            return
        key = pci_key(trouble.pci)
        gpu = self.gpus.get(key) if key is not None else None
        if trouble.what == "xid" and gpu is not None:
            self._speaker.say("kernel.xid", gpu=gpu, xid=trouble.code, text=trouble.text)
        else:
            self._speaker.say("kernel.trouble", gpu=gpu, **asdict(trouble))

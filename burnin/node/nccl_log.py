"""What NCCL says it really used: the transport of each channel, from its own log."""

from __future__ import annotations

import os
import re

# "host:12:34 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM/read"
_CHANNEL = re.compile(r"NCCL INFO Channel \d+(?:/\d+)? : .*?-> .*? (?:\[\w+\] )?via ([A-Z][A-Za-z0-9/_]*)")
TEXT_MAX = 1 << 22


class NcclLog:
    """The log of this process's NCCL; it must be opened before the first group is joined.

    It lies in memory and has no name, so that nothing of it is left behind, however this process ends.
    """

    def __init__(self) -> None:
        self._descriptor, self._read = os.memfd_create("overproof-nccl"), 0
        path = f"/proc/self/fd/{self._descriptor}"
        os.environ.update(NCCL_DEBUG="INFO", NCCL_DEBUG_SUBSYS="INIT,P2P,NET", NCCL_DEBUG_FILE=path)

    def new_transports(self) -> list[str]:
        """Return the transports that were named since the last time, each once."""
        text = os.pread(self._descriptor, TEXT_MAX, self._read)
        self._read += len(text)
        return read_transports(text.decode("utf-8", errors="replace"))

    def close(self) -> None:
        """Let the log go."""
        os.close(self._descriptor)


def read_transports(text: str) -> list[str]:
    """Return each transport that a log names, in order of its letters."""
    return sorted({found.group(1) for found in _CHANNEL.finditer(text)})

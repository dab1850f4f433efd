"""NCCL's log: written through the path that NCCL is told, read bit by bit, gone with the process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from burnin.node.nccl_log import NcclLog

LINES = """\
gpu-a:71:90 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM/read
gpu-a:71:90 [0] NCCL INFO Channel 01/0 : 7[7] -> 8[0] [send] via NET/IB/3/GDRDMA
"""


def test_transports_are_read_from_what_nccl_has_written_since_the_last_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NCCL_DEBUG", "NCCL_DEBUG_SUBSYS", "NCCL_DEBUG_FILE"):
        monkeypatch.setenv(name, "")
    log = NcclLog()

    with Path(os.environ["NCCL_DEBUG_FILE"]).open(
        "w"
    ) as written:  # as NCCL does: once, for the whole process
        written.write(LINES)
        written.flush()
        first = log.new_transports()
        written.write("gpu-a:71:90 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] [receive] via NET/Socket/1\n")
        written.flush()
        second, third = log.new_transports(), log.new_transports()
    log.close()

    assert (first, second, third) == (["NET/IB/3/GDRDMA", "P2P/CUMEM/read"], ["NET/Socket/1"], [])

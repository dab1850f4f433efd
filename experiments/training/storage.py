"""The storage that feeds a training job: ``python -m experiments.training.storage``.

A rank asks for the batch of one step in one line and gets its bytes. What a batch holds depends on seed, step
and rank alone, so a step that is repeated after a resume sees the same data.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
from pathlib import Path

from experiments.lab.control import socket_path
from experiments.training.job_folder import STORAGE_SOCKET
from experiments.training.parent import end_with_parent

BATCH_BYTES = 32 * 64  # samples, and numbers of a byte each


class Storage:
    """Answers every rank."""

    def __init__(self, *, seed: int, batch_s: float) -> None:
        self._seed, self._batch_s = seed, batch_s

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Give batches until the rank leaves."""
        try:
            while line := await reader.readline():
                await asyncio.sleep(self._batch_s)
                writer.write(random.Random(f"{self._seed} {line!r}").randbytes(BATCH_BYTES))
                await writer.drain()
        except OSError:
            pass  # it was killed
        finally:
            writer.close()


async def serve(folder: Path, *, seed: int, batch_s: float) -> None:
    """Serve batches on the folder's socket."""
    (folder / STORAGE_SOCKET).unlink(missing_ok=True)
    storage = Storage(seed=seed, batch_s=batch_s)
    with socket_path(folder, STORAGE_SOCKET) as path:
        server = await asyncio.start_unix_server(storage.answer, path)
    async with server:
        await server.serve_forever()


def main() -> int:
    """Serve until ended."""
    parser = argparse.ArgumentParser(prog="experiments.training.storage")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--batch-s", type=float, required=True, help="seconds that a batch takes")
    given = parser.parse_args()
    end_with_parent()
    os.umask(0o077)
    asyncio.run(serve(given.folder, seed=given.seed, batch_s=given.batch_s))
    return 0


if __name__ == "__main__":
    sys.exit(main())

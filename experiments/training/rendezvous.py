"""The store that torchrun's agents meet at, on no node: ``python -m experiments.training.rendezvous``.

An agent could host it; the job would then end with that node. The listening socket is given as standard
output, so the port is known before this process runs and stays the same when it is started again.
"""

from __future__ import annotations

import argparse
import datetime
import signal
import sys

from experiments.training.parent import end_with_parent


def main() -> int:
    """Host the store until ended."""
    parser = argparse.ArgumentParser(prog="experiments.training.rendezvous")
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    end_with_parent()
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is in its documentation

    store = TCPStore(
        "127.0.0.1",
        given.port,
        is_master=True,
        wait_for_workers=False,
        timeout=datetime.timedelta(seconds=30),
        master_listen_fd=sys.stdout.fileno(),
    )
    signal.pause()
    del store
    return 0


if __name__ == "__main__":
    sys.exit(main())

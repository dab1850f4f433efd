"""A network of a benchmark's own, on whose loopback an acknowledgement costs the one who sent the data.

Between two machines each does its own part of the network's work. On loopback the part of the sender's kernel
that takes an acknowledgement runs on the core of whoever causes it, and Linux acknowledges a small segment
when it is read: so the reader pays for both. On a route with ``quickack`` it acknowledges when the segment
comes, which on loopback is on the sender's core. A server sees no acknowledgement later than otherwise.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Sequence

_ROUTE = "dev lo table local proto kernel scope host src 127.0.0.1 quickack 1"
_SET_UP = (
    "ip link set lo up"
    f" && ip route change local 127.0.0.0/8 {_ROUTE} && ip route change local 127.0.0.1 {_ROUTE}"
    ' && exec "$@"'
)


def in_own_network(command: Sequence[str]) -> list[str]:
    """Return the command that runs another there, as the very process that is started."""
    names = ["--net"] if os.geteuid() == 0 else ["--net", "--map-root-user"]
    return ["unshare", *names, "sh", "-c", _SET_UP, "sh", *command]


@functools.cache
def has_own_network() -> bool:
    """Say whether this machine lets us have one."""
    try:
        return subprocess.run(in_own_network(["true"]), capture_output=True, check=False).returncode == 0
    except OSError:
        return False

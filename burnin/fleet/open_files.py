"""How many files this process may have open, which is what bounds the hosts that it can follow at once."""

from __future__ import annotations

import resource

FILES_PER_HOST = 24  # its connection, its timeline and a file for each of its series
FILES_BESIDE = 256  # everything else


def hosts_that_fit(hosts: int) -> int:
    """Raise the soft limit as far as these hosts need it and it may go; return how many fit at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hosts * FILES_PER_HOST + FILES_BESIDE
    if soft < wanted:
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(min(hosts, (soft - FILES_BESIDE) // FILES_PER_HOST), 1)

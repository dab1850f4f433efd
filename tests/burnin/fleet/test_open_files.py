"""As many hosts at once as this process may have files open for."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (256, {hard}))
from burnin.fleet.open_files import hosts_that_fit
print(hosts_that_fit(100), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def _fit(hard: int) -> str:
    code = CODE.format(hard=hard)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_soft_limit_is_raised_to_what_the_hosts_need() -> None:
    assert _fit(4096) == "100 2656\n"


def test_no_more_hosts_run_at_once_than_the_hard_limit_allows() -> None:
    assert _fit(1000) == "31 1000\n"

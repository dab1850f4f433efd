"""``python -m loadtests.endpoint``: the simulated endpoint until it is ended."""

from __future__ import annotations

import sys

from loadtests.endpoint.process import run_endpoint
from probes.errors import SuiteError

if __name__ == "__main__":
    try:
        run_endpoint(sys.argv[1:])
    except SuiteError as error:
        sys.stderr.write(f"overproof load endpoint: {error}\n")
        sys.exit(2)

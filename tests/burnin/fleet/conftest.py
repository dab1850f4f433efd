"""What the tests of the fleet share: one real Slurm with two nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.slurm import Slurm, running_slurm


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    with running_slurm(nodes=2) as running:
        yield running

"""What the tests of the burn-in share: torch without its warning about numpy, and the twin of NVML."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tests.twins.nvml import Scenario, build_twin

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch warns once where there is no numpy
    import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_twin(tmp_path_factory.mktemp("twin"))


@pytest.fixture(scope="session")
def old_twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_twin(tmp_path_factory.mktemp("old-twin"), has_violation=False)


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    return Scenario(tmp_path / "scenario")

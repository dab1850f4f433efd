"""A tenth of the crash matrix, chosen by seed: whatever is killed wherever, what was broken is mended."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from experiments.injecting.crash_points import POINTS, VARIABLE, crash_around, crash_at
from tests.experiments.crashes import (
    SIGNALS,
    Aftermath,
    Cell,
    all_cells,
    run_cell,
    sampled_cells,
    staying_lab,
)

LABS = 3  # at a time: a cell mostly waits for processes to start


def run_cells(cells: list[Cell], folder: Path) -> list[Aftermath]:
    folder.mkdir()
    with staying_lab(folder):
        return [run_cell(cell, folder) for cell in cells]


@pytest.mark.timeout(900)  # on a busy machine
def test_whatever_is_killed_wherever_the_lab_is_as_it_was_and_nothing_is_left(tmp_path: Path) -> None:
    cells = sampled_cells()

    with ThreadPoolExecutor(LABS) as pool:
        parts = [pool.submit(run_cells, cells[i::LABS], tmp_path / str(i)) for i in range(LABS)]
        aftermaths = [aftermath for part in parts for aftermath in part.result()]
    reached = [a for a in aftermaths if a.was_reached]

    assert {a.cell.name: a.problems for a in aftermaths if a.problems} == {}
    assert len(reached) > 0.9 * len(cells), sorted(a.cell.name for a in aftermaths if not a.was_reached)
    assert {a.exit_status for a in reached} <= {1, 3, 130, -9}
    assert {a.cell.signal for a in reached} == set(SIGNALS)


def test_the_matrix_has_every_signal_process_and_point() -> None:
    cells = all_cells()
    count = Counter((cell.signal, cell.whom, cell.point) for cell in cells)

    assert len(count) == len(SIGNALS) * (2 * len(POINTS) + len(POINTS) // 3)
    assert len(sampled_cells()) == round(len(cells) / 10)


def test_without_the_variable_a_crash_point_does_nothing() -> None:
    crash_at("inject.before")
    with crash_around("inject"):
        pass

    assert VARIABLE == "OVERPROOF_CRASH_POINT"

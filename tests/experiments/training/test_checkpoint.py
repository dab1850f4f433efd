"""Checkpoints: whole or not there, and a spoiled one is told from a whole one."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.training.checkpoint import (
    DATA_FILE,
    KEPT,
    MANIFEST_FILE,
    NEW,
    checkpoint_folder,
    load_newest,
    save_checkpoint,
    saved_steps,
)


def test_the_newest_whole_checkpoint_is_taken(tmp_path: Path) -> None:
    for step in (10, 100, 20):
        save_checkpoint(tmp_path, step, f"weights {step}".encode())

    assert load_newest(tmp_path) == (100, b"weights 100", [])


def test_without_checkpoints_a_job_begins_at_the_beginning(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "none") == (0, b"", [])


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        (DATA_FILE, b"weights 2o", "checksum"),
        (DATA_FILE, b"", "checksum"),
        (MANIFEST_FILE, b"", "cannot be read"),
        (MANIFEST_FILE, b"[]", "cannot be read"),
    ],
)
def test_a_spoiled_checkpoint_is_passed_over_and_named(
    tmp_path: Path, file: str, content: bytes, why: str
) -> None:
    for step in (10, 20):
        save_checkpoint(tmp_path, step, f"weights {step}".encode())
    (checkpoint_folder(tmp_path, 20) / file).write_bytes(content)

    step, data, passed_over = load_newest(tmp_path)

    assert (step, data) == (10, b"weights 10")
    assert [(gone, why in text) for gone, text in passed_over] == [(20, True)]


def test_a_checkpoint_that_was_being_written_is_none(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 10, b"weights")
    (tmp_path / f"{NEW}20").mkdir()
    (tmp_path / f"{NEW}20" / DATA_FILE).write_bytes(b"wei")

    assert load_newest(tmp_path)[0] == 10
    save_checkpoint(tmp_path, 20, b"more weights")
    assert load_newest(tmp_path) == (20, b"more weights", [])


def test_a_step_that_is_repeated_replaces_its_checkpoint_and_old_ones_go(tmp_path: Path) -> None:
    for step in range(10, 60, 10):
        save_checkpoint(tmp_path, step, b"first")
    save_checkpoint(tmp_path, 50, b"again")

    assert saved_steps(tmp_path) == [50, 40, 30][:KEPT]
    assert load_newest(tmp_path) == (50, b"again", [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-30", "step-40", "step-50"]

"""Checkpoints: a folder each, whole or not there, with a checksum that tells a spoiled one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

DATA_FILE, MANIFEST_FILE = "model.pt", "manifest.json"
NEW = ".new-"  # of a folder that is being written
KEPT = 3  # so that there is one to fall back on when the newest is spoiled


def save_checkpoint(folder: Path, step: int, data: bytes) -> None:
    """Write the checkpoint of a step; it appears at once and as a whole, and old ones go."""
    new, old = folder / f"{NEW}{step}", folder / f".old-{step}"
    for path in (new, old):
        shutil.rmtree(path, ignore_errors=True)  # what a crash has left
    new.mkdir(parents=True)
    manifest = {"step": step, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    _write(new / DATA_FILE, data)
    _write(new / MANIFEST_FILE, json.dumps(manifest).encode())
    final = checkpoint_folder(folder, step)
    if final.exists():  # from before a resume at an earlier step
        final.rename(old)
    new.rename(final)
    _sync(folder)
    shutil.rmtree(old, ignore_errors=True)
    for gone in saved_steps(folder)[KEPT:]:
        shutil.rmtree(checkpoint_folder(folder, gone), ignore_errors=True)


def saved_steps(folder: Path) -> list[int]:
    """Return the steps that have a checkpoint, whole or spoiled, the newest first."""
    names = (path.name.removeprefix("step-") for path in folder.glob("step-*"))
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies."""
    return folder / f"step-{step}"


def load_newest(folder: Path) -> tuple[int, bytes, list[tuple[int, str]]]:
    """Return the newest whole checkpoint as step and data, and those passed over with the reasons.

    Step 0 without data: there is none.
    """
    passed_over: list[tuple[int, str]] = []
    for step in saved_steps(folder):
        data, why = read_checkpoint(checkpoint_folder(folder, step))
        if not why:
            return step, data, passed_over
        passed_over.append((step, why))
    return 0, b"", passed_over


def read_checkpoint(path: Path) -> tuple[bytes, str]:
    """Return a checkpoint's data, and why it cannot be used; empty: it is whole."""
    try:
        manifest = json.loads((path / MANIFEST_FILE).read_bytes())
        data = (path / DATA_FILE).read_bytes()
        wanted = str(manifest["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return b"", f"cannot be read: {error}"
    found = hashlib.sha256(data).hexdigest()
    return data, "" if found == wanted else f"checksum {found[:12]}, written with {wanted[:12]}"


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

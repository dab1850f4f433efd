"""A full disk: one file takes what is free on a file system, but for what is to be left."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.host_agent.fault import Refused

# On the file system of / less than this ends more than what was to be tested: logs, logins, packages.
ROOT_LEFT_BYTES_MIN = 1 << 30
_STEP_BYTES = 1 << 30
_STEPS_MAX = 1 << 20
_SLACK_SHARE = 0.001  # of the disk: what metadata takes and what other writers do meanwhile
_SLACK_BYTES_MIN = 128 * 1024
_NAME = ".overproof-disk-full-"


@dataclass(frozen=True)
class Full:
    """Fills the file system of ``folder`` until ``leave_bytes`` or ``leave_percent`` of it are free.

    ``may_fill_root`` allows less than 1 GiB to be left on the file system of /.
    """

    name: str = "disk.full"

    def missing(self, arguments: dict[str, Any]) -> list[str]:
        """Say what must be there and is not."""
        folder = Path(str(arguments.get("folder") or "/"))
        if not folder.is_dir():
            return [f"there is no folder {folder}"]
        return [] if os.access(folder, os.W_OK) else [f"folder {folder} may not be written to"]

    def capture(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return what is free, what is to be left, and the name of the file that will make it so."""
        folder = _folder(arguments)
        if not folder.is_dir():
            raise Refused(f"there is no folder {folder}")
        folder = folder.resolve()
        size, free = _room(folder)
        leave = _leave_bytes(arguments, size)
        is_root = folder.stat().st_dev == Path("/").stat().st_dev
        if is_root and leave < ROOT_LEFT_BYTES_MIN and arguments.get("may_fill_root") is not True:
            raise Refused(
                f"{folder} lies on the file system of /, and {leave} bytes would be left there; at least "
                f"{ROOT_LEFT_BYTES_MIN}, or say may_fill_root: true if that is meant"
            )
        if free <= leave + _slack(size):
            raise Refused(f"{folder}: {free} bytes are free and {leave} are to be left: nothing to fill")
        token = secrets.token_hex(8)
        return {
            "subject": f"disk:{_mount_of(folder)}",
            "folder": str(folder),
            "mount": str(_mount_of(folder)),
            "leave_bytes": leave,
            "free_bytes": free,
            "file": str(folder / f"{_NAME}{token}"),
            "token": token,
        }

    def inject(self, state: dict[str, Any]) -> None:
        """Make the file and let it grow; what it holds first says that it is ours."""
        file, folder = Path(state["file"]), Path(state["folder"])
        if not Path(state["mount"]).is_mount():
            raise Refused(f"{state['mount']} is no longer mounted")
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise Refused(f"{file}: {error.strerror}") from error
        try:
            os.write(descriptor, state["token"].encode())
            os.fsync(descriptor)
            _grow(descriptor, folder, state["leave_bytes"])
        finally:
            os.close(descriptor)

    def verify(self, state: dict[str, Any]) -> tuple[bool, str]:
        """See what is free, with the file there."""
        folder = Path(state["folder"])
        size, free = _room(folder)
        is_there = Path(state["file"]).exists()
        is_full = free <= state["leave_bytes"] + _slack(size)
        return (
            is_there and is_full,
            f"{state['mount']}: {free} bytes are free of {size}, {state['file']} is "
            + ("there" if is_there else "not there"),
        )

    def undo(self, state: dict[str, Any]) -> tuple[bool, str, bool]:
        """Delete that very file, if it is there."""
        mount, file = Path(state["mount"]), Path(state["file"])
        if not mount.is_mount():
            return False, f"{mount} is not mounted, and {file} may still be on it", False
        try:
            has_deleted = _delete(file, state["token"])
        except OSError as error:
            return False, f"{file}: {error.strerror}", False
        if file.exists():
            return (
                False,
                f"{file} is not ours: a regular file that begins with {state['token']} was expected",
                False,
            )
        _, free = _room(mount)
        said = f"deleted {file}" if has_deleted else f"nothing to do: there is no {file}"
        return True, f"{said}; {free} bytes are free, before it were {state['free_bytes']}", has_deleted


def _folder(arguments: dict[str, Any]) -> Path:
    text = str(arguments.get("folder") or "")
    if not text.startswith("/"):
        raise Refused(f"folder: wanted an absolute path on the disk that is to be filled, got {text!r}")
    return Path(text)


def _leave_bytes(arguments: dict[str, Any], size: int) -> int:
    given = [key for key in ("leave_bytes", "leave_percent") if arguments.get(key) is not None]
    if len(given) != 1:
        raise Refused("give one of leave_bytes and leave_percent: what is to be left free")
    value = float(arguments[given[0]])
    leave = int(value if given[0] == "leave_bytes" else size * value / 100)
    if not 0 <= leave < size:
        raise Refused(f"{given[0]}: {value:g} is not between nothing and the whole disk")
    return leave


def _room(folder: Path) -> tuple[int, int]:
    """Return the size of a file system, and what programs without privileges may still write."""
    found = os.statvfs(folder)
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def _slack(size: int) -> int:
    return max(_SLACK_BYTES_MIN, int(size * _SLACK_SHARE))


def _mount_of(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.is_mount())


def _grow(descriptor: int, folder: Path, leave: int) -> None:
    """Reserve blocks until only ``leave`` are free; smaller steps where the last one did not fit."""
    step = _STEP_BYTES
    for _ in range(_STEPS_MAX):
        wanted = min(_room(folder)[1] - leave, step)
        block = os.fstatvfs(descriptor).f_frsize
        if wanted < block:
            return
        try:
            os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, wanted)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise Refused(f"{folder}: {error.strerror}") from error
            step = wanted // 2
            if step < block:
                return


def _delete(file: Path, token: str) -> bool:
    """Delete the file by the folder that we hold open, once what it is was seen in the file itself."""
    try:
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(file.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            try:
                opened = os.fstat(descriptor)
                begins = os.read(descriptor, len(token)) if stat.S_ISREG(opened.st_mode) else b"?"
                named = os.stat(file.name, dir_fd=folder, follow_symlinks=False)
            finally:
                os.close(descriptor)
            # Empty: we were ended between making it and writing into it.
            is_ours = begins in (token.encode(), b"") and stat.S_ISREG(opened.st_mode)
            if is_ours and (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino):
                os.unlink(file.name, dir_fd=folder)
                return True
        return False
    finally:
        os.close(folder)


FULL = Full()

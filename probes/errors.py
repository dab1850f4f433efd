"""Broken promises between us and the world. Bad hardware is a finding, not an error.

Each message is one complete line: where, what was wanted, what came, what to do.
"""

from __future__ import annotations


class SuiteError(Exception):
    """Something that ends a command with a clear line; see the subclasses for the exit code."""


class ConfigError(SuiteError):
    """The user's file, flag or folder is wrong, or a port is taken. Exit code 2."""


class TargetError(SuiteError):
    """A host, GPU or endpoint could not be reached or used at all. Exit code 3."""


class RecordError(SuiteError):
    """The run record can no longer be written, as on a full disk. Exit code 3."""


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP asked us to stop. Exit code 130.

    A ``BaseException``, so that no library between us and the signal can take it for a failed action.
    """

    def __init__(self, signal_name: str) -> None:
        super().__init__(signal_name)
        self.signal_name = signal_name

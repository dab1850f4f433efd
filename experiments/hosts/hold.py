"""Keeps other game days off hosts, by a lock on each that is held as long as this process says so."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence

from experiments.faults.fault import FaultRefused
from experiments.hosts.host import Host
from experiments.hosts.session import HostSession
from probes.errors import ConfigError, SuiteError

_EVERY_S = 15.0  # the agent leaves a line that is silent for a minute, and with it goes the lock


class HostHold:
    """The locks of one game day."""

    def __init__(self, hosts: Sequence[Host], run: str) -> None:
        self._sessions = [HostSession(host) for host in hosts]
        self._run, self._by = run, f"{run} of {os.uname().nodename}"
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="host hold", daemon=True)

    def take(self) -> None:
        """Take them all, or none.

        Raises:
            ConfigError: another game day has one.
            TargetError: a host cannot be reached.
        """
        try:
            for session in self._sessions:
                session.ask("hold", run=self._run, by=self._by)
        except FaultRefused as error:
            self._close()
            raise ConfigError(f"target {error}; wait for its end") from error
        except SuiteError:
            self._close()
            raise
        self._thread.start()

    def _renew(self) -> None:
        while not self._leaving.wait(_EVERY_S):
            for session in self._sessions:
                # A host that a fault cuts off keeps us out of it too; what is armed there keeps others off.
                with contextlib.suppress(SuiteError):
                    session.ask("hold", run=self._run, by=self._by, within_s=5.0, connect_s=5.0)

    def release(self) -> None:
        """Give them back."""
        self._leaving.set()
        if self._thread.is_alive():
            self._thread.join(timeout=15.0)
        for session in self._sessions:
            with contextlib.suppress(SuiteError):  # what cannot be reached gives it back by itself
                session.ask("release", within_s=5.0, connect_s=2.0)
        self._close()

    def _close(self) -> None:
        for session in self._sessions:
            session.close()

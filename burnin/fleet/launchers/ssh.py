"""Programs on hosts that are reached over SSH: one connection for each, which several programs share."""

from __future__ import annotations

import threading
import time

import paramiko

from burnin.fleet.host import Host
from burnin.fleet.launchers.bootstrap import shell_command
from burnin.fleet.launchers.channel import Channel, Program
from burnin.fleet.launchers.hello import begin
from burnin.fleet.launchers.pipes import CHUNK_BYTES, ERRORS_BYTES_MAX, WRITE_WITHIN_S
from probes.errors import TargetError
from probes.ssh import CONNECTS_MAX, SshConnections, closing_after
from probes.ssh_config import SshTarget

END_WITHIN_S = 5.0


class SshChannel:
    """The two streams of a program behind an SSH connection."""

    def __init__(self, session: paramiko.Channel, host: str) -> None:
        self.begin_s = 0.0
        self._session = session
        self._host = host
        self._held: bytes | None = None  # None: nothing has been read ahead; empty: it has ended
        self._errors = b""

    def write(self, data: bytes) -> None:
        """Send to its standard input."""
        rest, deadline = memoryview(data), time.monotonic() + WRITE_WITHIN_S
        while rest:
            self._session.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                sent = self._session.send(bytes(rest[:CHUNK_BYTES]))
            except TimeoutError as error:
                raise TargetError(f"{self._host}: takes no input for {WRITE_WITHIN_S:.0f} s") from error
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise TargetError(f"{self._host}: the connection is gone: {error}") from error
            if not sent:
                raise TargetError(f"{self._host}: the connection is gone")
            rest = rest[sent:]

    def wait(self, within_s: float) -> bool:
        """Wait for output or its end."""
        if self._held is None:
            self._session.settimeout(max(within_s, 0.001))
            try:
                self._held = self._session.recv(CHUNK_BYTES)
            except TimeoutError:
                return False
            finally:
                self._keep_errors()
        return True

    def _keep_errors(self) -> None:
        while self._session.recv_stderr_ready():
            data = self._session.recv_stderr(CHUNK_BYTES)
            if not data:
                return
            self._errors = (self._errors + data)[-ERRORS_BYTES_MAX:]

    def read(self) -> bytes:
        """Return what came from its standard output; empty at its end."""
        while not self.wait(3600.0):
            pass
        assert self._held is not None
        held, self._held = self._held, None
        return held

    def unread(self, data: bytes) -> None:
        """Put back what was read too far."""
        if data:
            self._held = data + (self._held or b"")

    def errors(self) -> bytes:
        """Return the last that came from its standard error."""
        return self._errors

    def end(self) -> int | None:
        """Close both streams, upon which the program leaves; None where the host did not say how it ended."""
        try:
            self._session.shutdown_write()
            self._session.status_event.wait(END_WITHIN_S)
            self._keep_errors()
        except (OSError, EOFError, paramiko.SSHException):
            return None
        finally:
            self._session.close()
        status = self._session.exit_status
        return status if self._session.status_event.is_set() and status >= 0 else None


class SshLauncher:
    """Starts programs on hosts over SSH."""

    def __init__(self, *, connects_max: int = CONNECTS_MAX) -> None:
        self._connections = SshConnections(connects_max=connects_max)
        self._clients: dict[str, paramiko.SSHClient] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def start(self, host: Host, program: Program, *, within_s: float) -> Channel:
        """Start a program on a host.

        Raises:
            ConfigError: the SSH configuration is wrong.
            TargetError: the host is not reached within ``within_s``, refuses us, or is not who it should be.
        """
        client = self._client(host, within_s)
        began = time.monotonic()
        transport = client.get_transport()
        if transport is None:
            raise TargetError(f"{host.name}: the connection is gone")
        try:
            # A host that answers nothing any more: the login shell has its own time, said by ``begin``.
            with closing_after(within_s + END_WITHIN_S, client):
                session = transport.open_session(timeout=within_s)
                session.exec_command(shell_command(host.access.python, host.access.wrapper))
                left_s = max(began + within_s - time.monotonic(), 0.0)
                return begin(SshChannel(session, host.name), program, host=host.name, within_s=left_s)
        except paramiko.ChannelException as error:
            reason = f"refuses one more session on a connection ({error}); see MaxSessions of its sshd"
            raise TargetError(f"{host.name}: {reason}") from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise TargetError(f"{host.name}: the connection broke while a program began: {error}") from error

    def _client(self, host: Host, within_s: float) -> paramiko.SSHClient:
        """Return the connection to a host, made anew where there is none that lives."""
        with self._lock:
            lock = self._locks.setdefault(host.name, threading.Lock())
        with lock:
            client = self._clients.get(host.name)
            transport = client.get_transport() if client else None
            if client is None or transport is None or not transport.is_active():
                client = self._clients[host.name] = self._connections.connect(
                    _target(host), within_s=within_s
                )
            return client

    def close(self) -> None:
        """Close every connection; what still runs at the other end leaves then."""
        with self._lock:
            clients = list(self._clients.values())
            self._clients.clear()
        for client in clients:
            client.close()
        self._connections.close()


def _target(host: Host) -> SshTarget:
    access = host.access
    return SshTarget(
        name=host.name,
        address=access.address,
        user=access.user,
        port=access.port,
        identity_file=access.identity_file,
        proxy_jump=access.proxy_jump,
    )

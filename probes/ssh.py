"""SSH connections that an administrator accepts: known hosts only, the user's own configuration, deadlines.

Deadlines are for the whole of what is asked: those of paramiko are for single steps. A host whose key is not
known, or is another than the known one, is refused with its fingerprint, whatever the configuration says.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from probes.child import signal_group
from probes.errors import TargetError
from probes.host_certificate import read_certificate, why_not_vouched
from probes.known_hosts import SSH_PORT, KnownHosts, fingerprint, load_known_hosts
from probes.ssh_config import Route, SshTarget, find_route, jump_target, load_ssh_config

CONNECTS_MAX = 32  # at once: sshd drops logins beyond its MaxStartups
KEEPALIVE_S = 15
# How often each connection looks whether it is still wanted. paramiko's own tenth of a second takes, with 500
# connections, most of a core, and hosts are lost for want of it (measured 2026-11).
POLL_S = 1.0
JUMPS_MAX = 8
_TRIES = 4  # for a server that is too busy to greet
_RETRY_S = 0.5
_COMPARE = "compare it on the host's console (ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub)"
_RSA = ("rsa-sha2-512", "rsa-sha2-256")

logging.getLogger("paramiko").addHandler(
    logging.NullHandler()
)  # what it has to say, we say with the host's name


class NotLetIn(TargetError):
    """A host is not who it should be, or does not take us for who we are."""


class SshConnections:
    """Connections to many hosts; those to jump hosts are shared."""

    def __init__(self, *, connects_max: int = CONNECTS_MAX, home: Path | None = None) -> None:
        self._config = load_ssh_config(home)
        self._gate = threading.Semaphore(connects_max)
        self._known: dict[tuple[Path, ...], KnownHosts] = {}
        self._jumps: dict[tuple[str, ...], paramiko.SSHClient] = {}
        self._proxies: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._jump_lock = threading.RLock()

    def connect(self, target: SshTarget, *, within_s: float) -> paramiko.SSHClient:
        """Log in to a host; waiting for others to log in does not count.

        Raises:
            ConfigError: the SSH configuration is wrong.
            TargetError: it is not reached within ``within_s``, is not who it should be, or lets us not in.
        """
        route = find_route(target, self._config)
        with self._gate:
            deadline = time.monotonic() + within_s
            for tries in range(_TRIES):
                try:
                    return self._log_in(route, self._open(route, deadline), deadline)
                except (paramiko.SSHException, OSError, EOFError) as error:
                    left_s = deadline - time.monotonic()
                    if left_s <= 0:
                        raise TargetError(f"{_where(route)}: not reached within {within_s:.0f} s") from error
                    if tries == _TRIES - 1 or not _is_busy(error):
                        kind = (
                            NotLetIn if isinstance(error, paramiko.AuthenticationException) else TargetError
                        )
                        raise kind(f"{_where(route)}: {_explain(route, error)}") from error
                    time.sleep(min(left_s, _RETRY_S * (tries + random.random())))
        raise AssertionError("the last try returns or raises")

    def _open(self, route: Route, deadline: float, *, depth: int = 0) -> Any:
        """Return a socket, or what looks like one, to a host's SSH port."""
        if depth > JUMPS_MAX:
            raise TargetError(f"{_where(route)}: more than {JUMPS_MAX} jumps lead to it; see ProxyJump")
        if route.proxy_command is not None:
            return self._start_proxy(route.proxy_command)
        if not route.jumps:
            address = _resolve(route.address, route.port, _left(deadline))
            return socket.create_connection(address, timeout=_left(deadline))
        return _pass_through(self._jump(route.jumps, deadline, depth), route, deadline)

    def _jump(self, jumps: tuple[str, ...], deadline: float, depth: int) -> paramiko.SSHClient:
        """Return the connection to the last of these hops, made once for all hosts behind it."""
        with self._jump_lock:
            known = self._jumps.get(jumps)
            transport = known.get_transport() if known else None
            if known is not None and transport is not None and transport.is_active():
                return known
            route = find_route(jump_target(jumps[-1]), self._config)
            if len(jumps) > 1:
                link = _pass_through(self._jump(jumps[:-1], deadline, depth + 1), route, deadline)
            else:
                link = self._open(route, deadline, depth=depth + 1)
            self._jumps[jumps] = self._log_in(route, link, deadline)
            return self._jumps[jumps]

    def _start_proxy(self, command: str) -> socket.socket:
        """Run the user's own ProxyCommand the way OpenSSH does, its streams one end of a socket pair."""
        ours, theirs = socket.socketpair()
        with theirs:
            words = ["/bin/sh", "-c", f"exec {command}"]
            end = theirs.fileno()
            process = subprocess.Popen(words, stdin=end, stdout=end, start_new_session=True)
        with self._lock:
            self._proxies.append(process)
        return ours

    def _log_in(self, route: Route, link: Any, deadline: float) -> paramiko.SSHClient:
        with self._lock:
            if route.known_hosts_files not in self._known:
                self._known[route.known_hosts_files] = load_known_hosts(route.known_hosts_files)
            known = self._known[route.known_hosts_files]
        port = route.port if route.key_name == route.address else SSH_PORT
        keys = known.keys_of(route.key_name, port)
        client = paramiko.SSHClient()
        authorities = known.authorities_of(route.key_name, port)
        client.set_missing_host_key_policy(_OnlyKnown(route, known, keys, authorities))
        files = [file for file in route.identity_files if Path(file).exists()]
        left_s = _left(deadline)
        try:
            with closing_after(left_s, client, link):
                client.connect(
                    route.address,
                    port=route.port,
                    username=route.user,
                    key_filename=files or None,  # type: ignore[arg-type]  # a list is as good
                    sock=link,
                    timeout=left_s,
                    banner_timeout=left_s,
                    auth_timeout=left_s,
                    channel_timeout=left_s,
                    allow_agent=route.is_agent_asked and _has_agent(),
                    look_for_keys=not route.identity_files,
                    transport_factory=lambda sock, **rest: _transport(
                        sock, keys, with_certificates=bool(authorities), **rest
                    ),
                )
        except BaseException:  # a login that failed leaves its thread alive until it is closed
            client.close()
            link.close()
            raise
        transport = client.get_transport()
        assert transport is not None
        transport.set_keepalive(KEEPALIVE_S)
        return client

    def close(self) -> None:
        """Close the connections to jump hosts and end what ProxyCommand had started."""
        for client in self._jumps.values():
            client.close()
        for process in self._proxies:
            signal_group(process.pid, signal.SIGKILL)
            process.wait(timeout=10)
        self._jumps.clear()
        self._proxies.clear()


class _OnlyKnown(paramiko.MissingHostKeyPolicy):
    """Decides on every key: paramiko itself is told of none, since it looks at one type of key only."""

    def __init__(
        self, route: Route, known: KnownHosts, keys: Sequence[paramiko.PKey], authorities: Set[str]
    ) -> None:
        self._route, self._known, self._keys, self._authorities = route, known, keys, authorities

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        """Return where the key is the known one, or has a certificate of an authority that is known for it.

        Raises:
            NotLetIn: neither is so, or somebody declared it bad.
        """
        del client, hostname
        where, shown = _where(self._route), f"{key.get_name()} {fingerprint(key)}"
        if self._known.is_revoked(key):
            raise NotLetIn(
                f"{where}: its key {shown} is revoked in known_hosts; find out why before using it"
            )
        if key in self._keys:
            return
        why = self._why_not_vouched(key)
        if why is None:
            return
        if self._keys:
            wanted = ", ".join(f"{known.get_name()} {fingerprint(known)}" for known in self._keys)
            raise NotLetIn(
                f"{where}: its key has changed: expected {wanted}, got {shown}; somebody may be in between:"
                f" {_COMPARE}, then remove the old one with ssh-keygen -R"
            )
        raise NotLetIn(
            f"{where}: its key is not known: {shown}{why}; {_COMPARE},"
            f" then add it to {self._route.known_hosts_files[0]}"
        )

    def _why_not_vouched(self, key: paramiko.PKey) -> str | None:
        """Return why no authority vouches for a key, as the end of a sentence; None: one does."""
        if not self._authorities:
            return ""
        certificate = read_certificate(key)
        if certificate is None:
            return "; known_hosts has an authority for it, and it showed no certificate (HostCertificate)"
        why = why_not_vouched(
            certificate,
            name=self._route.key_name,
            authorities=self._authorities,
            revoked=self._known.revoked,
            now_s=time.time(),
        )
        return None if why is None else f"; its certificate {why}"


class _CertificatesFirst(paramiko.Transport):
    """A transport that asks for a key with a certificate before one without."""

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        names = super().preferred_keys
        return tuple(sorted(names, key=lambda name: "-cert-" not in name))


def _transport(
    sock: Any, keys: Sequence[paramiko.PKey], *, with_certificates: bool, **rest: Any
) -> paramiko.Transport:
    """Return a transport that asks the host for a key of a type that we know of it."""
    transport = (_CertificatesFirst if with_certificates else paramiko.Transport)(sock, **rest)
    transport.daemon = True
    transport.sock.settimeout(POLL_S)
    options = transport.get_security_options()
    known = {name for key in keys for name in (_RSA if key.get_name() == "ssh-rsa" else (key.get_name(),))}
    options.key_types = tuple(sorted(options.key_types, key=lambda name: name not in known))
    return transport


@contextlib.contextmanager
def closing_after(within_s: float, *closed: Any) -> Iterator[None]:
    """Close connections when the body takes too long; whatever it waits for then fails."""
    timer = threading.Timer(within_s, lambda: [each.close() for each in closed])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _has_agent() -> bool:
    """Say whether an agent listens; paramiko leaves a socket open that finds nobody."""
    return Path(os.environ.get("SSH_AUTH_SOCK", "")).is_socket()


def _pass_through(client: paramiko.SSHClient, route: Route, deadline: float) -> paramiko.Channel:
    transport = client.get_transport()
    if transport is None:
        raise TargetError(f"{_where(route)}: the connection to the jump host is gone")
    to = (route.address, route.port)
    return transport.open_channel("direct-tcpip", to, ("127.0.0.1", 0), timeout=_left(deadline))


def _resolve(address: str, port: int, within_s: float) -> tuple[str, int]:
    """Look a name up, within a time that the resolver does not know."""
    found: list[Any] = []

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][4][:2])
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=look_up, name=f"resolve {address}", daemon=True)
    thread.start()
    thread.join(within_s)
    answer = found[0] if found else TimeoutError(f"no answer about {address!r} from the resolver")
    if isinstance(answer, OSError):
        raise answer
    return str(answer[0]), int(answer[1])


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.01)


def _where(route: Route) -> str:
    """Return a host's name, and where it was looked for if that says more."""
    place = route.address if route.port == SSH_PORT else f"{route.address} port {route.port}"
    return route.name if place == route.name else f"{route.name} ({place})"


def _is_busy(error: Exception) -> bool:
    """A server with too many logins under way closes the connection before its greeting."""
    return isinstance(error, (ConnectionResetError, EOFError)) or "protocol banner" in str(error)


def _explain(route: Route, error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return f"no such name: {error.strerror}; correct it, or give its address"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: no sshd listens there"
    if isinstance(error, paramiko.PasswordRequiredException):
        return "the key is encrypted; add it to the agent: ssh-add"
    if isinstance(error, paramiko.AuthenticationException):
        tried = ", ".join(route.identity_files) or "the usual files"
        agent = "the agent's keys and " if route.is_agent_asked else ""
        return f"login as {route.user!r} refused; tried {agent}{tried} ({error})"
    if isinstance(error, IncompatiblePeer):
        return f"no common way to encrypt: {error}"
    if _is_busy(error):
        return f"closed the connection before the login was done ({error}); is its MaxStartups too low?"
    if isinstance(error, paramiko.ChannelException):
        return f"the jump host cannot reach it: {error}"
    return str(error) or type(error).__name__

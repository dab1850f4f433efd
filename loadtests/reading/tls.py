"""TLS between our own socket and HTTP: only reads that we make ourselves get the kernel's receive timestamps.

OpenSSL would read the socket itself and throw the timestamps away; so it gets bytes and gives bytes here, and
never sees a socket. A record's content appears with the read that holds its last byte, so it gets the time of
its last piece.
"""

from __future__ import annotations

import functools
import ssl
from pathlib import Path

from probes.errors import ConfigError

_READ_BYTES = 64 * 1024
_RECORD_TYPES = (0x14, 0x15, 0x16, 0x17)  # what any TLS record begins with


class TlsError(Exception):
    """The connection is not, or no longer, a sound TLS connection; the message says why."""


@functools.lru_cache(maxsize=8)  # reading the system's authorities takes 20 ms
def make_context(ca_file: str | None) -> ssl.SSLContext:
    """Return what every connection shares: the system's certificate authorities, or those of the file alone.

    Certificate and host name are always checked.

    Raises:
        ConfigError: the file holds no certificates.
    """
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else Path(ca_file).expanduser())
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror if isinstance(error, FileNotFoundError) else f"holds no certificates: {error}"
        raise ConfigError(f"endpoint.ca_file: {ca_file}: {reason}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


class TlsLayer:
    """One connection's TLS: bytes of the socket in, bytes of HTTP out, and the other way."""

    def __init__(self, context: ssl.SSLContext, server_name: str, *, is_server: bool = False) -> None:
        self.is_established = False
        self.is_ended = False  # the server has said that nothing more comes
        self.fault = ""  # what broke the connection after the handshake
        self._name = server_name
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=is_server,
            server_hostname=None if is_server else server_name,
        )
        self._first = b""  # that the server sent

    @property
    def has_more(self) -> bool:
        """Whether the last read held the beginning of a record that has not come whole."""
        return bool(self._incoming.pending)

    def shake(self, data: bytes = b"") -> bool:
        """Go on with the handshake; return whether it is done. What is to be sent is in ``to_send``.

        Raises:
            TlsError: it failed.
        """
        self._incoming.write(data)
        self._first = self._first or data[:16]
        if self._first and self._first[0] not in _RECORD_TYPES:
            raise TlsError(f"the server does not speak TLS there, it says {self._first!r}; is it http://?")
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise TlsError(reason_of(error, self._name)) from error
        self.is_established = True
        return True

    def to_send(self) -> bytes:
        """Return what is to be written to the socket now."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def encrypt(self, data: bytes) -> bytes:
        """Return the records that carry this data."""
        self._tls.write(data)
        return self._outgoing.read()

    def decrypt(self, data: bytes | memoryview) -> bytes:
        """Return what the records that are whole with this data carry; what comes after them is ``fault``."""
        self._incoming.write(data)
        pieces = []
        try:
            while self._incoming.pending or self._tls.pending():
                piece = self._tls.read(_READ_BYTES)
                if not piece:
                    self.is_ended = True
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.is_ended = True
        except ssl.SSLError as error:
            self.fault = reason_of(error, self._name)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def reason_of(error: ssl.SSLError, name: str) -> str:
    """Return why it failed, and what to do where that is known."""
    if isinstance(error, ssl.SSLCertVerificationError):
        message = str(error.verify_message).rstrip(".")
        if "mismatch" in message:
            return f"the certificate is not valid for {name!r}: {message}"
        if "self-signed" in message or "self signed" in message or "issuer" in message:
            return f"the certificate is of no known authority: {message}; name yours as endpoint.ca_file"
        return f"the certificate is refused: {message}"
    return (error.reason or str(error)).lower().replace("_", " ")

"""One page over HTTP, whole, in time and within a size, or an error that says why not.

For what a site's own services say of themselves (metrics, alerts): a slow, dead or hostile one disturbs
nothing but the question. Redirects are not followed, TLS is verified, and no proxy is asked.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What came back."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    t_sent_ns: int  # CLOCK_REALTIME right before the question
    t_head_ns: int  # and when the head of the answer was there


def is_web_address(url: str) -> bool:
    """Say whether this is an address to ask: HTTP or HTTPS, a host, and no password in it."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not (
            parts.username or parts.password
        )  # fmt: skip
    except ValueError:
        return False


def fetch(url: str, *, headers: Mapping[str, str], deadline_s: float, bytes_max: int) -> Page:
    """Ask for a page with GET.

    Raises:
        ValueError: it did not come whole, in time and within the size.
    """
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    is_late = threading.Event()
    data = b""
    try:
        with contextlib.closing(_connection(url, deadline_s)) as link, _deadline(link, is_late, deadline_s):
            t_sent_ns = time.time_ns()
            link.request("GET", target, headers=dict(headers))
            reply = link.getresponse()
            t_head_ns = time.time_ns()
            while chunk := reply.read1(65_536):
                data += chunk
                if len(data) > bytes_max:
                    raise ValueError(f"more than {bytes_max} bytes")
    except (OSError, http.client.HTTPException) as error:
        late = f"not within {deadline_s:g} s"
        is_timeout = is_late.is_set() or isinstance(error, TimeoutError)
        raise ValueError(late if is_timeout else str(error) or type(error).__name__) from error
    if is_late.is_set():  # what came by then may look whole
        raise ValueError(f"not within {deadline_s:g} s")
    told = {name.lower(): value for name, value in reply.getheaders()}
    return Page(status=reply.status, headers=told, body=data, t_sent_ns=t_sent_ns, t_head_ns=t_head_ns)


def _connection(url: str, timeout_s: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=timeout_s, context=context
        )
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)


@contextlib.contextmanager
def _deadline(
    link: http.client.HTTPConnection, is_late: threading.Event, deadline_s: float
) -> Iterator[None]:
    """Shut the connection once the time for all of the answer is up: each byte may come just in time."""

    link.connect()
    connected = link.sock  # the link itself forgets it when the answer has no length

    def shut() -> None:
        is_late.set()
        with contextlib.suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(deadline_s, shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()

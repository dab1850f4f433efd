"""The two streams of a program in a pod, which the cluster carries over a WebSocket."""

from __future__ import annotations

import select
import ssl
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any
from urllib.parse import urlencode

from burnin.fleet.launchers.pipes import ERRORS_BYTES_MAX, WRITE_WITHIN_S
from probes.errors import TargetError
from probes.kubernetes_api import DEADLINE_S, FORBIDDEN, KubeClient
from probes.ssh import NotLetIn

END_WITHIN_S = 5.0
ASK_AFTER_S = 12.0  # of silence: whether the node is there at all
_CHUNK_BYTES = 1 << 15
_FRAME_WITHIN_S = 0.5  # for the rest of a frame whose beginning is here
_INPUT, _OUTPUT, _ERRORS, _STATUS, _CLOSED = 0, 1, 2, 3, 255  # the channels of the protocol
_V5 = "v5.channel.k8s.io"  # can close one of them


def attach(client: KubeClient, namespace: str, pod: str, container: str, *, host: str) -> Any:
    """Return the WebSocket that carries the streams of a container.

    Raises:
        NotLetIn: the cluster does not let us.
        TargetError: it does not answer, or has no such container.
    """
    websocket: Any = import_module("websocket")
    library: Any = import_module("kubernetes.stream.ws_client")
    query = urlencode({"container": container, "stdin": "true", "stdout": "true", "stderr": "true"})
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/attach"
    url = library.get_websocket_url(f"{client.settings.host.rstrip('/')}{path}?{query}")
    token = client.authorization()
    websocket.setdefaulttimeout(DEADLINE_S)  # the official client leaves it without any
    try:
        return library.create_websocket(client.settings, url, {"authorization": token} if token else {})
    except websocket.WebSocketBadStatusException as error:
        said = (error.resp_body or b"").decode(errors="replace")[:200]
        refused = NotLetIn if error.status_code in (401, FORBIDDEN) else TargetError
        raise refused(f"{host}: its pod cannot be attached to: {path}: {error.status_code} {said}") from error
    except (websocket.WebSocketException, OSError) as error:
        raise TargetError(f"{host}: its pod cannot be attached to: {path}: {error}") from error


class AttachedChannel:
    """The two streams of a program in a pod; who waits for a silent one is told if its node is lost."""

    def __init__(
        self,
        line: Any,
        *,
        host: str,
        end_of: Callable[[], str],
        why_silent: Callable[[], str],
        on_end: Callable[[], int | None],
    ) -> None:
        self.begin_s = 0.0
        self._line, self._host = line, host
        self._end_of, self._why_silent, self._on_end = end_of, why_silent, on_end
        self._lock = threading.Lock()  # one TLS connection takes no reading and writing at once
        self._ending = threading.Lock()
        self._held = self._errors = b""
        self._is_over = self._is_ended = False
        self._heard_at = time.monotonic()
        self._status: int | None = None
        library: Any = import_module("websocket")
        self._broken, self._late = library.WebSocketException, library.WebSocketTimeoutException

    def write(self, data: bytes) -> None:
        """Send to its standard input."""
        for begin in range(0, len(data), _CHUNK_BYTES):
            self._send(bytes([_INPUT]) + data[begin : begin + _CHUNK_BYTES])

    def _send(self, frame: bytes) -> None:
        if self._is_over:
            raise TargetError(f"{self._host}: {self._end_of() or 'its program has gone'}")
        with self._lock:
            try:
                self._line.settimeout(WRITE_WITHIN_S)
                self._line.send_binary(frame)
            except (self._broken, OSError, AttributeError) as error:  # half a frame may have gone out
                self._is_over = True
                raise TargetError(f"{self._host}: the connection to its pod broke: {error}") from error

    def wait(self, within_s: float) -> bool:
        """Wait for output or its end.

        Raises:
            TargetError: it says nothing, since its node is lost.
        """
        deadline = time.monotonic() + within_s
        while not self._held and not self._is_over:
            if self._is_readable(max(deadline - time.monotonic(), 0.0)):
                self._take_frame()
            elif time.monotonic() >= deadline:
                self._look_at_node()
                return False
        return True

    def _is_readable(self, within_s: float) -> bool:
        socket = self._line.sock
        try:
            if isinstance(socket, ssl.SSLSocket) and socket.pending():
                return True
            poller = select.poll()
            poller.register(socket.fileno(), select.POLLIN)
            return bool(poller.poll(within_s * 1000))
        except (OSError, ValueError, AttributeError):  # somebody ended the program meanwhile
            self._is_over = True
            return False

    def _take_frame(self) -> None:
        with self._lock:
            if self._is_over:
                return
            try:
                self._line.settimeout(_FRAME_WITHIN_S)
                _, frame = self._line.recv_data_frame(True)
            except self._late:  # what there is of it is kept for the next turn
                return
            except (self._broken, OSError, AttributeError):
                self._is_over = True
                return
        self._heard_at = time.monotonic()
        self._take(frame.data if frame.opcode in (1, 2) else b"", is_close=frame.opcode == 8)

    def _take(self, data: bytes, *, is_close: bool) -> None:
        channel, content = data[:1], data[1:]
        if channel == bytes([_OUTPUT]):
            self._held += content
        elif channel == bytes([_ERRORS]):
            self._errors = (self._errors + content)[-ERRORS_BYTES_MAX:]
        elif is_close or (channel == bytes([_STATUS]) and content):
            self._is_over = True
            if b'"Failure"' in content:
                self._errors += b"\n" + content

    def _look_at_node(self) -> None:
        if time.monotonic() < self._heard_at + ASK_AFTER_S:
            return
        self._heard_at = time.monotonic()
        if why := self._why_silent():
            raise TargetError(f"{self._host}: {why}")

    def read(self) -> bytes:
        """Return what came from its standard output; empty at its end.

        Raises:
            TargetError: it did not end by itself.
        """
        while not self.wait(3600.0):
            pass
        held, self._held = self._held, b""
        if not held and not self._is_ended and (why := self._end_of()):
            raise TargetError(f"{self._host}: {why}")
        return held

    def unread(self, data: bytes) -> None:
        """Put back what was read too far."""
        self._held = data + self._held

    def errors(self) -> bytes:
        """Return the last that came from its standard error."""
        return self._errors

    def end(self) -> int | None:
        """Close both streams, upon which the program leaves, and have the cluster forget it."""
        with self._ending:
            if not self._is_ended:
                self._is_ended = True
                self._hang_up()
                self._status = self._on_end()
            return self._status

    def _hang_up(self) -> None:
        deadline = time.monotonic() + END_WITHIN_S
        try:
            if getattr(self._line, "subprotocol", "") == _V5:
                self._send(bytes([_CLOSED, _INPUT]))
                while not self._is_over and time.monotonic() < deadline:
                    self._held = b""
                    self.wait(0.2)
        except TargetError:
            pass  # it has gone already
        self._is_over = True
        with self._lock:
            self._line.shutdown()

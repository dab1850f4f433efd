"""HTTP side of the simulated endpoint: requests parsed by h11, answers written straight to the transport."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import cast

import h11

from loadtests.endpoint.answers import error_document, models_document, parse_ask
from loadtests.endpoint.service import Answer, Service
from probes.json_types import JsonObject

BODY_BYTES_MAX = 16 * 1024 * 1024
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"} | {
    413: "Content Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_APIS = {"/v1/chat/completions": True, "/v1/completions": False}  # whether it is chat
_HTML = b"<!doctype html><html><body><h1>Welcome to the proxy</h1></body></html>"


class Connection(asyncio.Protocol):
    """One client connection; requests on it are answered one after the other."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._parser = h11.Connection(h11.SERVER)
        self._transport: asyncio.Transport | None = None  # None: not connected yet
        self._request: h11.Request | None = None  # None: between two requests
        self._body = bytearray()
        self._answer: Answer | None = None  # None: nothing is being answered
        self._is_busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Free the slot of a client that has gone."""
        del error
        if self._answer is not None:
            self._service.cancel(self._answer)

    def data_received(self, data: bytes) -> None:
        """Parse what came; a client that does not speak HTTP is told so."""
        try:
            self._parser.receive_data(data)
            self._advance()
        except h11.RemoteProtocolError as error:
            self._send_whole(400, error_document(str(error), kind="invalid_request_error"), closes=True)

    def _advance(self) -> None:
        while not self._is_busy:
            event = self._parser.next_event()
            if isinstance(event, h11.Request):
                self._request, self._body = event, bytearray()
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > BODY_BYTES_MAX:
                    self._send_whole(413, error_document("body too large", kind="too_large"), closes=True)
                    return
            elif isinstance(event, h11.EndOfMessage):
                self._is_busy = True
                self._route()
            else:  # NEED_DATA, PAUSED or the client has closed
                return

    def _route(self) -> None:
        assert self._request is not None
        method, target = self._request.method.decode(), self._request.target.decode().partition("?")[0]
        if target == "/health" or not self._service.is_loaded:
            self._send_whole(*self._health())
        elif target == "/health_generate":  # as SGLang calls it: 200 only once a token was generated
            self._service.await_token(lambda: self._send_whole(*self._health()))
        elif target == "/v1/models" and method == "GET":
            self._send_whole(200, models_document(self._service.settings.model))
        elif target not in _APIS:
            self._send_whole(404, error_document(f"no such path: {target}", kind="not_found"))
        elif method != "POST":
            self._send_whole(405, error_document(f"{method} is not allowed here", kind="method_not_allowed"))
        else:
            self._complete(is_chat=_APIS[target])

    def _health(self) -> tuple[int, JsonObject]:
        if self._service.is_loaded:
            return 200, {"status": "ok", "name": self._service.settings.name}
        return 503, error_document("the model is loading", kind="loading")

    def _complete(self, *, is_chat: bool) -> None:
        assert self._request is not None
        number, fault = self._service.next_fault()
        if fault == "error":
            self._send_whole(500, error_document("seeded fault", kind="internal_error"))
            return
        if fault == "html":
            self._send_bytes(200, _HTML, content_type="text/html")
            return
        try:
            ask = parse_ask(bytes(self._body), is_chat=is_chat)
        except ValueError as error:
            self._send_whole(400, error_document(str(error), kind="invalid_request_error"))
            return
        request_id = next((v.decode() for k, v in self._request.headers if k == b"x-request-id"), "")
        self._answer = self._service.submit(ask, self, number=number, fault=fault, request_id=request_id)
        if self._answer is None:
            self._send_whole(429, error_document("the queue is full", kind="overloaded"), retry_after_s=1)

    def send_head(self, *, content_type: str) -> None:
        """Begin a streamed answer."""
        self._write(
            self._head(200, content_type, "Transfer-Encoding: chunked\r\nCache-Control: no-cache\r\n")
        )

    def send_part(self, data: bytes) -> None:
        """Send one chunk."""
        self._write(b"%x\r\n%b\r\n" % (len(data), data))

    def send_end(self) -> None:
        """End the chunks and be ready for the next request."""
        self._write(b"0\r\n\r\n")
        self._next()

    def send_document(self, document: JsonObject) -> None:
        """Send a whole JSON answer."""
        self._send_whole(200, document)

    def drop(self, *, with_reset: bool) -> None:
        """Close the connection, or reset it, in the middle of an answer."""
        self._answer = None
        if self._transport is None:
            return
        if with_reset:
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._transport.close()

    def _send_whole(
        self, status: int, document: JsonObject, *, closes: bool = False, retry_after_s: int | None = None
    ) -> None:
        extra = "" if retry_after_s is None else f"Retry-After: {retry_after_s}\r\n"
        self._send_bytes(status, json.dumps(document).encode(), extra=extra, closes=closes)

    def _send_bytes(
        self,
        status: int,
        body: bytes,
        *,
        content_type: str = "application/json",
        extra: str = "",
        closes: bool = False,
    ) -> None:
        extra += f"Content-Length: {len(body)}\r\n" + ("Connection: close\r\n" if closes else "")
        self._write(self._head(status, content_type, extra) + body)
        if closes and self._transport is not None:
            self._transport.close()
        else:
            self._next()

    def _head(self, status: int, content_type: str, extra: str) -> bytes:
        name = self._service.settings.name
        reason = _REASONS.get(status, "")
        head = (
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nx-replica: {name}\r\n{extra}\r\n"
        )
        return head.encode()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _next(self) -> None:
        """Make ready for the next request on this connection; what the client already sent of it is kept."""
        assert self._transport is not None
        trailing, is_closed = self._parser.trailing_data
        closes = self._request is not None and any(
            k == b"connection" and v.lower() == b"close" for k, v in self._request.headers
        )
        self._answer = self._request = None
        self._is_busy = False
        if closes or is_closed:
            self._transport.close()
            return
        self._parser = h11.Connection(h11.SERVER)
        if trailing:
            asyncio.get_running_loop().call_soon(self.data_received, trailing)

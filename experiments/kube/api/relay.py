"""A relay on loopback between the processes of one game day and the API of its cluster.

``python -m experiments.kube.api.relay --to HOST:PORT --file FILE``. It is an HTTP proxy for that one address:
TLS goes through it from end to end, so it reads nothing, and certificates are checked as without it. Whoever
has the token of FILE has it hold back what passes: ``slow`` delivers everything later, ``refuse`` and
``hang`` let nothing through. That ends after its time by the relay's own clock, and with the relay, which
ends with its parent: nobody stays cut off, and nobody but who goes through it ever is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
import json
import os
import secrets
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from probes.child import process_start_time, watch_lifeline
from probes.json_types import JsonObject

HOST = "127.0.0.1"
PASS, SLOW, REFUSE, HANG = "pass", "slow", "refuse", "hang"
_TROUBLES = (SLOW, REFUSE, HANG)
_CONNECT_S, _HEAD_S = 10.0, 10.0
_PIECE_BYTES, _PIECES_MAX = 65536, 64  # on their way at a time, in each direction


@dataclass(slots=True, kw_only=True)
class _Trouble:
    """What is in the way, or was."""

    kind: str
    delay_s: float
    began_ns: int
    ends: asyncio.TimerHandle
    over: asyncio.Event
    met: int = 0  # connections that were cut, held, refused or made later
    ended_ns: int = 0
    ended_by: str = ""


class Relay:
    """Passes bytes on to one address, unless it is told to be in the way."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._host, self._port, self._token = host, port, token
        self._trouble: _Trouble | None = None
        self._tunnels: set[asyncio.StreamWriter] = set()  # of each that is open, the client's side

    @property
    def _now(self) -> _Trouble | None:
        """What is in the way at this moment."""
        return None if self._trouble is None or self._trouble.over.is_set() else self._trouble

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: a tunnel, or a word to us."""
        with contextlib.suppress(OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            async with asyncio.timeout(_HEAD_S):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, target, *_ = head.split(" ", 2)
            if method == "CONNECT":
                await self._connect(target, reader, writer)
            else:
                await self._obey(method, target, head, reader, writer)
        writer.transport.abort()

    # The way to the API.

    async def _connect(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if target != f"{_bracketed(self._host)}:{self._port}":
            await _answer(writer, 403, {"message": "not the API of this game day"})
            return
        if (trouble := self._now) is not None:
            trouble.met += 1
            if trouble.kind == HANG:
                await trouble.over.wait()
            if trouble.kind in (HANG, REFUSE):
                return
        self._tunnels.add(writer)
        try:
            async with asyncio.timeout(_CONNECT_S):
                there, back = await asyncio.open_connection(self._host, self._port)
            try:
                writer.write(b"HTTP/1.1 200 connected\r\n\r\n")
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pass_on(reader, back))
                    both.create_task(self._pass_on(there, writer))
            except* OSError:
                pass  # either side has closed: so does the other
            finally:
                back.transport.abort()
        finally:
            self._tunnels.discard(writer)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Deliver each piece as long after it came as is wanted when it comes, in order."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_PIECES_MAX)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._take(source, pieces))
            both.create_task(self._deliver(pieces, sink))

    async def _take(self, source: asyncio.StreamReader, pieces: asyncio.Queue[tuple[float, bytes]]) -> None:
        while True:
            data = await source.read(_PIECE_BYTES)
            delay_s = 0.0 if (trouble := self._now) is None else trouble.delay_s
            await pieces.put((time.monotonic() + delay_s, data))
            if not data:
                return

    async def _deliver(self, pieces: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter) -> None:
        while True:
            due, data = await pieces.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if (trouble := self._now) is not None and trouble.kind == HANG:
                await trouble.over.wait()
                raise ConnectionResetError  # what was held is never delivered: it is old
            if not data:  # the end of a connection, for both directions
                sink.close()
                async with asyncio.timeout(_CONNECT_S):
                    await sink.wait_closed()
                raise ConnectionResetError
            sink.write(data)
            await sink.drain()

    # What we are told.

    async def _obey(
        self, method: str, target: str, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        said = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head.split("\r\n")[1:])}
        is_known = hmac.compare_digest(said.get("authorization", ""), f"Bearer {self._token}")
        status, answer = 403, {"message": "only who has the token may"}
        if is_known and target == "/trouble":
            async with asyncio.timeout(_HEAD_S):
                body = await reader.readexactly(int(said.get("content-length", "0")))
            status, answer = self._told(method, json.loads(body or b"{}"))
        await _answer(writer, status, answer)

    def _told(self, method: str, body: JsonObject) -> tuple[int, JsonObject]:
        if method == "PUT":
            if self._now is not None or body["kind"] not in _TROUBLES:
                return 409, {"message": f"is in the way already, or knows no {body['kind']!r}"}
            self._begin(str(body["kind"]), float(body["delay_s"]), float(body["for_s"]))
        elif method == "DELETE":
            self._end("us")
        elif method != "GET":
            return 405, {"message": "PUT, DELETE or GET"}
        return 200, self._state()

    def _begin(self, kind: str, delay_s: float, for_s: float) -> None:
        self._trouble = _Trouble(
            kind=kind,
            delay_s=delay_s,
            began_ns=time.time_ns(),
            ends=asyncio.get_running_loop().call_later(for_s, self._end, "its timer"),
            over=asyncio.Event(),
            met=len(self._tunnels),
        )
        if kind == REFUSE:
            self._cut()

    def _end(self, by: str) -> None:
        if (trouble := self._now) is None:
            return
        trouble.ends.cancel()
        trouble.ended_ns, trouble.ended_by = time.time_ns(), by
        if trouble.kind == HANG:
            self._cut()  # so that whoever looks again looks anew
        trouble.over.set()

    def _cut(self) -> None:
        for writer in self._tunnels:
            writer.transport.abort()

    def _state(self) -> JsonObject:
        last = self._trouble
        if last is None:
            return {"kind": PASS, "met": 0, "began_ns": 0, "ended_ns": 0, "ended_by": ""}
        said = {"kind": last.kind if self._now else PASS, "met": last.met, "began_ns": last.began_ns}
        return said | {"ended_ns": last.ended_ns, "ended_by": last.ended_by}


async def _answer(writer: asyncio.StreamWriter, status: int, said: JsonObject) -> None:
    text = json.dumps(said).encode()
    writer.write(f"HTTP/1.1 {status} said\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)
    writer.close()
    await writer.wait_closed()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def run_relay(to: str, file: Path) -> None:
    """Relay to an address, ``host:port``, until we are ended; the file says how we are reached."""
    host, _, port = to.rpartition(":")
    token = secrets.token_hex(16)
    relay = Relay(host.strip("[]"), int(port), token)
    server = await asyncio.start_server(relay.serve, HOST, 0)
    said = {"port": server.sockets[0].getsockname()[1], "token": token, "to": to}
    said |= {"pid": os.getpid(), "start_time": process_start_time(os.getpid()), "host": os.uname().nodename}
    part = file.with_name(f"{file.name}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as sink:
        json.dump(said, sink)
    part.replace(file)
    await server.serve_forever()


def main(arguments: list[str]) -> int:
    """Relay until our parent has gone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", required=True)
    parser.add_argument("--file", type=Path, required=True)
    given = parser.parse_args(arguments)
    watch_lifeline(lambda: os._exit(0))
    asyncio.run(run_relay(given.to, given.file))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""NCCL's own view of a job that hangs: its RAS answers on a port of each host (NCCL 2.24 and later).

The protocol is that of NCCL's ``ncclras`` client: a line is asked, a line or a document is answered.
"""

from __future__ import annotations

import json
import os
import socket

from probes.json_types import JsonObject

PORT = 28028
PROTOCOL = 2
ANSWER_WITHIN_S = 6.0
ANSWER_BYTES_MAX = 1 << 22
MISSING_MAX = 64


def ask_ras(*, within_s: float = ANSWER_WITHIN_S) -> JsonObject:
    """Return what RAS says: ranks that are missing, and how many collectives the others have entered.

    Where nothing answers, ``error`` says why; that is no evidence of anything.
    """
    host, _, port = os.environ.get("NCCL_RAS_ADDR", "").rpartition(":")
    try:
        with socket.create_connection((host or "localhost", int(port or PORT)), timeout=within_s) as line:
            _say(line, f"CLIENT PROTOCOL {PROTOCOL}", wanted="SERVER PROTOCOL")
            _say(line, f"TIMEOUT {max(1, int(within_s / 2))}", wanted="OK")
            _say(line, "SET FORMAT json", wanted="OK")
            line.sendall(b"VERBOSE STATUS\n")
            return read_status(_read_all(line).decode(errors="replace"))
    except (OSError, ValueError) as error:
        return {"error": f"NCCL's RAS: {type(error).__name__}: {str(error)[:200]}"}


def _say(line: socket.socket, words: str, *, wanted: str) -> None:
    line.sendall(f"{words}\n".encode())
    answer = b""
    while not answer.endswith(b"\n"):
        byte = line.recv(1)
        if not byte or len(answer) > 1000:
            raise ValueError(f"to {words!r} it answered {answer[:100]!r}")
        answer += byte
    if not answer.decode(errors="replace").startswith(wanted):
        raise ValueError(f"to {words!r} it answered {answer[:100]!r}, not {wanted}")


def _read_all(line: socket.socket) -> bytes:
    parts, size = [], 0
    while size < ANSWER_BYTES_MAX and (part := line.recv(1 << 16)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def read_status(text: str) -> JsonObject:
    """Return the ranks that RAS misses, and those that have entered fewer collectives than others.

    Raises:
        ValueError: this is no status of RAS.
    """
    document = json.loads(text)
    if not isinstance(document, dict) or not isinstance(document.get("communicators"), list):
        raise ValueError(f"not a status of RAS: {text[:100]!r}")
    # All of a trial's ranks are in the largest communicator.
    largest: JsonObject = max(
        document["communicators"], key=lambda each: int(each.get("size", 0)), default={}
    )
    missing = [
        {"rank": rank.get("rank"), "host": rank.get("host"), **(rank.get("status") or {})}
        for rank in largest.get("missing_ranks", [])
    ]
    entered = {
        int(rank["rank"]): sum(int(count) for count in (rank.get("collective_counts") or {}).values())
        for rank in largest.get("ranks", [])
    }
    latest = max(entered.values(), default=0)
    behind = sorted(rank for rank, count in entered.items() if count < latest)
    return {
        "nccl": document.get("nccl_version"),
        "size": largest.get("size"),
        "missing": missing[:MISSING_MAX],
        "behind": behind[:MISSING_MAX],
    }

"""Trouble at the lab's gateway: latency, resets in mid-stream, a black hole, errors of its own."""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

from experiments.faults.fault import UNDO, Fault, FaultRefused, Undoing, Verification
from experiments.faults.victims import A_LAB, capture_lab, identity, undo_in_lab
from experiments.lab.control import ask_lab, read_lab
from probes.json_types import JsonObject

ASKS_MAX = 30  # requests of our own until one of them meets trouble that meets only a share of them
COVERS = {"latency": "overload", "reset": "mid-stream-cut", "black-hole": "routing", "error": "routing"}
BLACK_HOLE_S = 1.0  # without an answer, until a request counts as swallowed


def capture_gateway(lab_folder: Path, trouble: JsonObject) -> JsonObject:
    """Name the gateway, the trouble it is to make, and the replicas, none of which may be hit.

    Raises:
        FaultRefused: there is trouble already.
    """
    lab = read_lab(lab_folder)
    if lab.trouble is not None:
        raise FaultRefused(f"lab {lab.folder}: there is {lab.trouble['kind']} at the gateway already")
    others = [identity(replica) for replica in lab.replicas]
    return capture_lab(lab) | {"url": lab.url, "trouble": trouble, "victims": [], "others": others}


def recheck_gateway(captured: JsonObject) -> None:
    """See at the last moment that nobody else makes trouble."""
    if read_lab(Path(captured["lab"])).trouble is not None:
        raise FaultRefused("there is trouble at the gateway by now; nothing is added")


def make_trouble(captured: JsonObject) -> None:
    """Begin."""
    ask_lab(Path(captured["lab"]), {"do": "trouble", "trouble": captured["trouble"]})


def verify_trouble(captured: JsonObject) -> Verification:
    """Ask from outside until one of our own requests has met it."""
    trouble = captured["trouble"]
    for number in range(1, ASKS_MAX + 1):
        seen = _meet(captured["url"], trouble)
        if seen:
            return Verification(is_verified=True, observed=f"request {number} of our own: {seen}")
    return Verification(is_verified=False, observed=f"none of {ASKS_MAX} requests of our own met it")


def _meet(url: str, trouble: JsonObject) -> str:
    """Send one request; return how it met the trouble, nothing where it did not."""
    began = time.monotonic()
    limit_s = BLACK_HOLE_S if trouble["kind"] == "black-hole" else 10.0 + trouble.get("latency_s", 0.0)
    link = http.client.HTTPConnection(urlsplit(url).netloc, timeout=limit_s)
    body = {
        "model": "m",
        "stream": True,
        "max_tokens": 16,
        "messages": [{"role": "user", "content": "hello"}],
    }
    status, ended = 0, ""
    try:
        link.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        reply = link.getresponse()
        status = reply.status
        reply.read()
    except (OSError, http.client.HTTPException) as error:
        ended = type(error).__name__
    finally:
        link.close()
    took_s = time.monotonic() - began
    met = {
        "latency": took_s >= trouble.get("latency_s", 0.0) and f"took {took_s:.2f} s",
        "error": status == trouble.get("status", 503) and f"HTTP {status}",
        "reset": status == 200 and ended and f"ended by {ended} after HTTP 200",
        "black-hole": ended == "TimeoutError" and f"no answer in {took_s:.1f} s",
    }
    return str(met[trouble["kind"]] or "")


def undo_trouble(captured: JsonObject) -> Undoing:
    """End the trouble; it may have ended by its own time."""

    def restore() -> Undoing:
        folder = Path(captured["lab"])
        before = read_lab(folder).trouble
        ask_lab(folder, {"do": "trouble", "trouble": None})
        is_over = read_lab(folder).trouble is None
        did = f"ended {before['kind']} after {before['hits']} requests" if before else "nothing to do: over"
        return Undoing(is_restored=is_over, did=did, has_acted=before is not None)

    return undo_in_lab(captured, restore)


TROUBLE = Fault(
    name="gateway.trouble",
    fidelity="N",
    ends_by=UNDO,
    subject=lambda captured: f"gateway:{captured['trouble']['kind']}",
    recheck=recheck_gateway,
    inject=make_trouble,
    verify=verify_trouble,
    undo=undo_trouble,
    needs=(A_LAB,),
    covers=tuple(dict.fromkeys(COVERS.values())),
    narrow=lambda captured: (COVERS[captured["trouble"]["kind"]],),
)

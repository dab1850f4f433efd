"""A million requests in one run: memory stays flat, and every sum agrees to the last token.

``python -m tests.benchmarks load_million`` sends 1,000,000 (about 12 minutes); for fewer, ``python -m
tests.benchmarks.load_million 20000 [PROCESSES]``. The endpoint is a process of its own that answers whatever
it is sent with a stream of four events, in one write: what is measured is the client and its record.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from probes.child import end_child, python_module, start_child
from probes.outcome import Outcome
from reports.request_table import open_requests
from reports.run import Run, load_run
from tests.benchmarks.figure import Figure

REQUESTS = 1_000_000
RATE_PER_S = 1500
_SHARES = (0.1, 0.5, 0.95)
_TOKENS = 4
_EVENT = b'data: {"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":%b}]}\n\n'
_USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":4}}\n\ndata: [DONE]\n\n'
_EVENTS = _EVENT % b"null" * (_TOKENS - 1) + _EVENT % b'"stop"' + _USAGE
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
_STREAM = _HEAD % (b"text/event-stream", len(_EVENTS)) + _EVENTS
_WHOLE = b'{"choices":[{"index":0,"message":{"content":"ok"},"finish_reason":"stop"}]}'
_PLAIN = _HEAD % (b"application/json", len(_WHOLE)) + _WHOLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one run came to."""

    requests: int
    rows: int
    sums: int  # as the master merged them
    tokens: int
    rss_mib: dict[float, dict[str, float]]  # share of the run -> process -> resident memory
    judging_mib: float  # most that the controller ever had, judging and report included
    accounted: str
    seconds: float  # after the load: sealing, judging, rendering
    outcome: str


def measure(requests: int, *, processes: int, rate_per_s: float = RATE_PER_S) -> Measured:
    """Run one load of so many requests and return what it took."""
    folder = Path(tempfile.mkdtemp(prefix="overproof-million-"))
    server = start_child(python_module("tests.benchmarks.load_million", "--serve"), stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        workload = folder / "workload.yaml"
        workload.write_text(
            f"name: million\narrivals: {{kind: constant, rate_per_s: {rate_per_s}}}\n"
            f"duration_s: {requests / rate_per_s}\nin_flight_max: 4000\n"
            "prompt: {input_tokens: {kind: constant, value: 16}, output_tokens: {kind: constant, value: 4}}\n"
            f"calibrate_prompts: false\ncalibration: {{is_skipped: {str(requests < REQUESTS).lower()}}}\n"
            "failed_share_max: 0.01\n"
            "slos: [{metric: ttft_ms, statistic: p99, bound: 1000}]\n"
        )
        return _follow(folder / "run", workload, url, requests=requests, processes=processes)
    finally:
        end_child(server)
        if server.stdout is not None:
            server.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


def _follow(path: Path, workload: Path, url: str, *, requests: int, processes: int) -> Measured:
    command = python_module(
        "overproof", "load", "run", str(workload), "--endpoint", url, "--path", str(path),
        "--processes", str(processes), "--json",
    )  # fmt: skip
    child = start_child(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    sizes: dict[float, dict[str, float]] = {}
    seen: dict[str, float] = {}
    peak_mib, done, loaded_s = 0.0, 0.0, time.monotonic()
    try:
        while child.poll() is None:
            done = max(done, _arrived(path) / requests)  # once sealed, the series cannot be followed
            seen |= _load_processes(child.pid)  # what has had its share and is gone is held at its last
            for share in _SHARES:
                if done >= share and share not in sizes:
                    sizes[share] = dict(seen)
            if done < 1:
                loaded_s = time.monotonic()
            peak_mib = max(peak_mib, _status_mib(child.pid, "VmHWM"))
            time.sleep(0.2)
    finally:
        end_child(child)
    recorded = load_run(path)
    merged = recorded.events_of("load.merged")[0].data
    accounted = next(f for f in recorded.findings if f.rule == "requests-accounted")
    with open_requests(path) as connection:
        sums = "SELECT count(DISTINCT index), sum(tokens_out) FROM requests WHERE error IS NULL"
        found = connection.execute(sums).fetchone()
    assert found is not None
    return Measured(
        requests=requests,
        rows=int(found[0]),
        sums=int(merged["rows"]),
        tokens=int(found[1]),
        rss_mib=sizes,
        judging_mib=peak_mib,
        accounted=str(accounted.outcome and accounted.outcome.value),
        seconds=time.monotonic() - loaded_s,
        outcome=_said(recorded),
    )


def _said(recorded: Run) -> str:
    """Return the verdict with the rules behind it, where it is not PASS."""
    rules = {finding.rule for finding in recorded.findings if finding.outcome is recorded.outcome}
    return " ".join(
        [recorded.outcome.value] + (sorted(rules) if recorded.outcome is not Outcome.PASS else [])
    )


def _arrived(path: Path) -> int:
    """Return how many rows the load processes say they have, from the end of their series."""
    count = 0
    for part in (path / "series").glob("client-*.ndjson"):
        with part.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().split(b"\n")
        if len(lines) > 1:
            count += int(json.loads(lines[-2])["ended"])
    return count


def _load_processes(pid: int) -> dict[str, float]:
    """Return the resident memory of the controller and of what it has started."""
    found = {"controller": _status_mib(pid, "VmRSS")}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ppid = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_text().split("\0")
        except (OSError, ValueError):
            continue
        if ppid == pid and any("locustfile" in word for word in words):
            role = "master" if "--master" in words else "load process"
            found[f"{role} {folder.name}"] = _status_mib(int(folder.name), "VmRSS")
    return found


def _status_mib(pid: int, key: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:")), 0.0)


def figures() -> Iterator[Figure]:
    """Yield what a million requests take, in two load processes."""
    yield from _figures(measure(REQUESTS, processes=2))


def _figures(found: Measured) -> Iterator[Figure]:
    beside = (
        f"{found.rows} good rows, {found.sums} by the master, {found.tokens} tokens; sums: {found.accounted}"
    )
    for share, sizes in sorted(found.rss_mib.items()):
        largest = max((mib for name, mib in sizes.items() if name != "controller"), default=0.0)
        yield Figure(
            name=f"{found.requests} requests, largest load process at {share:.0%}",
            median=largest,
            unit="MiB",
            repeats=1,
            beside=beside,
        )
    yield Figure(name="controller at most, judging included", median=found.judging_mib, unit="MiB", repeats=1)
    yield Figure(
        name="sealing, judging, report", median=found.seconds, unit="s", repeats=1, beside=found.outcome
    )


def _serve() -> None:
    """Answer each read that ends a request, until standard input ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(0, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj == 0:
                return
            if key.fileobj is listener:
                link, _ = listener.accept()
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(link, selectors.EVENT_READ)
                continue
            link = key.fileobj  # type: ignore[assignment]
            try:
                data = link.recv(65536)
                if data.endswith(b"}"):  # of the body; nothing else ends like it
                    link.sendall(_STREAM if b'"stream":true' in data else _PLAIN)
                elif data.startswith(b"GET"):
                    link.sendall(_PLAIN)
            except OSError:
                data = b""
            if not data:
                selector.unregister(link)
                link.close()


def main() -> None:
    """Serve, or measure so many requests and print the figures."""
    if sys.argv[1:] == ["--serve"]:
        _serve()
        return
    said = [int(word) for word in sys.argv[1:3]]
    requests, processes = said + [REQUESTS, 2][len(said) :]
    for figure in _figures(measure(requests, processes=processes)):
        sys.stdout.write(f"{figure.name}: {figure.median:,.1f} {figure.unit} {figure.beside}\n")


if __name__ == "__main__":
    main()

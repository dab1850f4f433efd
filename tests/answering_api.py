"""An API server by a script: each call gets the next answer of its kind; asked through the real client."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from probes.json_types import JsonObject
from probes.kubernetes_api import KubeClient, connect_api


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is sent: an object, or bytes as they are."""

    status: int = 200
    body: JsonObject | bytes = b"{}"
    gap_s: float = 0.0  # between two bytes


class ScriptedApi(ThreadingHTTPServer):
    """On a port of its own; whoever has a connection looks whether it is over."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.is_over = threading.Event()


class AnsweringApi(ScriptedApi):
    """Answers by ``GET /path``, else by ``GET``; the last answer of a kind holds for good."""

    def __init__(self, answers: dict[str, list[Answer]]) -> None:
        super().__init__(_Handler)
        self.answers = answers
        self.asked: list[tuple[str, str, JsonObject]] = []  # method, path and body of each call
        self.connections = 0

    def next(self, method: str, path: str) -> Answer:
        """Return the answer whose turn it is."""
        left = self.answers.get(f"{method} {path.partition('?')[0]}") or self.answers[method]
        return left.pop(0) if len(left) > 1 else left[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: AnsweringApi

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def _answer(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, json.loads(sent or b"{}")))
        answer = self.server.next(self.command, self.path)
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not answer.gap_s:
            self.wfile.write(body)
            return
        for at in range(len(body)):
            if self.server.is_over.wait(answer.gap_s):
                return
            self.wfile.write(body[at : at + 1])
            self.wfile.flush()

    do_GET = do_POST = do_PATCH = do_DELETE = _answer

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(api: ScriptedApi, folder: Path) -> Iterator[str]:
    """Serve it, and yield the path of a kubeconfig that names it."""
    with api:
        thread = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        config = {
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{api.server_port}"}}],
            "users": [{"name": "c", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        }
        path = folder / "kubeconfig"
        path.write_text(json.dumps(config))
        try:
            yield str(path)
        finally:
            api.is_over.set()
            api.shutdown()
            thread.join()


@contextmanager
def answering(folder: Path, answers: dict[str, list[Answer]]) -> Iterator[tuple[AnsweringApi, KubeClient]]:
    """Serve it, and yield it with a client that knows it by a kubeconfig."""
    api = AnsweringApi(answers)
    with serving(api, folder) as kubeconfig:
        yield api, connect_api(kubeconfig)

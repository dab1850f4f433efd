"""A server that lists and is watched as Kubernetes does, by a script; asked through the real client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from experiments.kube.client import KubeClient, connect
from experiments.kube.cluster import Cluster
from probes.json_types import JsonObject
from tests.answering_api import ScriptedApi, serving

GONE: JsonObject = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}


class ListApi(ScriptedApi):
    """Answers each list by the next of ``pages``, a watch by the next of ``watches``, others by silence."""

    def __init__(self, *, pages: list[JsonObject], watches: list[list[JsonObject]]) -> None:
        super().__init__(_Handler)
        self.pages, self.watches = pages, watches
        self.asked: list[dict[str, str]] = []  # the query of each call


class _Handler(BaseHTTPRequestHandler):
    server: ListApi

    def do_GET(self) -> None:
        query = dict(parse_qsl(urlsplit(self.path).query))
        self.server.asked.append(query)
        is_watch = query.get("watch") == "true"
        page = {} if is_watch else self.server.pages.pop(0)
        self.send_response(int(page.get("code", 200)))
        self.end_headers()
        if not is_watch:
            self.wfile.write(json.dumps(page).encode())
            return
        changes = self.server.watches.pop(0) if self.server.watches else None
        for change in changes or ():
            self.wfile.write(json.dumps(change).encode() + b"\n")
        self.wfile.flush()
        if changes is None:
            self.server.is_over.wait(float(query["timeoutSeconds"]))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def page(rows: list[JsonObject], *, version: int, token: str = "") -> JsonObject:
    """Return a page of a list; with a token there are more."""
    return {"items": rows, "metadata": {"resourceVersion": str(version), "continue": token}}


def change(kind: str, row: JsonObject, *, version: int) -> JsonObject:
    """Return what a watch tells of a change."""
    return {"type": kind, "object": row | {"metadata": row["metadata"] | {"resourceVersion": str(version)}}}


@contextmanager
def listing(
    folder: Path, *, pages: list[JsonObject], watches: list[list[JsonObject]] | None = None
) -> Iterator[tuple[ListApi, KubeClient]]:
    """Serve it, and yield it with a client that knows it by a kubeconfig."""
    api = ListApi(pages=pages, watches=watches or [])
    with serving(api, folder) as kubeconfig:
        yield api, connect(Cluster(namespaces=("inference",), kubeconfig=kubeconfig))

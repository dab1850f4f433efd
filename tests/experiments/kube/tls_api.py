"""An API over TLS in this process, on a port of its own; it knows two namespaces and notes who asks."""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from experiments.kube.cluster import ALLOWED_LABEL, ALLOWED_VALUE, Cluster
from probes.json_types import JsonObject

SPACE, UID = "inference", "uid-of-cluster"
LOOK = "/api/v1/namespaces/kube-system"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: TlsApi

    def _answer(self, status: int, said: JsonObject) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.seen.append(f"GET {self.path}")
        name = self.path.rpartition("/")[2]
        if self.path.startswith("/api/v1/namespaces/") and name in ("kube-system", SPACE):
            meta = {"name": name, "uid": UID, "labels": {ALLOWED_LABEL: ALLOWED_VALUE}}
            self._answer(200, {"metadata": meta})
        elif "/leases/" in self.path:
            self._answer(404, {"kind": "Status"})
        else:
            self._answer(200, {"items": [], "metadata": {"resourceVersion": "1"}})

    def do_PATCH(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append(f"PATCH {self.path}")
        self._answer(200, {})

    def log_message(self, *_: object) -> None:
        """Stay silent."""


class TlsApi(ThreadingHTTPServer):
    """The server; whoever breaks a connection is no concern of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[str] = []
        self.ca = _certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "api.crt", folder / "api.key")
        self._context, self._folder = context, folder
        self._open: set[ssl.SSLSocket] = set()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection, handshake included, in its thread."""
        request.settimeout(30)
        with contextlib.suppress(OSError), self._context.wrap_socket(request, server_side=True) as way:
            self._open.add(way)
            super().finish_request(way, client_address)

    def end(self) -> None:
        """End, and with it every connection."""
        self.shutdown()
        for way in tuple(self._open):
            with contextlib.suppress(OSError):
                way.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let it go."""

    def cluster(self, *, ca: bytes = b"", name: str = "kubeconfig", **more: Any) -> Cluster:
        """Return the cluster as an experiment names it, trusting this authority."""
        at = f"https://127.0.0.1:{self.server_port}"
        trusts = {"certificate-authority-data": base64.b64encode(ca or self.ca).decode()}
        document = {
            "clusters": [{"name": "c", "cluster": {"server": at} | trusts}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        }
        path = self._folder / name
        path.write_text(json.dumps(document | {"apiVersion": "v1", "kind": "Config", "current-context": "x"}))
        return Cluster(namespaces=(SPACE,), kubeconfig=str(path), **more)


def _certificate(folder: Path) -> bytes:
    """Write a certificate for the loopback with its key; it is its own authority."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "api")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    (folder / "api.crt").write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "api.key").write_bytes(private)
    return pem


def other_authority(folder: Path) -> bytes:
    """Return the certificate of somebody else."""
    folder.mkdir()
    return _certificate(folder)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[TlsApi]:
    """Serve for as long as the block."""
    api = TlsApi(folder)
    thread = threading.Thread(target=api.serve_forever)
    thread.start()
    try:
        yield api
    finally:
        api.end()
        thread.join()

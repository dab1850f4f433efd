"""The API server as seen from a pod: plain HTTPS with the token of its service account.

This file travels into the cluster: standard library only.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
from pathlib import Path

from experiments.kube.undoing.steps import MERGE_PATCH
from probes.errors import TargetError
from probes.json_types import JsonObject

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_WITHIN_S = 5.0


class PodApi:
    """Asks the API server that this pod belongs to."""

    def __init__(self, account: Path = _ACCOUNT) -> None:
        self._host = os.environ["KUBERNETES_SERVICE_HOST"]
        self._port = int(os.environ["KUBERNETES_SERVICE_PORT"])
        self._account = account

    def ask(self, method: str, path: str, body: JsonObject | None = None) -> tuple[int, JsonObject]:
        """Send a request, a PATCH as a merge patch; return status and answer, whatever the status is.

        Raises:
            TargetError: there was no answer.
        """
        try:
            # Token and authority are renewed on the disk from time to time.
            trusted = ssl.create_default_context(cafile=str(self._account / "ca.crt"))
            line = http.client.HTTPSConnection(self._host, self._port, timeout=_WITHIN_S, context=trusted)
            try:
                line.request(
                    method, path, None if body is None else json.dumps(body).encode(), self._headers(method)
                )
                reply = line.getresponse()
                return reply.status, _answer(reply.read())
            finally:
                line.close()
        except (OSError, http.client.HTTPException) as error:
            raise TargetError(f"{self._host}:{self._port}: no answer to {method} {path}: {error}") from error

    def _headers(self, method: str) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {(self._account / 'token').read_text().strip()}",
            "Content-Type": MERGE_PATCH if method == "PATCH" else "application/json",
            "Accept": "application/json",
        }


def _answer(text: bytes) -> JsonObject:
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    return said if isinstance(said, dict) else {"message": text[:200].decode(errors="replace")}

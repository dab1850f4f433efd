"""The API server as undoing asks it, over our own client."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.kube.client import JSON, MERGE, ApiRefused, KubeClient
from probes.json_types import JsonObject

_OK = 200  # the client tells apart only what was refused


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientApi:
    """Asks by a client that knows its cluster."""

    client: KubeClient

    def ask(self, method: str, path: str, body: JsonObject | None = None) -> tuple[int, JsonObject]:
        """Send a request, a PATCH as a merge patch; return status and answer, whatever the status is.

        Raises:
            TargetError: there was no answer.
        """
        try:
            content_type = MERGE if method == "PATCH" else JSON
            return _OK, self.client.ask(method, path, body=body, content_type=content_type)
        except ApiRefused as error:
            return error.status, error.said

"""One cluster's API, as plain JSON: every call has a deadline, and every refusal is one clear line.

The official client reads the kubeconfig, and so knows every way to log in; the calls themselves are plain
requests over its connection, the same that an undo in the ledger names by method and path. Which cluster it
is stands fixed once it was asked: an undo in another one that has the same name would hit a stranger.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from probes.child import is_alive
from probes.errors import ConfigError, TargetError
from probes.json_types import JsonObject

# Names the file of a relay on loopback through which the processes of a game day reach the API.
RELAY_VARIABLE = "OVERPROOF_KUBE_RELAY"
DEADLINE_S = 10.0
PAGE = 500  # rows of a list at a time: a thousand nodes in one answer are a burden to the API
JSON, MERGE, STRATEGIC = (
    "application/json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
_LOOK_S = 5.0  # the first call has to answer sooner, so that a wrong address is known soon
_CHUNK = 1 << 16
_SHOWN_MAX = 80  # of an answer that no API gives
_REFUSED, FORBIDDEN, GONE = 300, 403, 410  # an API sends nobody elsewhere; what does is in front of it
_MEANS = {
    401: "does not know us: the token or certificate has expired, or is not of this cluster",
    FORBIDDEN: "does not allow us",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which cluster answered: its uid is that of kube-system, which lasts as long as the cluster."""

    context: str
    server: str
    uid: str

    def to_json(self) -> JsonObject:
        """Return it as plain JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.context} at {self.server} (cluster {self.uid})"


class ApiRefused(TargetError):
    """The API answered with an error."""

    def __init__(self, message: str, *, status: int, said: JsonObject) -> None:
        super().__init__(message)
        self.status = status
        self.said = said  # the Status object, where it sent one

    @property
    def retry_after_s(self) -> float | None:
        """How long the API asks to wait, where it says so."""
        seconds = (self.said.get("details") or {}).get("retryAfterSeconds")
        return None if seconds is None else float(seconds)


class KubeClient:
    """Asks one cluster."""

    def __init__(self, pool: Any, settings: Any, authorization: Any, *, context: str) -> None:
        self._pool, self._host, self._authorization = pool, settings.host.rstrip("/"), authorization
        self._context = context
        self.settings = settings  # the official client's own, for what is no plain request
        self.calls = 0  # so far

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        content_type: str = JSON,
        within_s: float = DEADLINE_S,
    ) -> JsonObject:
        """Carry out one call and return what was answered, an object.

        Raises:
            ApiRefused: the API says no.
            TargetError: it does not answer in time, or is none: a proxy that wants a login, for example.
        """
        text = self._answer(method, path, query, body, content_type, within_s)
        try:
            said = json.loads(text)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise self._strange(method, path, text)
        return said

    def text(self, path: str, *, within_s: float = DEADLINE_S, **query: object) -> str:
        """Return what need be no object, such as the log of a pod.

        Raises:
            ApiRefused: the API says no.
            TargetError: it does not answer in time.
        """
        return self._answer("GET", path, query, None, JSON, within_s).decode(errors="replace")

    def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None,
        body: object,
        content_type: str,
        within_s: float,
    ) -> bytes:
        response = self._send(method, path, query, body, content_type, within_s)
        try:
            text = _read_whole(response, within_s=within_s)
        except Exception as error:  # urllib3's own, without importing it where nobody asks a cluster
            response.close()
            raise self._silent(method, path, error) from error
        if response.status >= _REFUSED:
            raise self._refused(method, path, response.status, _as_json(text))
        return text

    def listed(self, path: str, **query: object) -> list[JsonObject]:
        """Return every row of a list, page by page."""
        return self.listed_at(path, **query)[0]

    def listed_at(
        self, path: str, kept: Callable[[JsonObject], JsonObject] = lambda row: row, /, **query: object
    ) -> tuple[list[JsonObject], str]:
        """Return what is ``kept`` of every row of a list, and the version from which a watch goes on."""
        rows: list[JsonObject] = []
        asked: dict[str, object] = {"limit": PAGE} | query
        while True:
            try:
                page = self.ask("GET", path, query=asked)
            except ApiRefused as error:
                if error.status != GONE or "continue" not in asked:
                    raise
                rows, asked = [], dict(query)  # too slow for that version: all anew, and at once
                continue
            meta = page.get("metadata") or {}
            if "resourceVersion" not in meta:
                raise self._strange("GET", path, json.dumps(page).encode())
            rows += map(kept, page.get("items") or [])
            if not (token := meta.get("continue")):
                return rows, str(meta["resourceVersion"])
            asked["continue"] = token

    def watch(
        self, path: str, version: str, *, within_s: float, **query: object
    ) -> Generator[JsonObject, None, None]:
        """Yield each change after ``version`` until the server ends the watch, after ``within_s`` at most."""
        seconds = max(1, round(within_s))
        asked: dict[str, object] = query | {"watch": "true", "resourceVersion": version}
        asked |= {"timeoutSeconds": seconds, "allowWatchBookmarks": "true"}
        response = self._send("GET", path, asked, None, JSON, seconds + DEADLINE_S)
        rest = b""
        try:
            if response.status >= _REFUSED:
                raise self._refused("GET", path, response.status, _as_json(response.read()))
            for chunk in response.stream(amt=None, decode_content=True):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    change = json.loads(line)
                    if change["type"] == "ERROR":
                        said = change["object"]
                        raise self._refused("GET", path, int(said.get("code", 500)), said)
                    yield change
        except ApiRefused:
            raise
        except (OSError, ValueError) as error:
            raise self._silent("GET", path, error) from error
        except Exception as error:  # urllib3's own
            if type(error).__module__.startswith("urllib3"):
                raise self._silent("GET", path, error) from error
            raise
        finally:
            response.close()

    def identity(self) -> Identity:
        """Ask which cluster this is."""
        path = "/api/v1/namespaces/kube-system"
        said = self.ask("GET", path, within_s=_LOOK_S)
        if not (uid := (said.get("metadata") or {}).get("uid")):
            raise self._strange("GET", path, json.dumps(said).encode())
        return Identity(context=self._context, server=self._host, uid=str(uid))

    def may(self, verb: str, resource: str, *, group: str = "", namespace: str = "", name: str = "") -> bool:
        """Ask whether we may do something; without a name, to any of them."""
        resource, _, part = resource.partition("/")
        wanted = {"verb": verb, "resource": resource, "subresource": part, "group": group, "name": name}
        review = {"spec": {"resourceAttributes": wanted | ({"namespace": namespace} if namespace else {})}}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return bool(self.ask("POST", path, body=review)["status"]["allowed"])

    def authorization(self) -> str:
        """Return what goes into the header of that name; empty: a certificate says who we are."""
        return str(self._authorization())

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None,
        body: object,
        content_type: str,
        within_s: float,
    ) -> Any:
        import urllib3

        url = f"{self._host}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": "overproof"}
        if token := self.authorization():
            headers["Authorization"] = token
        self.calls += 1
        try:
            return self._pool.request(
                method,
                url,
                headers=headers,
                body=None if body is None else json.dumps(body),
                timeout=urllib3.Timeout(total=within_s),
                retries=False,
                preload_content=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._silent(method, path, error) from error

    def _silent(self, method: str, path: str, error: Exception) -> TargetError:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        return TargetError(f"cluster {self._context} at {self._host}: no answer to {method} {path}: {text}")

    def _strange(self, method: str, path: str, text: bytes) -> TargetError:
        shown = " ".join(text[:_SHOWN_MAX].decode(errors="replace").split())
        where = f"cluster {self._context} at {self._host}"
        return TargetError(f"{where}: what answers {method} {path} is no Kubernetes API: {shown!r}")

    def _refused(self, method: str, path: str, status: int, said: JsonObject) -> ApiRefused:
        why = " ".join(str(said.get("message") or "no reason is given").split())
        meaning = f"{_MEANS[status]}: " if status in _MEANS else ""
        text = f"cluster {self._context} at {self._host}: {meaning}{method} {path}: {why} ({status})"
        return ApiRefused(text, status=status, said=said)


def _read_whole(response: Any, *, within_s: float) -> bytes:
    """Return the body of an answer, all of it there in time: a time-out of urllib3's is for each read."""
    deadline, parts = time.monotonic() + within_s, []
    while part := response.read1(_CHUNK, decode_content=True):
        parts.append(part)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{sum(map(len, parts))} bytes came in {within_s:g} s, and not all")
    return b"".join(parts)


def _as_json(text: bytes) -> JsonObject:
    try:
        said = json.loads(text)
    except ValueError:
        said = {"message": text[:200].decode(errors="replace")}
    return said if isinstance(said, dict) else {"message": str(said)}


def connect_api(kubeconfig: str = "", context: str = "", *, is_direct: bool = False) -> KubeClient:
    """Return the client of a cluster, by default that which kubectl would take; nothing is asked yet.

    It goes through the relay of the game day that we are part of, where that has one, unless ``is_direct``.

    Raises:
        ConfigError: the kubeconfig cannot be read, or has no such context.
    """
    return _connected(kubeconfig, context, "" if is_direct else _relay_now())


def _relay_now() -> str:
    """Return the relay as a proxy; empty: there is none, or it is gone, and holds nobody up any more."""
    try:
        found = json.loads(Path(os.environ[RELAY_VARIABLE]).read_text(encoding="utf-8"))
    except (KeyError, OSError, ValueError):
        return ""
    return f"http://127.0.0.1:{found['port']}" if is_alive(found["pid"], found["start_time"]) else ""


@cache
def _connected(kubeconfig: str, context: str, relay: str) -> KubeClient:
    import yaml

    library: Any = import_module("kubernetes")  # slow to import, and untyped in parts
    client, config = library.client, library.config
    settings = client.Configuration()
    try:
        name = context or _current_context(kubeconfig)
        if name:
            config.load_kube_config(kubeconfig or None, context=name, client_configuration=settings)
        else:
            config.load_incluster_config(client_configuration=settings)
        if not settings.host.startswith(("https://", "http://")):
            raise ValueError(f"server: wanted https://ADDRESS, got {settings.host!r}")  # of its cluster
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, KeyError) as error:
        text = (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
        what = f"context {context or 'current'!r} of {kubeconfig or 'kubeconfig'}"
        raise ConfigError(f"kubernetes: {what}: {text}; {_next_step(kubeconfig)}") from error

    def authorization() -> str:
        found: JsonObject = (
            settings.auth_settings().get("BearerToken") or {}
        )  # renews a token that has run out
        return str(found.get("value") or "")

    if relay:
        settings.proxy, settings.no_proxy = relay, None
    pool = client.rest.RESTClientObject(settings).pool_manager
    return KubeClient(pool, settings, authorization, context=name or "in cluster")


def _next_step(kubeconfig: str) -> str:
    named = kubeconfig or os.environ.get("KUBECONFIG", "")
    if named and Path(named).exists():
        return f"`kubectl --kubeconfig {named} config get-contexts` lists those that there are"
    return "set KUBECONFIG, `kubeconfig:` of the target or --kubeconfig to a file that is there"


def _current_context(kubeconfig: str) -> str:
    """Return the context that kubectl would take; empty: there is no kubeconfig, but we run in a pod."""
    config: Any = import_module("kubernetes.config")
    try:
        return str(config.list_kube_config_contexts(kubeconfig or None)[1]["name"])
    except config.ConfigException:
        if kubeconfig or "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise
        return ""

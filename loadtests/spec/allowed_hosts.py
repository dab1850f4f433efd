"""Which hosts a workload may load: a load test that reaches the wrong service is an outage."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from probes.errors import ConfigError


def check_host(url: str, allowed: Sequence[str]) -> None:
    """Refuse an endpoint that the list does not name; an empty list allows all.

    Names are patterns of a host, or of host and port: ``*.staging.example:8000``.

    Raises:
        ConfigError: it is not on the list.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    port = parts.port or (443 if parts.scheme == "https" else 80)
    shown = f"[{host}]" if ":" in host else host
    names = (host, shown, f"{shown}:{port}")
    if not allowed or any(fnmatchcase(name, pattern.lower()) for pattern in allowed for name in names):
        return
    raise ConfigError(
        f"{url}: {shown}:{port} is not in allowed_hosts ({', '.join(allowed)}); nothing was sent there"
    )

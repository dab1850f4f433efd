"""Which keys hosts have, by the files that OpenSSH keeps: names, wildcards, hashed names, revoked keys."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
from paramiko.hostkeys import HostKeyEntry

SSH_PORT = 22
_REVOKED, _AUTHORITY = "@revoked", "@cert-authority"
_HASHED = "|1|"


@dataclass(slots=True)
class KnownHosts:
    """The lines of the files, laid out for look-ups of thousands of hosts."""

    by_name: dict[str, list[str]] = field(default_factory=dict)  # name -> "type key"
    by_pattern: list[tuple[str, str]] = field(default_factory=list)  # comma-separated patterns
    by_hash: list[tuple[str, str]] = field(default_factory=list)
    authorities: list[tuple[str, str]] = field(default_factory=list)  # patterns, "type key"
    revoked: set[str] = field(default_factory=set)  # "type key"

    def keys_of(self, name: str, port: int) -> list[paramiko.PKey]:
        """Return the keys of a host that listens on a port, those that this client can handle."""
        token = host_token(name, port)
        found = [*self.by_name.get(token, ())]
        found += [key for patterns, key in self.by_pattern if _matches(patterns, token)]
        found += [key for hashed, key in self.by_hash if _is_hash_of(hashed, token)]
        entries = (HostKeyEntry.from_line(f"host {key}") for key in found)
        return [entry.key for entry in entries if entry is not None and entry.key is not None]

    def is_revoked(self, key: paramiko.PKey) -> bool:
        """Say whether somebody has declared this key bad."""
        return f"{key.get_name()} {key.get_base64()}" in self.revoked

    def authorities_of(self, name: str, port: int) -> frozenset[str]:
        """Return the keys, as "type key", of those whose certificates vouch for this host."""
        token = host_token(name, port)
        return frozenset(key for patterns, key in self.authorities if _matches(patterns, token))


def host_token(name: str, port: int) -> str:
    """Return how the files write a host: with its port where that is not the usual one."""
    return name.lower() if port == SSH_PORT else f"[{name.lower()}]:{port}"


def load_known_hosts(paths: Iterable[Path]) -> KnownHosts:
    """Read the files that are there; a line that is none is passed over, as OpenSSH does."""
    known = KnownHosts()
    for line in _lines(paths):
        words = line.split()
        marker = words.pop(0) if words[0].startswith("@") else ""
        if len(words) < 3:
            continue
        patterns, key = words[0], f"{words[1]} {words[2]}"
        if marker == _REVOKED:
            known.revoked.add(key)
        elif marker == _AUTHORITY:
            known.authorities.append((patterns, key))
        elif patterns.startswith(_HASHED):
            known.by_hash.append((patterns, key))
        elif any(sign in patterns for sign in "*?!"):
            known.by_pattern.append((patterns, key))
        else:
            for name in patterns.lower().split(","):
                known.by_name.setdefault(name, []).append(key)
    return known


def _lines(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        yield from (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))


def _matches(patterns: str, token: str) -> bool:
    """Say whether one of the patterns fits and none that is negated does."""
    is_found = False
    for pattern in patterns.lower().split(","):
        escaped = re.escape(pattern.removeprefix("!")).replace(r"\*", ".*").replace(r"\?", ".")
        if re.fullmatch(escaped, token):
            if pattern.startswith("!"):
                return False
            is_found = True
    return is_found


def _is_hash_of(hashed: str, token: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part) for part in hashed.removeprefix(_HASHED).split("|"))
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(hmac.new(salt, token.encode(), hashlib.sha1).digest(), digest)


def fingerprint(key: paramiko.PKey) -> str:
    """Return a key's fingerprint as ``ssh-keygen -l`` shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")

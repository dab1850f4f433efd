"""Certificates of hosts as OpenSSH makes them; paramiko proves that the host holds the key, and no more.

Layout: PROTOCOL.certkeys of OpenSSH. Stricter than its client in one thing: a certificate that names no host
is good for none.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Set
from dataclasses import dataclass

import paramiko
from paramiko.message import Message

_HOST = 2  # kind of a certificate; 1 is a user's
_KEY_FIELDS = {"ssh-rsa": 2, "ssh-ed25519": 1}  # and two of each ecdsa: curve and point
_SUFFIX = "-cert-v01@openssh.com"
_BROKEN_HASH = "ssh-rsa"  # signs with SHA-1


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCertificate:
    """What an authority says of a key, and what proves that it said so."""

    kind: int
    principals: tuple[str, ...]
    valid_after_s: int
    valid_before_s: int
    critical_options: bytes
    authority: str  # "type key", as known_hosts has it
    signed: bytes
    signature: bytes


def read_certificate(key: paramiko.PKey) -> HostCertificate | None:
    """Return the certificate that came with a host's key; None: it is a bare key."""
    if key.public_blob is None:
        return None
    blob = bytes(key.public_blob.key_blob)
    fields = Message(blob)
    kind_of_key = fields.get_text().removesuffix(_SUFFIX)
    for _ in range(1 + _KEY_FIELDS.get(kind_of_key, 2)):  # a nonce before them
        fields.get_binary()
    fields.get_int64()  # serial
    kind, _ = fields.get_int(), fields.get_binary()  # and its name
    principals = tuple(_texts(fields.get_binary()))
    after_s, before_s = fields.get_int64(), fields.get_int64()
    options, _, _ = fields.get_binary(), fields.get_binary(), fields.get_binary()
    authority = fields.get_binary()
    signed = blob[: len(blob) - len(fields.get_remainder())]
    return HostCertificate(
        kind=kind,
        principals=principals,
        valid_after_s=after_s,
        valid_before_s=before_s,
        critical_options=options,
        authority=f"{Message(authority).get_text()} {base64.b64encode(authority).decode()}",
        signed=signed,
        signature=fields.get_binary(),
    )


def _texts(packed: bytes) -> Iterator[str]:
    fields = Message(packed)
    while fields.get_remainder():
        yield fields.get_text()


def why_not_vouched(
    certificate: HostCertificate, *, name: str, authorities: Set[str], revoked: Set[str], now_s: float
) -> str | None:
    """Return why a certificate does not vouch for a host of this name; None: it does."""
    if certificate.authority not in authorities:
        return "is by no authority that known_hosts has for it"
    if certificate.authority in revoked:
        return "is by an authority that is revoked in known_hosts"
    if not _is_signed(certificate):
        return "has a signature that is not the authority's"
    if certificate.kind != _HOST:
        return "is a user's, not a host's"
    if name.lower() not in (principal.lower() for principal in certificate.principals):
        return f"is for {', '.join(certificate.principals) or 'no host by name'}, not for {name}"
    if not certificate.valid_after_s <= now_s < certificate.valid_before_s:
        return "is not valid today; see ssh-keygen -L, and the clock"
    return "has critical options, which none may have" if certificate.critical_options else None


def _is_signed(certificate: HostCertificate) -> bool:
    kind, text = certificate.authority.split(" ")
    if Message(certificate.signature).get_text() == _BROKEN_HASH:
        return False
    try:
        authority = paramiko.PKey.from_type_string(kind, base64.b64decode(text))
        return bool(authority.verify_ssh_sig(certificate.signed, Message(certificate.signature)))
    except (paramiko.SSHException, ValueError):  # a kind of key that this client cannot handle
        return False

"""Certificates that ssh-keygen made: who vouches for what, for whom, and until when."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import paramiko
import pytest

from probes.host_certificate import read_certificate, why_not_vouched

pytestmark = pytest.mark.needs("ssh-keygen")
KINDS = {"ed25519": paramiko.Ed25519Key, "ecdsa": paramiko.ECDSAKey, "rsa": paramiko.RSAKey}


def _make(path: Path, kind: str = "ed25519") -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def _certified(folder: Path, *options: str, kind: str = "ed25519") -> paramiko.PKey:
    """Return the public key that a host shows, with what the authority ``ca`` in the folder says of it."""
    _make(folder / "host", kind)
    words = ["ssh-keygen", "-q", "-s", str(folder / "ca"), "-I", "test", *options, str(folder / "host.pub")]
    subprocess.run(words, check=True, capture_output=True)
    blob = paramiko.pkey.PublicBlob.from_file(str(folder / "host-cert.pub")).key_blob
    return KINDS[kind](data=blob)


def _why(key: paramiko.PKey, authority: str, *, revoked: frozenset[str] = frozenset()) -> str | None:
    certificate = read_certificate(key)
    assert certificate is not None
    return why_not_vouched(
        certificate, name="gpu1.rack", authorities={authority}, revoked=revoked, now_s=time.time()
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("authority_kind", KINDS)
def test_a_certificate_of_the_known_authority_vouches(tmp_path: Path, kind: str, authority_kind: str) -> None:
    authority = _make(tmp_path / "ca", authority_kind)
    key = _certified(tmp_path, "-h", "-n", "other,gpu1.rack", kind=kind)

    assert _why(key, authority) is None
    assert "revoked" in str(_why(key, authority, revoked=frozenset({authority})))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("-h", "-n", "gpu2.rack"), "is for gpu2.rack, not for gpu1.rack"),
        (("-h",), "is for no host by name, not for gpu1.rack"),
        (("-n", "gpu1.rack"), "is a user's, not a host's"),
        (("-h", "-n", "gpu1.rack", "-V", "20200101:20210101"), "is not valid today"),
        (("-h", "-n", "gpu1.rack", "-V", "20900101:20910101"), "is not valid today"),
        (("-h", "-n", "gpu1.rack", "-O", "critical:force@x=y"), "has critical options"),
    ],
)
def test_a_certificate_that_says_something_else_does_not(
    tmp_path: Path, options: tuple[str, ...], why: str
) -> None:
    authority = _make(tmp_path / "ca")

    assert why in str(_why(_certified(tmp_path, *options), authority))


def test_a_certificate_of_somebody_else_does_not(tmp_path: Path) -> None:
    _make(tmp_path / "ca")
    key = _certified(tmp_path, "-h", "-n", "gpu1.rack")

    assert "is by no authority" in str(_why(key, _make(tmp_path / "another")))


def test_a_certificate_whose_name_was_altered_is_not_the_authority_s(tmp_path: Path) -> None:
    authority = _make(tmp_path / "ca")
    key = _certified(tmp_path, "-h", "-n", "gpu1.rack")
    blob = key.public_blob.key_blob
    place = blob.index(b"gpu1.rack")
    key.public_blob.key_blob = blob[:place] + b"gpu9" + blob[place + 4 :]

    assert _why(key, authority) == "has a signature that is not the authority's"

"""known_hosts files: names, ports, wildcards, hashes and what was revoked, as OpenSSH reads them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import subprocess
from pathlib import Path

import paramiko
import pytest

from probes.known_hosts import KnownHosts, fingerprint, load_known_hosts


@pytest.fixture
def key(tmp_path: Path) -> str:
    return _make(tmp_path / "key")


def _make(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def _load(folder: Path, *lines: str) -> KnownHosts:
    path = folder / "known_hosts"
    path.write_text("\n".join(lines) + "\n")
    return load_known_hosts([path, folder / "missing"])


def _known(known: KnownHosts, name: str, port: int = 22) -> bool:
    return len(known.keys_of(name, port)) == 1


@pytest.mark.needs("ssh-keygen")
def test_names_ports_and_wildcards_are_read_as_openssh_does(tmp_path: Path, key: str) -> None:
    known = _load(
        tmp_path, f"one,Two {key} comment", f"[three]:2222 {key}", f"*.gpu,!bad.gpu {key}", "# x", "torn"
    )

    assert _known(known, "one")
    assert _known(known, "TWO")
    assert not _known(known, "one", 2222)
    assert _known(known, "three", 2222)
    assert not _known(known, "three")
    assert _known(known, "n1.gpu")
    assert not _known(known, "bad.gpu")
    assert not _known(known, "gpu")


@pytest.mark.needs("ssh-keygen")
def test_a_hashed_name_is_found(tmp_path: Path, key: str) -> None:
    path = tmp_path / "hashed"
    path.write_text(f"[gpu1]:2022 {key}\n")
    subprocess.run(["ssh-keygen", "-H", "-f", str(path)], check=True, capture_output=True)
    known = load_known_hosts([path])

    assert "gpu1" not in path.read_text()
    assert _known(known, "gpu1", 2022)
    assert not _known(known, "gpu2", 2022)


def test_a_torn_hash_matches_nothing(tmp_path: Path) -> None:
    digest = base64.b64encode(hmac.new(b"salt", b"gpu1", hashlib.sha1).digest()).decode()
    known = _load(tmp_path, f"|1|not base64!|{digest} ssh-ed25519 AAAA", "|1| ssh-ed25519 AAAA")

    assert known.keys_of("gpu1", 22) == []


@pytest.mark.needs("ssh-keygen")
def test_a_revoked_key_and_an_authority_are_told_apart_from_known_keys(tmp_path: Path, key: str) -> None:
    authority = _make(tmp_path / "ca")
    known = _load(tmp_path, f"@revoked * {key}", f"@cert-authority *.gpu {authority} comment")
    parsed = paramiko.Ed25519Key(filename=str(tmp_path / "key"))

    assert known.is_revoked(parsed)
    assert known.keys_of("n1.gpu", 22) == []
    assert known.authorities_of("n1.gpu", 22) == {authority}
    assert known.authorities_of("other", 22) == frozenset()


@pytest.mark.needs("ssh-keygen")
def test_a_fingerprint_is_the_one_that_ssh_keygen_shows(tmp_path: Path, key: str) -> None:
    shown = subprocess.run(
        ["ssh-keygen", "-lf", str(tmp_path / "key.pub")], check=True, capture_output=True, text=True
    ).stdout

    assert fingerprint(paramiko.Ed25519Key(filename=str(tmp_path / "key"))) in shown.split()
    assert key

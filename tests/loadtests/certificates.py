"""A certificate authority for tests, and certificates that are good, expired, or for somebody else."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_NOW = datetime.datetime.now(datetime.UTC)
_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Signs certificates into a folder; ``file`` is what a client has to trust."""

    folder: Path
    file: Path
    key: ec.EllipticCurvePrivateKey
    name: x509.Name

    def certificate(self, name: str, *, host: str = "127.0.0.1", age_days: int = 0) -> Path:
        """Write a certificate with its key for a host, valid for a day from so many days ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        begin = _NOW - _DAY * age_days - datetime.timedelta(minutes=5)
        built = (
            _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), self.name, key, begin)
            .add_extension(x509.SubjectAlternativeName([_host(host)]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        file = self.folder / f"{name}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
        return file

    def server(self, name: str = "good", **changes: object) -> ssl.SSLContext:
        """Return a server's side with such a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate(name, **changes))  # type: ignore[arg-type]
        return context


def make_authority(folder: Path) -> Authority:
    """Make a new authority, which no machine trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    built = _builder(name, name, key, _NOW - _DAY * 30, days=60)
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    file = folder / "authority.pem"
    file.write_bytes(built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return Authority(folder=folder, file=file, key=key, name=name)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    begin: datetime.datetime,
    *,
    days: int = 1,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + _DAY * days)
    )

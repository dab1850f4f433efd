"""Keys, certificates and kubeconfigs of a cluster: one authority, good for a few days."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.cluster.plan import CONTROL_PLANE, Plan

_LIFETIME = datetime.timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Who signs."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def write_pki(plan: Plan) -> None:
    """Write every key, certificate and kubeconfig of the cluster below its folder."""
    folder = plan.folder / "pki"
    folder.mkdir(parents=True)
    authority = _make_authority()
    (folder / "ca.crt").write_bytes(authority.pem)
    (folder / "service-accounts.key").write_bytes(_pem(ec.generate_private_key(ec.SECP256R1())))
    _write_pair(folder / "api", authority, name="kube-apiserver", addresses=_api_addresses(plan))
    _write_pair(folder / "api-to-kubelet", authority, name="api-to-kubelet", groups=("system:masters",))
    _write_pair(folder / "front-proxy", authority, name="front-proxy")
    for user in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
        _write_kubeconfig(folder / f"{user}.kubeconfig", plan, authority, name=f"system:{user}")
    _write_kubeconfig(plan.kubeconfig, plan, authority, name="test-admin", groups=("system:masters",))
    for node in plan.nodes:
        _write_pair(folder / node.name, authority, name=node.name, addresses=(node.name, node.address))
        name, groups = f"system:node:{node.name}", ("system:nodes",)
        _write_kubeconfig(folder / f"{node.name}.kubeconfig", plan, authority, name=name, groups=groups)


def _api_addresses(plan: Plan) -> tuple[str, ...]:
    names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", CONTROL_PLANE, "localhost")
    return (*names, "127.0.0.1", plan.address, plan.api_service_address)


def _make_authority() -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "overproof test cluster")])
    builder = _builder(name, name, key).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return Authority(key=key, certificate=builder.add_extension(usage, True).sign(key, hashes.SHA256()))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
    )


def _sign(
    authority: Authority, *, name: str, groups: Sequence[str], addresses: Sequence[str]
) -> tuple[bytes, bytes]:
    """Return a certificate for this user or server, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    parts += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    builder = _builder(x509.Name(parts), authority.certificate.subject, key)
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if addresses else [])]
    builder = builder.add_extension(x509.ExtendedKeyUsage(uses), False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), False
    )
    if addresses:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(each) for each in addresses]), False
        )
    signed = builder.sign(authority.key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM), _pem(key)


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _write_pair(
    path: Path, authority: Authority, *, name: str, groups: Sequence[str] = (), addresses: Sequence[str] = ()
) -> None:
    certificate, key = _sign(authority, name=name, groups=groups, addresses=addresses)
    path.with_name(f"{path.name}.crt").write_bytes(certificate)
    path.with_name(f"{path.name}.key").write_bytes(key)


def _write_kubeconfig(
    path: Path, plan: Plan, authority: Authority, *, name: str, groups: Sequence[str] = ()
) -> None:
    certificate, key = _sign(authority, name=name, groups=groups, addresses=())
    cluster = {"server": plan.server, "certificate-authority-data": _text(authority.pem)}
    user = {"client-certificate-data": _text(certificate), "client-key-data": _text(key)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "overproof-test", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "overproof-test", "context": {"cluster": "overproof-test", "user": name}}],
        "current-context": "overproof-test",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(content, indent=1))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()

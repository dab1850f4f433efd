"""The certificate of a node that passed: one self-contained page, with the digests of its record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reports.fleet_files import FILES as FLEET_FILES
from reports.html import relative_link, report_link
from reports.page import render_page
from reports.publish import FILES as PUBLISHED_FILES
from reports.run import Run

_CHUNK_BYTES = 1 << 20
# What people read is made from the record and may be made anew; it is no part of the evidence.
_RENDERED = (*PUBLISHED_FILES, *FLEET_FILES)
CERTIFICATE_PREFIX = "certificate-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One device that is certified."""

    name: str
    model: str
    identity: tuple[tuple[str, str], ...]  # serial, VBIOS, address
    load: str  # measured, not planned
    bound: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One thing that was tested, and what it showed."""

    name: str
    lasted: str
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Everything that the page says."""

    host: str
    run_id: str
    title: str
    sentence: str
    facts: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]
    stages: tuple[Shown, ...]
    rules: tuple[Shown, ...]
    proven: tuple[tuple[str, tuple[str, ...]], ...]  # reach -> detectors
    reservations: tuple[str, ...]  # what was left out, does not apply, or was waived
    versions: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, str], ...]  # name, SHA-256
    digest: str  # over the lines of the files
    command: str  # that checks the digests
    report: str = ""  # its address, seen from the certificate; empty: there is none


def record_digests(run: Run) -> tuple[tuple[str, str], ...]:
    """Return name and SHA-256 of each file of a record, but for what is rendered from it."""
    paths = sorted(path for path in run.path.rglob("*") if path.is_file() and _is_evidence(path))
    return tuple((str(path.relative_to(run.path)), _sha256(path)) for path in paths)


def _is_evidence(path: Path) -> bool:
    return path.name not in _RENDERED and not path.name.startswith((".", CERTIFICATE_PREFIX))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sums_text(files: tuple[tuple[str, str], ...]) -> str:
    """Return the digests as ``sha256sum -c`` reads them."""
    return "".join(f"{digest}  {name}\n" for name, digest in files)


def digest_of(files: tuple[tuple[str, str], ...]) -> str:
    """Return one digest for the whole record: that of the file of its digests."""
    return hashlib.sha256(sums_text(files).encode()).hexdigest()


def render_certificate(certificate: Certificate) -> str:
    """Return the page."""
    return render_page("certificate.html.j2", styles=("templates/certificate.css",), c=certificate)


def render_certificates(
    run: Run, *, written: Mapping[str, Path], refused: Mapping[str, str], page: Path
) -> str:
    """Return the page that leads to the certificates of a fleet's hosts, and tells why others have none."""
    return render_page(
        "certificates.html.j2",
        run=run,
        report=report_link(run.path, page=page),
        written={host: relative_link(path, page=page) for host, path in written.items()},
        refused=refused,
    )

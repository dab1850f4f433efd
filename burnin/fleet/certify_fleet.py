"""Certificates of a fleet: one page for each host that passed, and the digests of the whole record."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from burnin.certify import certify
from burnin.fleet.judging import judge_fleet
from probes.errors import ConfigError
from probes.outcome import Outcome, worst
from reports.certificate import CERTIFICATE_PREFIX, record_digests, render_certificates, sums_text
from reports.fleet_sheet import is_simulated
from reports.fleet_tables import FleetTables
from reports.fleet_verdicts import HostVerdict, read_verdicts
from reports.page import write_page
from reports.record import write_atomically
from reports.run import Run, load_run
from reports.session import judge_completeness

FOLDER = "certificates"
SUMS = f"{CERTIFICATE_PREFIX}fleet.sha256"
TOLD_MAX = 20  # of those that got none


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedFleet:
    """What was written, and who got none."""

    outcome: Outcome
    folder: Path
    pages: dict[str, Path]  # host -> its certificate
    refused: dict[str, str]  # host -> why

    @property
    def written(self) -> tuple[str, ...]:
        """The hosts that have a certificate."""
        return tuple(self.pages)


def certify_fleet(run: Run, *, out: Path | None = None) -> CertifiedFleet:
    """Write a certificate for each host that passed; both the fleet and the host are judged anew for it.

    Raises:
        ConfigError: the fleet is a rehearsal, or a certificate cannot be written.
    """
    if is_simulated(run):
        raise ConfigError(f"{run.path}: is simulated: nothing was tested, and nothing is certified")
    folder = out or run.path / FOLDER
    findings = [*judge_fleet(run), judge_completeness(run)]
    with FleetTables(run) as tables:
        recorded = {v.host: v.outcome for v in read_verdicts(run, tables)}
        verdicts = read_verdicts(run, tables, findings)
    pages: dict[str, Path] = {}
    refused: dict[str, str] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for verdict in verdicts:
            came = _certify_host(run, verdict, recorded.get(verdict.host), folder)
            if isinstance(came, Path):
                pages[verdict.host] = came
            else:
                refused[verdict.host] = came
        write_atomically(folder / SUMS, sums_text(record_digests(run)))
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from error
    outcome = worst(verdict.outcome for verdict in verdicts)
    if refused and outcome is Outcome.PASS:
        outcome = Outcome.INCONCLUSIVE
    return CertifiedFleet(outcome=outcome, folder=folder, pages=pages, refused=refused)


def _certify_host(run: Run, verdict: HostVerdict, recorded: Outcome | None, folder: Path) -> Path | str:
    """Write the certificate of one host; return where it is, or why there is none."""
    if verdict.outcome is not Outcome.PASS:
        first = f": {verdict.because[0].rule}: {verdict.because[0].observed:.160}" if verdict.because else ""
        return f"{verdict.outcome}{first}"
    if recorded is not Outcome.PASS:
        return f"judged again it passes, but the record says {recorded}: overproof judge {run.path}"
    own = (run.path / verdict.run).resolve()
    if not verdict.run or not own.is_relative_to(run.path.resolve()):
        return "its own record is not in the fleet's"
    try:
        certified = certify(load_run(own), out=folder)
    except ConfigError as error:
        return str(error)
    return certified.path or certified.reason


def write_list(run: Run, certified: CertifiedFleet, *, page: Path) -> None:
    """Write one page that leads to every certificate, and says why the other hosts have none."""
    write_page(page, render_certificates(run, written=certified.pages, refused=certified.refused, page=page))


def render_certified_fleet(certified: CertifiedFleet, *, as_json: bool) -> str:
    """Return what goes to standard output: the folder as the last line, or one JSON document."""
    if as_json:
        said = {"outcome": certified.outcome.value, "folder": str(certified.folder)}
        return json.dumps(said | {"certified": list(certified.written), "refused": certified.refused}) + "\n"
    lines = [f"{len(certified.written):,} hosts certified, {len(certified.refused):,} not"]
    lines += [f"no certificate for {host}: {why}" for host, why in list(certified.refused.items())[:TOLD_MAX]]
    if len(certified.refused) > TOLD_MAX:
        lines.append(f"and for {len(certified.refused) - TOLD_MAX:,} more")
    return "\n".join([*lines, str(certified.folder)]) + "\n"

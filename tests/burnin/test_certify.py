"""Certificates: one page that can be checked for a node that passed, for any other the reason why not."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from burnin.certify import certify
from burnin.judging import judge_run
from probes.errors import ConfigError
from probes.finding import Finding
from probes.outcome import Outcome
from reports.record import write_findings
from reports.run import Run, load_run
from reports.session import judge_completeness
from tests.burnin.node_record import Node
from tests.processes import start_job
from tests.twins.nvml import uuid

pytestmark = pytest.mark.needs("gcc")


def _judged(node: Node, folder: Path) -> Run:
    run = node.write(folder)
    write_findings(run.path, [*judge_run(run), judge_completeness(run)])
    return load_run(run.path)


def test_a_node_that_passed_gets_a_page_with_serials_detectors_and_digests(tmp_path: Path) -> None:
    run = _judged(Node(), tmp_path)

    certified = certify(run)

    assert certified.path is not None
    page = certified.path.read_text()
    assert certified.outcome is Outcome.PASS
    for index in range(8):
        assert uuid(index) in page
        assert f"165422300000{index}" in page
    assert "end to end" in page
    assert "bit flip in a product" in page
    assert "parser only" in page
    assert "8 devices (GPUs)" in page
    assert "script" not in page.replace("description", "")


def test_the_certificate_lies_where_it_is_asked_for_its_digests_beside_it_and_leads_to_the_report(
    tmp_path: Path,
) -> None:
    run = _judged(Node(), tmp_path / "runs")
    (run.path / "report.html").write_text("a report")

    certified = certify(run, page=tmp_path / "for-the-customer.html")

    assert certified.path == tmp_path / "for-the-customer.html"
    assert f'href="runs/{run.path.name}/report.html"' in certified.path.read_text()
    assert len(list(tmp_path.glob("certificate-*.sha256"))) == 1


def test_the_digests_are_those_of_the_record_and_tell_when_it_is_changed(tmp_path: Path) -> None:
    run = _judged(Node(), tmp_path)
    certified = certify(run)
    assert certified.path is not None
    sums = certified.path.with_suffix(".sha256").name

    def check() -> int:
        return subprocess.run(["sha256sum", "-c", "--quiet", sums], cwd=run.path, check=False).returncode

    assert check() == 0
    with (run.path / "events.ndjson").open("a") as file:
        file.write("{}\n")
    assert check() != 0


def test_a_node_that_failed_is_refused_with_the_fault(tmp_path: Path) -> None:
    run = _judged(Node(tflops=lambda gpu, second: 400.0 if gpu == 2 else 700.0), tmp_path)

    certified = certify(run)

    assert (certified.outcome, certified.path) == (Outcome.FAIL, None)
    assert uuid(2) in certified.reason
    assert list(run.path.glob("certificate*")) == []


def test_findings_that_were_made_up_do_not_earn_a_certificate(tmp_path: Path) -> None:
    run = Node(tflops=lambda gpu, second: 400.0 if gpu == 2 else 700.0).write(tmp_path)
    fine = Finding(rule="speed", subject="gpu:all", outcome=Outcome.PASS, observed="", expected="")
    write_findings(run.path, [fine])

    assert load_run(run.path).outcome is Outcome.PASS
    assert certify(load_run(run.path)).outcome is Outcome.FAIL


def test_a_run_that_lacks_evidence_is_refused_as_undecided(tmp_path: Path) -> None:
    run = _judged(Node(without=lambda kind, data: kind == "agent.finished"), tmp_path)

    assert certify(run).outcome is Outcome.INCONCLUSIVE


def test_a_self_test_certifies_nothing(tmp_path: Path) -> None:
    run = _judged(Node(spec={"self_test": True}), tmp_path)

    assert (certify(run).outcome, certify(run).path) == (Outcome.INCONCLUSIVE, None)


def test_a_load_test_has_no_certificate(tmp_path: Path) -> None:
    run = _judged(Node(), tmp_path)
    header = json.loads((run.path / "run.json").read_text()) | {"kind": "load"}
    (run.path / "run.json").write_text(json.dumps(header))

    with pytest.raises(ConfigError, match="only a burn-in"):
        certify(load_run(run.path))


def test_the_command_prints_the_path_or_leaves_with_the_exit_code_of_the_verdict(tmp_path: Path) -> None:
    good = _judged(Node(), tmp_path / "good")
    bad = _judged(Node(tflops=lambda gpu, second: 400.0), tmp_path / "bad")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    passed = start_job(["burnin", "certify", str(good.path)], tmp_path / "a")
    refused = start_job(["burnin", "certify", str(bad.path)], tmp_path / "b")

    assert passed.wait(timeout_s=60) == 0
    assert refused.wait(timeout_s=60) == 1
    assert Path(passed.text().splitlines()[-1]).name == f"certificate-{good.header.host}.html"
    assert "no certificate: the node did not pass: tflops" in refused.text()


@pytest.mark.needs("chromium")
def test_the_page_is_one_sheet_of_a4(tmp_path: Path) -> None:
    certified = certify(_judged(Node(), tmp_path))
    pdf = tmp_path / "page.pdf"

    subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--no-pdf-header-footer", f"--user-data-dir={tmp_path}/c",
         f"--print-to-pdf={pdf}", f"file://{certified.path}"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip

    assert pdf.read_bytes().count(b"/Type /Page\n") == 1

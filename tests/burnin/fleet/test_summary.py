"""What one host's judged burn-in adds to the fleet's tables, and its certificate in the fleet's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import overproof
from burnin.fleet.certify_fleet import SUMS, certify_fleet
from burnin.fleet.judging import judge_fleet
from burnin.fleet.summary import summarise
from burnin.judging import judge_run
from probes.errors import ConfigError
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.run import Run, load_run
from reports.session import rejudge
from tests.burnin.fleet.fleet_record import FleetRecord
from tests.burnin.node_record import Node
from tests.twins.nvml import uuid

pytestmark = pytest.mark.needs("gcc")


def _judged(node: Node, folder: Path) -> Run:
    run = node.write(folder)
    rejudge(run, judge_run)
    return load_run(run.path)


def _figures(rows: list[JsonObject], gpu: int) -> dict[str, float]:
    return {row["metric"]: row["value"] for row in rows if row["gpu"] == uuid(gpu)}


def test_a_host_tells_figures_digests_and_fingerprints_of_every_gpu(tmp_path: Path) -> None:
    tables = summarise(_judged(Node(with_power=True), tmp_path))

    figures = _figures(tables["gpu_result"], 3)
    assert figures["tflops bf16"] == 704.0
    assert figures["tflops_held"] == 700.0
    assert figures["allreduce_busbw_gbps 17179869184 B 8 ranks auto"] == 475.0
    assert {"tflops_per_ghz bf16", "power_w", "temperature_c"} <= set(figures)
    assert len({row["serial"] for row in tables["gpu_result"]} - {""}) == 8
    assert [row["digest"] for row in tables["digest"]] == ["aa"] * 8
    assert len({row["product"] for row in tables["digest"]}) == 1
    keys = {(row["part"], row["key"]) for row in tables["fingerprint"]}
    assert {("", "driver"), ("", "torch"), (uuid(0), "vbios"), (uuid(0), "slot")} <= keys
    assert tables["host_finding"] == []


def test_a_device_that_computed_wrongly_has_no_vote(tmp_path: Path) -> None:
    tables = summarise(_judged(Node(digest=lambda gpu: "bb" if gpu == 2 else "aa"), tmp_path))

    assert uuid(2) not in {row["gpu"] for row in tables["digest"]}
    assert [(row["rule"], row["subject"], row["outcome"]) for row in tables["host_finding"]] == [
        ("digest", f"gpu:{uuid(2)}", "fail")
    ]


def test_products_of_other_data_or_versions_are_other_products(tmp_path: Path) -> None:
    def product(name: str, **changes: object) -> str:
        node = Node()
        for key, value in changes.items():
            setattr(node, key, value)
        return str(summarise(_judged(node, tmp_path / name))["digest"][0]["product"])

    assert len({product("a"), product("b"), product("c", age=535), product("d", model="A100")}) == 3


def _fleet_with_records(folder: Path, node: Node) -> Run:
    """Return a fleet of two hosts, of which the first has a record of its own."""
    run = FleetRecord(hosts=2, gpus=1).write(folder)
    own = _judged(node, folder / "own")
    (run.path / "hosts").mkdir()
    shutil.move(own.path, run.path / "hosts" / "gpu00001")
    rejudge(run, judge_fleet)
    return load_run(run.path)


def test_each_host_that_passed_gets_a_certificate_and_the_whole_record_its_digests(tmp_path: Path) -> None:
    run = _fleet_with_records(tmp_path, Node())

    certified = certify_fleet(run)

    assert certified.written == ("gpu00001",)
    assert list(certified.refused) == ["gpu00002"]  # it has no record of its own
    assert certified.outcome is Outcome.INCONCLUSIVE
    assert len(list(certified.folder.glob("certificate-*.html"))) == 1
    checked = subprocess.run(
        ["sha256sum", "-c", certified.folder / SUMS],
        cwd=run.path,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert checked.returncode == 0


def test_a_list_leads_to_every_certificate_and_says_why_the_others_have_none(tmp_path: Path) -> None:
    run = _fleet_with_records(tmp_path / "runs", Node())
    page = tmp_path / "list.html"

    code = overproof.run_command(["burnin", "certify", str(run.path), "--html", str(page)])
    links = re.findall(r'<li><a href="([^"]+)">gpu00001</a>', page.read_text())

    assert code == 3
    assert [(page.parent / link).exists() for link in links] == [True]
    assert "1 of 2 hosts are certified" in page.read_text()
    assert re.search(r"gpu00002</th><td[^>]*>.*not a run folder", page.read_text())


def test_a_host_whose_own_record_fails_today_gets_none_whatever_the_fleet_wrote(tmp_path: Path) -> None:
    slow = Node(tflops=lambda gpu, second: 400.0 if gpu == 2 else 700.0)

    certified = certify_fleet(_fleet_with_records(tmp_path, slow))

    assert certified.written == ()
    assert "did not pass" in certified.refused["gpu00001"]


def test_a_rehearsal_certifies_nothing(tmp_path: Path) -> None:
    run = FleetRecord(hosts=2, gpus=1, spec={"simulated": True}).write(tmp_path)

    with pytest.raises(ConfigError, match="is simulated"):
        certify_fleet(run)


def test_the_command_certifies_a_fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = _fleet_with_records(tmp_path, Node())

    code = overproof.run_command(["burnin", "certify", str(run.path), "--json"])

    assert code == 3
    assert json.loads(capsys.readouterr().out)["certified"] == ["gpu00001"]


def test_a_fleet_is_judged_again_by_other_figures_from_the_records_of_its_hosts(tmp_path: Path) -> None:
    run = _fleet_with_records(tmp_path, Node())
    figures = tmp_path / "figures.yaml"
    figures.write_text("thresholds:\n  sibling_ratio_min: 0.9999\n")

    code = overproof.run_command(["judge", str(run.path), "--expectations", str(figures), "--json"])

    again = load_run(run.path)
    failed = [f.subject for f in again.findings if f.rule == "host" and f.outcome is Outcome.FAIL]
    assert code == 1
    assert failed == ["host:gpu00001"]
    assert "(gpu:" in next(f.observed for f in again.findings if f.subject == "host:gpu00001")


def test_a_fleet_without_records_of_its_hosts_cannot_be_judged_by_other_figures(tmp_path: Path) -> None:
    run = FleetRecord(hosts=2, gpus=1).write(tmp_path)
    figures = tmp_path / "figures.yaml"
    figures.write_text("thresholds:\n  sibling_ratio_min: 0.9\n")

    assert overproof.run_command(["judge", str(run.path), "--expectations", str(figures)]) == 2

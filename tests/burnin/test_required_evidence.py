"""Required evidence: what a board, a driver and a platform cannot say is excused, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from burnin.required_evidence import Site, judge_required, shipped_required
from probes.outcome import Outcome

SITE = Site(
    board="NVIDIA H100 80GB HBM3",
    architecture="hopper",
    driver_major=580,
    platform="bare metal",
    profile="quick",
)
ALL = set(shipped_required().readings)


def _missing(site: Site, absent: str) -> bool:
    finding = judge_required("GPU-1", site, ALL - {absent}, {absent: "Not Supported"})
    return finding.outcome is Outcome.INCONCLUSIVE and finding.evidence["missing"] == [absent]


def test_with_everything_there_a_gpu_passes() -> None:
    assert judge_required("GPU-1", SITE, ALL, {}).outcome is Outcome.PASS


@pytest.mark.parametrize("reading", sorted(ALL - {"kernel_log"}))
def test_each_reading_alone_leaves_an_h100_undecided_when_it_is_missing(reading: str) -> None:
    assert _missing(SITE, reading)


@pytest.mark.parametrize(
    ("reading", "site"),
    [
        ("recovery_action", replace(SITE, driver_major=535)),
        ("sram_threshold_exceeded", replace(SITE, board="NVIDIA A100-SXM4-80GB", architecture="ampere")),
        ("nvlinks", replace(SITE, board="NVIDIA H100 PCIe")),
        ("pcie_width", replace(SITE, board="NVIDIA GB200", architecture="blackwell")),
        ("row_remap_failure", replace(SITE, board="NVIDIA GeForce RTX 4090", architecture="ada")),
        ("ecc_uncorrected", replace(SITE, board="some board", architecture=None)),
        ("sram_threshold_exceeded", replace(SITE, is_root=False)),
        ("inforom_corrupt", replace(SITE, platform="virtual machine")),
        ("kernel_log", SITE),
        ("kernel_log", replace(SITE, platform="container", profile="soak")),
    ],
)
def test_what_cannot_be_there_is_excused_and_said(reading: str, site: Site) -> None:
    finding = judge_required("GPU-1", site, ALL - {reading}, {})

    assert finding.outcome is Outcome.PASS
    assert reading in finding.evidence["not_applicable"]


def test_the_kernel_log_is_required_of_an_intake_on_bare_metal() -> None:
    assert _missing(replace(SITE, profile="intake"), "kernel_log")


def test_an_a100_is_no_a10_and_has_its_nvlinks() -> None:
    assert _missing(replace(SITE, board="NVIDIA A100-SXM4-80GB", architecture="ampere"), "nvlinks")

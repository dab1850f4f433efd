"""A fleet is judged from its tables: who is to blame is named, what nobody knows is undecided."""

from __future__ import annotations

from pathlib import Path

import pytest

from burnin.fleet.controls import prove_fleet_rules
from burnin.fleet.judging import judge_fleet
from burnin.fleet.outliers import judge_outliers
from probes.finding import Finding, verdict
from probes.outcome import Outcome
from reports.fleet_tables import FleetTables
from reports.run import load_run
from reports.session import rejudge
from tests.benchmarks.fleet_judging import write_fleet
from tests.burnin.fleet.fleet_record import FleetRecord, fails


def _judge(record: FleetRecord, folder: Path) -> list[Finding]:
    return judge_fleet(record.write(folder))


def _deciding(findings: list[Finding]) -> dict[str, str]:
    found = [f for f in findings if f.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)]
    return {f"{f.rule} {f.subject}": str(f.outcome) for f in found}


def test_a_healthy_fleet_passes_and_says_what_was_compared(tmp_path: Path) -> None:
    findings = _judge(FleetRecord(), tmp_path)

    assert verdict(findings) is Outcome.PASS
    assert {f.rule for f in findings} == {
        "host",
        "network",
        "fleet-digest",
        "fleet-outlier",
        "fleet-drift",
        "control",
    }


def test_a_record_without_a_single_row_is_undecided_for_every_host(tmp_path: Path) -> None:
    record = FleetRecord(hosts=2)
    record.silent = record.names()

    findings = _judge(record, tmp_path)

    assert _deciding(findings) == {"host host:gpu00001": "INCONCLUSIVE", "host host:gpu00002": "INCONCLUSIVE"}
    assert verdict(findings) is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    "state", ["lost", "unreachable", "refused", "unpermitted", "failed to start", "interrupted"]
)
def test_a_host_that_did_not_finish_is_undecided_by_name_with_a_next_step(tmp_path: Path, state: str) -> None:
    record = FleetRecord(hosts=4, state={"gpu00002": (state, "as it was told")})

    findings = [f for f in _judge(record, tmp_path) if f.subject == "host:gpu00002"]

    assert [(f.outcome, f.observed) for f in findings] == [(Outcome.INCONCLUSIVE, f"{state}: as it was told")]
    assert findings[0].next_step


def test_a_host_that_failed_is_named_with_the_rule_and_the_step_of_its_own_burn_in(tmp_path: Path) -> None:
    record = FleetRecord(outcome={"gpu00003": "fail"}, findings=[fails("gpu00003", "ecc")])

    found = [f for f in _judge(record, tmp_path) if f.outcome is Outcome.FAIL]

    assert [(f.rule, f.subject, f.next_step) for f in found] == [("host", "host:gpu00003", "replace it")]
    assert "ecc (gpu:GPU-gpu00003-0)" in found[0].observed


def test_one_slow_gpu_is_named_with_the_worst_of_its_metrics(tmp_path: Path) -> None:
    record = FleetRecord()
    record.value = lambda host, gpu, metric, usual: (
        usual * (0.7 if (host, gpu) == ("gpu00005", 3) and metric.startswith("tflops") else 1)
    )

    findings = _judge(record, tmp_path)

    assert _deciding(findings) == {"fleet-outlier gpu:GPU-gpu00005-3": "FAIL"}


def test_a_host_whose_gpus_are_all_slow_is_named_once(tmp_path: Path) -> None:
    record = FleetRecord()
    record.value = lambda host, gpu, metric, usual: usual * (0.8 if host == "gpu00005" else 1)

    findings = _judge(record, tmp_path)

    assert _deciding(findings) == {"fleet-outlier host:gpu00005": "FAIL"}


def test_a_fleet_in_which_a_third_is_slow_has_two_populations_and_no_outliers(tmp_path: Path) -> None:
    record = FleetRecord(hosts=12)
    record.value = lambda host, gpu, metric, usual: (
        usual * (0.8 if host <= "gpu00004" and metric == "tflops bf16" else 1)
    )

    findings = _judge(record, tmp_path)

    assert _deciding(findings) == {"fleet-outlier fleet:test/tflops bf16": "INCONCLUSIVE"}


def test_a_figure_that_the_others_have_and_one_lacks_or_has_as_nan_leaves_it_undecided(
    tmp_path: Path,
) -> None:
    record = FleetRecord()
    record.value = lambda host, gpu, metric, usual: (
        (None if host == "gpu00001" else float("nan") if host == "gpu00002" else usual)
        if gpu == 0 and metric == "hbm_gbps"
        else usual
    )

    findings = _judge(record, tmp_path)

    assert _deciding(findings) == {
        "fleet-outlier gpu:GPU-gpu00001-0": "INCONCLUSIVE",
        "fleet-outlier gpu:GPU-gpu00002-0": "INCONCLUSIVE",
    }


def test_a_slow_host_with_another_driver_is_undecided_until_it_has_that_of_the_others(tmp_path: Path) -> None:
    record = FleetRecord(versions=lambda host: {"driver": "550.1"} if host == "gpu00004" else {})
    record.value = lambda host, gpu, metric, usual: usual * (0.8 if host == "gpu00004" else 1)

    findings = _judge(record, tmp_path)

    assert _deciding(findings) == {"fleet-outlier host:gpu00004": "INCONCLUSIVE"}


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        ({("gpu00002", 5)}, {"fleet-digest gpu:GPU-gpu00002-5": "FAIL"}),
        ({("gpu00002", gpu) for gpu in range(8)}, {"fleet-digest host:gpu00002": "FAIL"}),
        (
            {(host, gpu) for host in ("gpu00002", "gpu00009") for gpu in range(8)},
            {"fleet-digest fleet:test": "INCONCLUSIVE"},
        ),
        (
            {(f"gpu{host:05d}", gpu) for host in range(1, 5) for gpu in range(8)},
            {"fleet-digest rack:r0": "INCONCLUSIVE"},
        ),
    ],
    ids=["one GPU", "one host", "two hosts of different racks", "a whole rack"],
)
def test_who_dissents_from_the_majority_is_named(
    tmp_path: Path, odd: set[tuple[str, int]], expected: dict[str, str]
) -> None:
    record = FleetRecord(
        digest=lambda host, gpu: "bb" if (host, gpu) in odd else "aa", rack_of=lambda index: f"r{index // 4}"
    )

    assert _deciding(_judge(record, tmp_path)) == expected


def test_a_gpu_of_a_host_of_two_dissents_where_its_host_is_divided_and_the_others_agree(
    tmp_path: Path,
) -> None:
    odd = ("gpu00001", 0)
    record = FleetRecord(hosts=3, gpus=2, digest=lambda host, gpu: "bb" if (host, gpu) == odd else "aa")

    found = [f for f in _judge(record, tmp_path) if f.rule == "fleet-digest" and f.outcome is Outcome.FAIL]

    assert [f.subject for f in found] == ["gpu:GPU-gpu00001-0"]


def test_a_tie_of_digests_is_undecided_and_names_both_sides(tmp_path: Path) -> None:
    record = FleetRecord(hosts=2, digest=lambda host, gpu: host)

    found = [f for f in _judge(record, tmp_path) if f.rule == "fleet-digest" and f.outcome is not None]

    assert found[0].outcome is Outcome.INCONCLUSIVE
    assert found[0].evidence["hosts"] == ["gpu00001", "gpu00002"]


def test_a_minority_of_versions_is_told_and_one_that_the_fleet_file_does_not_want_fails(
    tmp_path: Path,
) -> None:
    record = FleetRecord(versions=lambda host: {"kernel": "6.1"} if host == "gpu00002" else {})
    wanted = FleetRecord(versions=record.versions, expected={"kernel": "5.15.0-1042", "efi": "2"})

    told, judged = _judge(record, tmp_path / "a"), _judge(wanted, tmp_path / "b")

    assert verdict(told) is Outcome.PASS
    assert any("6.1 on gpu00002" in f.observed for f in told if f.outcome is None)
    assert _deciding(judged) == {
        "fleet-drift host:gpu00002": "FAIL",
        "fleet-drift hosts:16 with another efi": "INCONCLUSIVE",
    }


def test_versions_without_a_majority_are_called_a_tie(tmp_path: Path) -> None:
    record = FleetRecord(hosts=4, versions=lambda host: {"nccl": "2.2" if host <= "gpu00002" else "2.3"})

    assert any("nccl: a tie" in f.observed for f in _judge(record, tmp_path))


def test_what_befalls_most_of_a_rack_is_named_once_and_its_hosts_point_to_it(tmp_path: Path) -> None:
    bad = [f"gpu{index:05d}" for index in range(9, 15)]
    record = FleetRecord(
        hosts=80, gpus=1, outcome=dict.fromkeys(bad, "fail"), findings=[fails(host, "heat") for host in bad]
    )

    findings = _judge(record, tmp_path)

    assert [
        (f.rule, f.subject) for f in findings if "because" not in f.evidence and f.outcome is Outcome.FAIL
    ] == [("common-cause", "rack:r01")]
    assert sum(1 for f in findings if f.evidence.get("because", {}).get("subject") == "rack:r01") == 6


def test_a_rule_that_fails_on_more_than_a_tenth_of_the_hosts_is_a_common_cause(tmp_path: Path) -> None:
    bad = ["gpu00001", "gpu00009", "gpu00017"]
    record = FleetRecord(
        hosts=24, gpus=1, outcome=dict.fromkeys(bad, "fail"), findings=[fails(host, "ecc") for host in bad]
    )

    first = _judge(record, tmp_path)[0]

    assert (first.rule, first.subject, first.evidence["stops_acting"]) == ("common-cause", "rule:ecc", True)


def test_a_finding_that_another_one_of_the_host_explains_is_no_common_cause(tmp_path: Path) -> None:
    bad = ["gpu00001", "gpu00009", "gpu00017"]
    rows = [fails(host, rule) for host, rule in zip(bad, ("xid", "ecc", "heat"), strict=True)]
    rows += [fails(host, "speed") | {"is_explained": True} for host in bad]
    record = FleetRecord(hosts=24, gpus=1, outcome=dict.fromkeys(bad, "fail"), findings=rows)

    assert [f.subject for f in _judge(record, tmp_path) if f.rule == "common-cause"] == []


def test_a_record_that_was_cut_off_is_read_from_its_lines_and_never_passes(tmp_path: Path) -> None:
    run = FleetRecord(hosts=4, is_finished=False).write(tmp_path)
    sealed = run.path / "series" / "host.parquet"
    sealed.unlink()
    (run.path / "series" / "host.ndjson").write_text(
        '{"t_ns":1,"host":"gpu00001","state":"finished","outcome":"pass","run":"","detail":""}\n{"t_ns":2,"ho'
    )

    findings = rejudge(run, judge_fleet)

    assert verdict(findings) is Outcome.INCONCLUSIVE
    assert sum(1 for f in findings if "never reported" in f.observed) == 3


def test_a_fleet_as_large_as_the_benchmark_writes_it_is_judged_right_in_small(tmp_path: Path) -> None:
    run = load_run(write_fleet(tmp_path, hosts=1260, gpus=4))

    findings = judge_fleet(run)

    named = {f.subject for f in findings if f.rule == "fleet-outlier" and f.outcome is Outcome.FAIL}
    assert named == {f"gpu:GPU-{host}-3" for host in range(9, 1260, 125)}
    digests = [f.subject for f in findings if f.rule == "fleet-digest" and f.outcome is Outcome.FAIL]
    assert digests == ["host:gpu00011"]
    lost = [f for f in findings if f.rule == "host" and f.evidence.get("state") == "lost"]
    assert [f.subject for f in lost] == ["host:gpu00007", "host:gpu00507", "host:gpu01007"]


def test_a_slow_gpu_and_a_wrong_digest_are_planted_and_seen(tmp_path: Path) -> None:
    controls = [f for f in _judge(FleetRecord(), tmp_path) if f.rule == "control"]

    assert [(f.subject, f.outcome) for f in controls] == [
        ("detector:slow GPU of a fleet", Outcome.PASS),
        ("detector:wrong digest in a fleet", Outcome.PASS),
    ]


def test_a_rule_that_sees_nothing_is_not_proven(tmp_path: Path) -> None:
    run = FleetRecord().write(tmp_path)
    with FleetTables(run) as tables:
        judge_outliers(tables, fleet="test")
        parts = [f"gpu:GPU-{host}-{gpu}" for host in FleetRecord().names() for gpu in range(8)]
        every = [
            Finding(rule="fleet-outlier", subject=part, outcome=Outcome.FAIL, observed="", expected="")
            for part in parts
        ]

        controls = prove_fleet_rules(tables, every, fleet="test")

    assert controls[0].outcome is Outcome.INCONCLUSIVE

"""Exact products, first products and digests: what fails, what is missing, who is the suspect."""

from __future__ import annotations

from burnin.rules.arithmetic import judge_digests, judge_exact, judge_first_product
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome


def _exact(name: str = "fp32", wrong: int = 0) -> JsonObject:
    return {"format": name, "products": 10, "elements": 1000, "miscompared_elements": wrong}


MISCOMPARE: JsonObject = {
    "format": "fp32",
    "product": 3,
    "elements": 1,
    "addresses": [70],
    "patterns": ["0x00000100"],
    "row_length": 64,
}


def test_a_single_wrong_element_fails_the_device_with_place_and_bits() -> None:
    found = judge_exact("cpu:1", formats=["fp32"], results=[_exact(wrong=1)], miscompares=[MISCOMPARE])

    assert found.outcome is Outcome.FAIL
    assert found.subject == "device:cpu:1"
    assert found.observed == "1 wrong element, first in fp32 product 3, row 1, column 6, bits 0x00000100"
    assert found.next_step


def test_a_miscompare_counts_even_where_the_worker_died_before_it_could_sum_up() -> None:
    found = judge_exact("cpu:1", formats=["fp32"], results=[], miscompares=[MISCOMPARE])

    assert found.outcome is Outcome.FAIL


def test_a_format_without_a_result_leaves_the_device_undecided() -> None:
    found = judge_exact("cpu:1", formats=["fp32", "bf16"], results=[_exact()], miscompares=[])

    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.observed == "no result for bf16"


def test_no_format_at_all_is_undecided_and_never_a_pass() -> None:
    assert judge_exact("cpu:1", formats=[], results=[], miscompares=[]).outcome is Outcome.INCONCLUSIVE


def test_right_elements_in_every_format_pass() -> None:
    found = judge_exact("GPU-1", formats=["fp32"], results=[_exact()], miscompares=[])

    assert (found.outcome, found.subject) == (Outcome.PASS, "gpu:GPU-1")


def test_a_first_product_beyond_the_bound_fails_and_none_is_undecided() -> None:
    wrong = judge_first_product("cpu:0", [{"elements": 100, "outside": 2}])

    assert wrong.outcome is Outcome.FAIL
    assert judge_first_product("cpu:0", []).outcome is Outcome.INCONCLUSIVE
    assert judge_first_product("cpu:0", [{"elements": 100, "outside": 0}]).outcome is Outcome.PASS


def _digests(
    digests: dict[str, str | None],
    dissents: dict[str, int] | None = None,
    models: dict[str, str] | None = None,
) -> dict[str, Finding]:
    results = {
        device: None
        if digest is None
        else {"digest": digest, "digests": 9, "digest_every": 4, "dissents": (dissents or {}).get(device, 0)}
        for device, digest in digests.items()
    }
    found = judge_digests(
        results,
        {device: (dissents or {}).get(device, 0) for device in digests},
        {device: (models or {}).get(device, "H100") for device in digests},
    )
    return {finding.subject.removeprefix("device:"): finding for finding in found}


def test_a_lone_dissenter_among_siblings_is_the_suspect() -> None:
    found = _digests({"a": "01", "b": "01", "c": "ff"})

    assert {name: f.outcome for name, f in found.items()} == {
        "a": Outcome.PASS,
        "b": Outcome.PASS,
        "c": Outcome.FAIL,
    }


def test_two_that_disagree_are_both_undecided_and_each_names_the_other() -> None:
    found = _digests({"a": "01", "b": "ff"})

    assert {f.outcome for f in found.values()} == {Outcome.INCONCLUSIVE}
    assert "differs from that of b" in found["a"].observed
    assert "differs from that of a" in found["b"].observed


def test_one_that_differs_from_its_own_repeats_is_the_suspect_without_any_sibling() -> None:
    found = _digests({"a": "01"}, dissents={"a": 1})

    assert found["a"].outcome is Outcome.FAIL
    assert found["a"].observed == "1 of 9 digests differ from the first"


def test_devices_of_another_model_or_library_are_no_siblings() -> None:
    found = _digests({"a": "01", "b": "ff"}, models={"a": "H100", "b": "A100"})

    assert {f.outcome for f in found.values()} == {Outcome.PASS}
    assert "no sibling" in found["a"].observed


def test_a_device_without_a_digest_is_undecided() -> None:
    assert _digests({"a": None, "b": "01"})["a"].outcome is Outcome.INCONCLUSIVE

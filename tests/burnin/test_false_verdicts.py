"""False passes and false fails that other tools have shown in the field, each with the right verdict here.

The sensors are those of the twin, read by the real sampler; the verdict is that of all rules together.

Where each case was found, and the test that holds it; of this file where no other is named.

- gpu-burn: exit code 0 with faulty GPUs (sixteen_faulty), NaN passes (nan_is_a_wrong_element; whole run:
  test_burn.py), a GPU that did nothing (never_did_a_product), a child that died (worker_that_died),
  compared with itself alone (every_product_alike, corrupted_operand), load without power
  (does_not_draw_power)
- gpu-fryer: equality on a bit mask (beside_other_bits), numbers of NVML for numbers of CUDA
  (selection_of_gpus; whole run: test_burn_surroundings.py), a node that stalls whole (stand_still_together,
  stands_still_for_a_while), constant data (operands_are_no_constants), slow alike (a100_at_a_third)
- DCGM: an A100 at a third of its speed (a100_at_a_third), memory not allocated (could_not_be_allocated), a
  violation of 0.0 s (of_microseconds), a model on no list (on_no_list); its own severities and verdicts:
  test_vendor_tools.py; a corrupt InfoROM: test_sensors.py
- cluster-health-scanner: half of the iterations crash (half_of_the_collectives)
- Azure NHC: the wrong column of the remapped rows (its_own_column)
- AWS: a floor out of reach (no_shipped_floor)
- imbue: input of all ones (operands_are_no_constants, all_ones_would_hide), errors without a GPU's name:
  each test here names it
- wrappers of nccl-tests: a mean over all sizes (good_mean); NVLS that falls back to rings (four_gpus)
- NVSentinel: corrected errors under load only (only_under_load), calls that hang: test_sensors.py
- Primus: names of processes that a container hides: tests/burnin/node/test_company.py, by numbers

Not expressed here: a plugin of DCGM that fails after another for the memory that it left in use, the word
offsets of a Slurm script, `srun` without `--mpi`. They are faults of those tools' own code, which nothing
here resembles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from burnin.expectation import shipped_expectations
from burnin.judging import judge_run
from burnin.node.exact import compare, make_operands
from burnin.node.number_format import FORMATS
from burnin.node.operand import draw_on_host
from burnin.node.product import multiply
from probes.finding import Finding, verdict
from probes.json_types import JsonObject
from probes.outcome import Outcome
from tests.burnin.node_record import LOAD_S, Node
from tests.processes import start_job
from tests.twins.nvml import uuid

pytestmark = pytest.mark.needs("gcc")
FAIL, UNDECIDED, PASS = Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS


def _failed(findings: list[Finding]) -> dict[str, set[int | str]]:
    """Return each rule that failed with the numbers of the GPUs that it names."""
    names = {f"gpu:{uuid(index)}": index for index in range(8)}
    found: dict[str, set[int | str]] = {}
    for finding in findings:
        if finding.outcome is FAIL:
            found.setdefault(finding.rule, set()).add(
                names.get(finding.subject.split("/")[0], finding.subject)
            )
    return found


def _judge(node: Node, folder: Path) -> list[Finding]:
    return judge_run(node.write(folder))


def _miscompare(index: int) -> tuple[float, str, JsonObject]:
    place = {"format": "bf16", "product": 7, "elements": 1, "addresses": [5], "row_length": 2048}
    wrong = {"stage": "matmul", "device": uuid(index), "patterns": ["1 -> 0"], "period": None}
    return (10, "miscompare", place | wrong)


def test_sixteen_faulty_gpus_do_not_end_with_exit_code_0(tmp_path: Path) -> None:
    run = Node(events=[_miscompare(index) for index in range(8)]).write(tmp_path)

    assert start_job(["judge", str(run.path)], tmp_path).wait(timeout_s=60) == 1


def test_nan_is_a_wrong_element_and_not_a_difference_that_no_bound_exceeds() -> None:
    reference = torch.ones(64, 64, dtype=torch.float32)
    product = torch.ones(64, 64, dtype=torch.float32)
    product[3, 4] = float("nan")

    found = compare(product, reference)

    assert found is not None
    assert found.addresses == [3 * 64 + 4]


# Significant bits of each format.
MANTISSA_BITS = {"fp64": 53, "fp32": 24, "bf16": 8, "fp16": 11}


def _toggled_share(matrix: torch.Tensor) -> float:
    """Return the share of bits that differ between neighbours in a row: what makes wires switch."""
    words = matrix.contiguous().view(torch.uint8).view(matrix.shape[0], -1, matrix.element_size())
    changed = words[:, 1:] ^ words[:, :-1]
    bits = sum(((changed >> bit) & 1).float() for bit in range(8))
    assert isinstance(bits, torch.Tensor)
    return float(bits.mean() / 8)


def _distinct(matrix: torch.Tensor) -> int:
    return len(set(matrix.flatten().tolist()))


@pytest.mark.parametrize("name", ["fp64", "fp32", "bf16", "fp16"])
def test_operands_are_no_constants_neither_exact_nor_random_ones(name: str) -> None:
    exact = make_operands(
        FORMATS[name], edge=128, generator=torch.Generator().manual_seed(1), device=torch.device("cpu")
    )
    drawn = draw_on_host(FORMATS[name], edge=128, seed=1)

    assert _toggled_share(torch.ones(128, 128, dtype=drawn[0].dtype)) == 0
    for matrix in drawn:
        mantissas = [math.frexp(value)[0] for value in matrix.flatten().tolist()]
        assert any(Fraction(m).denominator == 2 ** MANTISSA_BITS[name] for m in mantissas)  # its last bit too
        assert _distinct(matrix) > 1000
        assert _toggled_share(matrix) > 0.2
    for matrix in (exact.a, exact.b):
        assert _distinct(matrix) >= 3
        assert _toggled_share(matrix) > 0.05


def test_a_fault_of_addresses_that_all_ones_would_hide_is_found() -> None:
    def swap_columns(matrix: torch.Tensor) -> torch.Tensor:
        """Read two columns of an operand from each other's place."""
        order = list(range(matrix.shape[1]))
        order[3], order[77] = order[77], order[3]
        return matrix[:, order].contiguous()

    ones = torch.ones(128, 128)
    own = make_operands(
        FORMATS["fp32"], edge=128, generator=torch.Generator().manual_seed(1), device=torch.device("cpu")
    )

    assert compare(multiply(swap_columns(ones), ones), multiply(ones, ones)) is None
    assert compare(multiply(swap_columns(own.a), own.b), own.reference) is not None


def test_a_gpu_that_never_did_a_product_is_not_ok(tmp_path: Path) -> None:
    def is_work(kind: str, data: JsonObject) -> bool:
        work = ("exact.result", "throughput.result", "reference.result", "loaded", "worker.done")
        return data.get("device") == uuid(2) and kind in (*work, "allreduce.result")

    idle = Node(without=is_work, tflops=lambda gpu, second: None if gpu == 2 else 700.0)

    findings = _judge(idle, tmp_path)

    assert verdict(findings) is UNDECIDED
    assert {f.subject for f in findings if f.outcome is UNDECIDED} == {f"gpu:{uuid(2)}"}


def test_a_worker_that_died_is_said_to_have_died_and_no_count_is_made_up_for_it(tmp_path: Path) -> None:
    died = (12, "worker.died", {"device": uuid(1), "exit_code": -9})

    def is_later(kind: str, data: JsonObject) -> bool:
        return data.get("device") == uuid(1) and kind in (
            "throughput.result",
            "worker.done",
            "allreduce.result",
        )

    findings = _judge(Node(events=[died], without=is_later), tmp_path)

    told = next(f for f in findings if f.rule == "worker" and f.subject == f"gpu:{uuid(1)}")
    assert told.outcome is UNDECIDED
    assert "signal 9" in told.observed
    assert _failed(findings) == {}


def test_a_fault_that_is_in_every_product_alike_is_seen_by_comparing_with_the_siblings(
    tmp_path: Path,
) -> None:
    findings = _judge(Node(digest=lambda gpu: "bb" if gpu == 6 else "aa"), tmp_path)

    assert _failed(findings) == {"digest": {6}}


def test_a_corrupted_operand_is_seen_although_all_products_agree_with_each_other(tmp_path: Path) -> None:
    wrong = {"stage": "matmul", "device": uuid(4), "format": "bf16", "elements": 1 << 26, "outside": 8192}

    def is_own(kind: str, data: JsonObject) -> bool:
        return kind == "reference.result" and data["device"] == uuid(4) and not data["outside"]

    findings = _judge(Node(events=[(5, "reference.result", wrong)], without=is_own), tmp_path)

    assert _failed(findings)["first-product"] == {4}


def test_a_load_that_does_not_draw_power_proves_nothing(tmp_path: Path) -> None:
    findings = _judge(Node(faults=("power_mw 350000",)), tmp_path)

    assert verdict(findings) is UNDECIDED
    assert {f.rule for f in findings if f.outcome is UNDECIDED} == {"power-reached"}


@pytest.mark.parametrize("reasons", [0x24, 0x48])
def test_heat_is_seen_beside_other_bits_of_the_mask(tmp_path: Path, reasons: int) -> None:
    findings = _judge(Node(faults=(f"reasons.3 {reasons}",)), tmp_path)

    assert _failed(findings) == {"throttle": {3}}


def test_with_a_selection_of_gpus_the_sensors_of_those_gpus_are_judged_by_uuid(tmp_path: Path) -> None:
    node = Node(tested=(4, 5), gpu_row=lambda gpu, second: {"power_w": 300.0} if gpu == 0 else {})

    findings = _judge(node, tmp_path)

    assert {f.subject for f in findings if f.rule == "power-reached"} == {f"gpu:{uuid(4)}", f"gpu:{uuid(5)}"}
    assert _failed(_judge(Node(tested=(4, 5), faults=("reasons.5 64",)), tmp_path)) == {"throttle": {5}}


def test_a_node_on_which_all_gpus_stand_still_together_fails(tmp_path: Path) -> None:
    findings = _judge(Node(tflops=lambda gpu, second: 0.0), tmp_path)

    assert _failed(findings)["tflops"] == set(range(8))


def test_a_gpu_that_stands_still_for_a_while_with_all_others_is_stalled(tmp_path: Path) -> None:
    stalled: list[tuple[float, str, JsonObject]] = [
        (15, "worker.stalled", {"device": uuid(i), "stage": "matmul", "stall_s": 10.0, "is_waiting": False})
        for i in range(8)
    ]

    assert _failed(_judge(Node(events=stalled), tmp_path))["worker"] == set(range(8))


def test_an_a100_at_a_third_of_its_speed_fails_also_alone(tmp_path: Path) -> None:
    findings = _judge(Node(model="A100", gpus=1, tflops=lambda gpu, second: 90.0), tmp_path)

    assert _failed(findings) == {"tflops": {0}}


def test_memory_that_could_not_be_allocated_was_not_tested(tmp_path: Path) -> None:
    share = {"device": uuid(0), "free_bytes": 80 * 10**9, "covered_bytes": 0}
    done = {"device": uuid(0), "stage": "memory"}
    node = Node(gpus=1, stages={"memory": 5.0}, events=[(6, "memory.share", share), (7, "worker.done", done)])

    findings = _judge(node, tmp_path)

    assert [f.outcome for f in findings if f.rule == "memory"] == [UNDECIDED]


def test_a_thermal_violation_of_microseconds_does_not_fail_a_gpu(tmp_path: Path) -> None:
    findings = _judge(Node(faults=("thermal_ns 0 0 20000",)), tmp_path)

    assert _failed(findings) == {}
    assert {f.outcome for f in findings if f.rule == "throttle"} == {PASS}


def test_a_model_that_is_on_no_list_is_tested_all_the_same_and_said_to_be_unknown(tmp_path: Path) -> None:
    findings = _judge(Node(faults=("name NVIDIA_L40S",), events=[_miscompare(5)]), tmp_path)

    assert _failed(findings)["exact"] == {5}
    assert {f.outcome for f in findings if f.rule == "expectation"} == {None}


def test_half_of_the_collectives_failing_is_not_a_pass(tmp_path: Path) -> None:
    failed = [
        (LOAD_S + 6.5, "collective.failed", {"stage": "allreduce", "device": uuid(i), "error": "NCCL error"})
        for i in range(4)
    ]

    def is_lost(kind: str, data: JsonObject) -> bool:
        return kind == "allreduce.result" and data["device"] in {uuid(i) for i in range(4)}

    assert verdict(_judge(Node(events=failed, without=is_lost), tmp_path)) is not PASS


def test_a_row_that_could_not_be_remapped_is_read_from_its_own_column(tmp_path: Path) -> None:
    assert _failed(_judge(Node(faults=("remap_failure.2 1",)), tmp_path)) == {"row-remap": {2}}


def test_no_shipped_floor_of_an_all_reduce_lies_beyond_what_the_links_carry() -> None:
    for spec in shipped_expectations():
        links, each = spec.nvlinks, spec.nvlink_gbps_per_link
        for floor in spec.allreduce_busbw_gbps:
            assert links is not None
            assert each is not None
            # Where the switch reduces, bus bandwidth can exceed the line rate, by less than a tenth.
            assert floor.min < 1.1 * links.value * each.value


def test_a_good_mean_over_all_sizes_does_not_hide_a_slow_large_message(tmp_path: Path) -> None:
    def result(size: int, busbw: float) -> list[tuple[float, str, JsonObject]]:
        shape = {"stage": "allreduce", "backend": "nccl", "ranks": 8, "size_bytes": size, "rounds": 9}
        checked = {"elements": size, "miscompared_rounds": 0, "miscompared_elements": 0, "busbw_gbps": busbw}
        return [(27.0, "allreduce.result", {"device": uuid(i)} | shape | checked) for i in range(8)]

    is_shipped: Callable[[str, JsonObject], bool] = lambda kind, data: data.get("rounds") == 50  # noqa: E731
    slow = Node(events=[*result(1 << 28, 600.0), *result(1 << 34, 300.0)], without=is_shipped)

    assert _failed(_judge(slow, tmp_path)) == {"allreduce-bandwidth": set(range(8))}


def test_four_gpus_that_fall_back_to_rings_are_not_held_to_the_floor_of_eight(tmp_path: Path) -> None:
    findings = _judge(Node(gpus=4, busbw_gbps=330.0), tmp_path)

    assert {f.outcome for f in findings if f.rule == "allreduce-bandwidth"} == {None}
    assert _failed(findings) == {}


def test_corrected_errors_that_come_only_under_load_fail_the_gpu(tmp_path: Path) -> None:
    assert _failed(_judge(Node(faults=("ecc_corrected.1 0 0 4600",)), tmp_path)) == {"ecc": {1}}


def test_an_xid_that_only_the_kernel_log_has_fails_the_gpu(tmp_path: Path) -> None:
    xid = (14, "kernel.xid", {"gpu": uuid(7), "xid": 79, "text": "GPU has fallen off the bus."})

    assert _failed(_judge(Node(events=[xid]), tmp_path)) == {"xid": {7}}


def test_healthy_gpus_that_differ_by_as_much_as_silicon_does_all_pass(tmp_path: Path) -> None:
    findings = _judge(Node(tflops=lambda gpu, second: 700.0 * (1 - 0.01 * gpu)), tmp_path)

    assert verdict(findings) is PASS

"""What the training step says: wrong losses, losses not repeated, slow ranks, a stage that broke off."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import pytest

from burnin.fleet.training_rules import ALONE, COMMAND, FIRST, SECOND, judge_training
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

HOSTS = ("a", "b", "c", "d")
STEPS = 4


def _setup(*, is_deterministic: bool = True, device: str = "cuda", model: str = "H200") -> JsonObject:
    return {"model": model, "torch": "2.8", "device": device, "is_deterministic": is_deterministic}


def _row(host: str, phase: str, step: int, loss: float, *, step_s: float = 0.1) -> JsonObject:
    bits = struct.pack(">f", loss).hex()
    return {
        "host": host,
        "rank": HOSTS.index(host),
        "phase": phase,
        "step": step,
        "step_s": step_s,
        "tflops": 400.0,
        "loss": loss,
        "loss_bits": bits,
    }


def _rows(
    changed: Mapping[tuple[str, str, int], float] | None = None, slow: Mapping[str, float] | None = None
) -> list[JsonObject]:
    rows = []
    for host in HOSTS:
        for phase in (ALONE, FIRST, SECOND):
            for step in range(STEPS):
                own = 0.0 if phase == ALONE else HOSTS.index(host) * 0.01
                loss = (changed or {}).get((host, phase, step), 5.0 - step * 0.1 + own)
                rows.append(_row(host, phase, step, loss, step_s=0.1 * (slow or {}).get(host, 1.0)))
    return rows


def _judge(
    rows: Sequence[JsonObject], *, setups: Mapping[str, JsonObject] | None = None, **stage: object
) -> dict[tuple[str, str], Finding]:
    told = {"hosts": HOSTS, "state": "done", "seconds": 9.0, "blamed": [], "detail": ""} | stage
    told["setups"] = setups if setups is not None else {host: _setup() for host in HOSTS}
    return {(f.rule, f.subject): f for f in judge_training(told, rows, fleet="f")}


def _outcomes(found: Mapping[tuple[str, str], Finding], rule: str) -> dict[str, Outcome | None]:
    return {subject: f.outcome for (name, subject), f in found.items() if name == rule}


def test_a_fleet_that_computes_alike_and_repeats_itself_passes() -> None:
    found = _judge(_rows())

    assert {f.outcome for f in found.values()} == {Outcome.PASS}
    assert "4 losses repeated bit for bit; alone the same as the most of 4 ranks" in (
        found["training-loss", "host:a"].observed
    )


def test_a_host_whose_loss_alone_differs_in_one_bit_is_outvoted() -> None:
    found = _judge(_rows({("c", ALONE, 2): 4.8000005}))

    assert _outcomes(found, "training-loss") == {
        "host:a": Outcome.PASS,
        "host:b": Outcome.PASS,
        "host:c": Outcome.FAIL,
        "host:d": Outcome.PASS,
    }
    assert "unlike most of 4 ranks" in found["training-loss", "host:c"].observed
    assert "burn in this host by itself" in found["training-loss", "host:c"].next_step


def test_a_second_run_that_differs_in_one_bit_fails_where_everything_is_deterministic() -> None:
    changed = {("b", SECOND, 3): 4.7100005}

    exact = _judge(_rows(changed))
    tolerant = _judge(_rows(changed), setups=dict.fromkeys(HOSTS, _setup(is_deterministic=False)))

    assert _outcomes(exact, "training-loss")["host:b"] is Outcome.FAIL
    assert _outcomes(tolerant, "training-loss")["host:b"] is Outcome.PASS
    assert "within 0.001" in tolerant["training-loss", "host:b"].observed


def test_two_ranks_that_differ_accuse_nobody_and_pass_nobody() -> None:
    setups = {"a": _setup(), "b": _setup(), "c": _setup(model="B200"), "d": _setup(model="B200")}

    found = _judge(_rows({("c", ALONE, 1): 1.0}), setups=setups)

    assert _outcomes(found, "training-loss") == {
        "host:a": Outcome.PASS,
        "host:b": Outcome.PASS,
        "host:c": Outcome.INCONCLUSIVE,
        "host:d": Outcome.INCONCLUSIVE,
    }


def test_a_rank_without_its_like_has_nothing_to_be_compared_with() -> None:
    setups = {host: _setup(model="A100" if host == "d" else "H200") for host in HOSTS}

    assert _outcomes(_judge(_rows(), setups=setups), "training-loss")["host:d"] is Outcome.INCONCLUSIVE


def test_a_loss_that_is_no_number_fails() -> None:
    found = _judge(_rows({("a", FIRST, 1): float("nan"), ("a", SECOND, 1): float("nan")}))

    assert found["training-loss", "host:a"].outcome is Outcome.FAIL


def test_losses_that_the_record_holds_as_text_are_judged_alike() -> None:
    rows = [row | {"loss": str(row["loss"])} for row in _rows({("c", ALONE, 2): 4.8, ("b", SECOND, 3): 4.72})]

    outcomes = _outcomes(_judge(rows), "training-loss")

    assert (outcomes["host:a"], outcomes["host:b"]) == (Outcome.PASS, Outcome.FAIL)


def test_a_slow_rank_shows_alone_and_is_only_shown_on_a_cpu() -> None:
    rows = _rows(slow={"d": 1.3})

    on_gpus = _judge(rows)
    on_cpus = _judge(rows, setups=dict.fromkeys(HOSTS, _setup(device="cpu")))

    assert _outcomes(on_gpus, "training-pace")["host:d"] is Outcome.FAIL
    assert _outcomes(on_gpus, "training-pace")["host:a"] is Outcome.PASS
    assert _outcomes(on_cpus, "training-pace")["host:d"] is None
    assert "1.30 times the median of 4" in on_cpus["training-pace", "host:d"].observed


@pytest.mark.parametrize("state", ["hung", "lost", "failed", "not run"])
def test_a_stage_that_broke_off_accuses_whom_it_names_and_never_passes(state: str) -> None:
    half = [row for row in _rows() if row["phase"] != SECOND]

    named = _judge(half, state=state, blamed=["b"], detail="silent")
    unnamed = _judge(half, state=state)

    assert _outcomes(named, "training-end") == {"host:b": Outcome.FAIL}
    assert _outcomes(unnamed, "training-end") == {"fleet:f": Outcome.INCONCLUSIVE}
    assert set(_outcomes(unnamed, "training-loss").values()) == {Outcome.INCONCLUSIVE}


def test_a_host_that_told_nothing_is_undecided() -> None:
    rows = [row for row in _rows() if row["host"] != "c"]
    setups = {host: _setup() for host in HOSTS if host != "c"}

    found = _judge(rows, setups=setups)

    assert found["training-loss", "host:c"].outcome is Outcome.INCONCLUSIVE
    assert found["training-pace", "host:c"].outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("losses", "outcome"),
    [([2.0, 1.0], Outcome.PASS), ([2.0, float("inf")], Outcome.FAIL), ([None], Outcome.INCONCLUSIVE)],
)
def test_the_users_own_command_is_judged_by_what_it_prints(
    losses: list[float | None], outcome: Outcome
) -> None:
    rows = [
        {"host": "a", "phase": COMMAND, "step": step, "loss": loss, "step_s": 0.5}
        for step, loss in enumerate(losses)
    ]

    assert _judge(rows)["training-loss", "fleet:f"].outcome is outcome


def test_a_command_that_printed_no_step_is_undecided() -> None:
    assert Outcome.INCONCLUSIVE in {f.outcome for f in _judge([]).values()}

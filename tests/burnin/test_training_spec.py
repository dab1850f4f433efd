"""What a plan file says about the training step, and what is refused in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from burnin.burn import BurnRequest, load_plan, run_burnin
from burnin.fleet.training import TrainingPlan
from burnin.node.user_command import UserCommand
from probes.errors import ConfigError


def _request(file: Path, text: str) -> BurnRequest:
    file.write_text(text)
    asked = {"profile": None, "device": None, "duration_s": None}
    return BurnRequest(plan_file=file, out=file.parent / "runs", seed=1, is_quiet=True, **asked)


def test_a_command_of_the_users_own_goes_to_the_hosts_as_it_stands(tmp_path: Path) -> None:
    text = "training: {command: [python3, train.py, '--lr=1e-3'], step_regex: 'it (\\d+)'}\n"

    plan = load_plan(_request(tmp_path / "plan.yaml", text))

    assert plan.training is not None
    read = TrainingPlan.from_json(plan.training.to_json())
    assert read == TrainingPlan(command=("python3", "train.py", "--lr=1e-3"), step_regex=r"it (\d+)")
    assert TrainingPlan.from_json(read.to_order()) == read


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step_regex: 'step'", "put what is to be read into a group"),
        ("loss_regex: '('", "no regular expression"),
        ("sharding: zero", "sharding"),
        ("command: ['']", "command"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"plan.yaml:2: training") as refused:
        load_plan(_request(tmp_path / "plan.yaml", f"training:\n  {text}\n"))

    assert message in str(refused.value)


def test_one_machine_alone_does_not_train(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="training takes the hosts of a fleet"):
        run_burnin(_request(tmp_path / "plan.yaml", "training: {steps: 4}\n"))

    assert not (tmp_path / "runs").exists()


def test_a_step_is_timed_from_the_line_before_and_a_loss_may_be_no_number() -> None:
    plan = TrainingPlan(command=("x",))
    command = UserCommand(plan.step_regex, plan.loss_regex)

    first = command.read("step 4 | loss: 2.5e-1 | 31 ms")
    other = command.read("saving a checkpoint")
    second = command.read("step=6 loss=nan")

    assert first == {"phase": "command", "step": 4, "loss": 0.25}
    assert other is None
    assert second is not None
    assert second["step"] == 6
    assert second["loss"] != second["loss"]
    assert second["step_s"] >= 0

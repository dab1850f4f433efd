"""Probes of a training job over its own log, whatever that looks like, and over NVML."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from probes.errors import ConfigError, TargetError
from probes.training import ettr_at_least, input_is_fed, job_progresses, lost_steps_at_most, resumed_within
from probes.training_log import JobReader, job_log_of
from probes.training_step import Step
from tests.probes.training_rows import STEP_NS, rows_of
from tests.twins.nvml import Scenario, build_twin

SECOND = 1_000_000_000


@contextmanager
def _job_that_writes(line: Callable[[int], str], path: Path, *, every_s: float = 0.02) -> Iterator[None]:
    """Have a job write a line a step to its log, from now on."""
    leaving = threading.Event()

    def write() -> None:
        step = 1
        while not leaving.wait(every_s):
            with path.open("a") as log:
                log.write(line(step) + "\n")
            step += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        leaving.set()
        thread.join()


def _ended_job(folder: Path, rows: list[Step]) -> str:
    """Write rows in the layout of the lab, so that the last of them was just now."""
    shift_ns = time.time_ns() - max(row.t_ns for row in rows)
    (folder / "progress").mkdir()
    for rank in {row.rank for row in rows}:
        lines = [
            json.dumps({"t_ns": row.t_ns + shift_ns, "rank": rank, "world": row.world, "step": row.step}
                       | {"restart": row.restart, "compute_s": row.compute_s, "data_wait_s": row.data_wait_s})
            for row in rows if row.rank == rank
        ]  # fmt: skip
        (folder / "progress" / f"rank-{rank}.ndjson").write_text("\n".join(lines) + "\n")
    return str(folder)


def _broken_job(folder: Path) -> str:
    rows = rows_of(1, 45, start_ns=0)
    return _ended_job(folder, rows + rows_of(41, 200, start_ns=10 * SECOND, restart=1))


def test_json_lines_are_read_by_the_names_that_their_log_has(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(
        '{"ts": 1763700000.5, "train": {"iteration": 7, "data_ms": 12.5}, "loss": "3.1"}\n'
        "not a row\n{}\n"
        '{"ts": 1763700001500, "train": {"iteration": 8}}\n'
        '{"ts": "2025-11-21T04:40:02.500+00:00", "train": {"iteration": 9}}\n'
        '{"ts": 1763700003, "train": {"itera'
    )
    keys = {"step": "train.iteration", "time": "ts", "data_wait_ms": "train.data_ms"}

    steps = JobReader(job_log_of({"log": str(log), "keys": keys})).read()

    assert steps == [
        Step(t_ns=1763700000500000000, step=7, loss=3.1, data_wait_s=0.0125),
        Step(t_ns=1763700001500000000, step=8),
        Step(t_ns=1763700002500000000, step=9),
    ]


def test_text_lines_are_read_by_a_pattern_and_a_local_time_is_ours(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    at = datetime.datetime.fromisoformat("2026-11-21 15:00:00.250")  # no time zone, as most logs have it
    log.write_text(f"starting\n{at:%Y-%m-%d %H:%M:%S},250 INFO step 12/100 | loss 2.5 | data 0.040s\n")
    pattern = r"^(?P<time>\S+ \S+) .*step (?P<step>\d+)/.*loss (?P<loss>\S+) .*data (?P<data_wait_s>[\d.]+)s"

    steps = JobReader(job_log_of({"log": str(log), "pattern": pattern})).read()

    assert steps == [Step(t_ns=round(at.timestamp() * 1e9), step=12, loss=2.5, data_wait_s=0.04)]


def test_a_log_that_is_begun_anew_is_read_from_its_start(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("".join(f'{{"time": {1763700000 + i}, "step": {i}}}\n' for i in range(20)))
    reader = JobReader(job_log_of(str(log)))
    reader.read()
    log.write_text('{"time": 1763700100, "step": 3}\n')

    assert [step.step for step in reader.read()] == [3]


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"log": "x", "keys": {"stepp": "s"}}, "stepp: known are step, time"),
        ({"log": "x", "pattern": "("}, "is no regular expression"),
        ({"log": "x", "pattern": "step"}, "has no group"),
        ({"lock": "x"}, "log"),
    ],
)
def test_a_log_that_is_described_wrongly_is_refused_with_what_would_be_right(
    job: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        job_progresses(job)


def test_a_log_that_is_not_there_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="is not there"):
        job_progresses(str(tmp_path / "none"))


def test_a_job_that_steps_progresses_and_one_that_fell_silent_does_not(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.touch()
    job = {"log": str(log), "pattern": r"step (?P<step>\d+)"}

    with _job_that_writes(lambda step: f"step {step}", log):
        running = job_progresses(job, window_s=1)
    rows = rows_of(1, 40, start_ns=time.time_ns() - 8 * SECOND, world=1)
    log.write_text("".join(json.dumps({"time": row.t_ns, "step": row.step}) + "\n" for row in rows))
    silent = job_progresses(str(log))
    log.write_text("")
    unknown = job_progresses(str(log))

    assert (running["outcome"], silent["outcome"]) == ("pass", "fail")
    assert running["new_steps"] >= 10
    assert "no step for 6.0 s, 120 times a typical one" in silent["observed"]
    assert unknown["outcome"] == "inconclusive"


def test_lost_steps_and_effective_time_are_those_of_the_log(tmp_path: Path) -> None:
    job = _broken_job(tmp_path)

    lost, more = lost_steps_at_most(5, job), lost_steps_at_most(4, job)
    ettr, too_much = ettr_at_least(0.3, job), ettr_at_least(0.7, job)

    assert (lost["outcome"], lost["lost"], lost["restarts"]) == ("pass", 5, 1)
    assert more["outcome"] == "fail"
    assert ettr["outcome"] == "pass"
    assert 0.4 < ettr["ettr"] <= round(200 * 0.05 / 17.95, 4)  # time goes on while it is asked
    assert too_much["outcome"] == "fail"


def test_a_job_that_says_nothing_in_the_window_loses_nothing_that_anybody_knows_of(tmp_path: Path) -> None:
    job = _broken_job(tmp_path)
    time.sleep(0.3)

    assert lost_steps_at_most(5, job, window_s=0.1)["outcome"] == "inconclusive"
    assert ettr_at_least(0.5, job, window_s=0.1)["outcome"] == "fail"


def test_resuming_is_a_step_beyond_what_was_done_not_one_that_is_done_again(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    rows = rows_of(1, 45, start_ns=time.time_ns() - 60 * STEP_NS, world=1)
    log.write_text("".join(json.dumps({"time": row.t_ns, "step": row.step}) + "\n" for row in rows))

    def again(step: int) -> str:
        return json.dumps({"time": time.time_ns(), "step": 20 + step})

    with _job_that_writes(again, log):
        soon = resumed_within(0.3, str(log))
        later = resumed_within(5, str(log))

    assert (soon["outcome"], later["outcome"]) == ("fail", "pass")


def test_a_starved_job_is_named_by_its_log_and_one_that_does_not_say_is_left_open(tmp_path: Path) -> None:
    starved, silent = tmp_path / "starved.jsonl", tmp_path / "silent.jsonl"

    def waits(step: int) -> str:
        return json.dumps({"time": time.time_ns(), "step": step, "compute_s": 0.01, "data_wait_s": 0.03})

    with _job_that_writes(waits, starved), _job_that_writes(lambda s: f'{{"step": {s}}}', silent):
        time.sleep(0.1)
        named = input_is_fed(str(starved), window_s=1)
        left_open = input_is_fed(str(silent), window_s=1)

    assert named["outcome"] == "fail"
    assert named["observed"].startswith("starving input: waits for data 75% of its step time")
    assert named["data_wait_share"] == pytest.approx(0.75)
    assert left_open["outcome"] == "inconclusive"


ASK = """
import json, sys
from probes.training import input_is_fed
print(json.dumps([input_is_fed(job, window_s=2.6, gpus=[0]) for job in sys.argv[1:]]))
"""


@pytest.mark.needs("gcc")
def test_low_utilisation_of_a_gpu_names_no_cause_unless_the_log_does(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path / "scenario")
    scenario.set(gpus=1, util=41)
    unsaid, said = tmp_path / "unsaid.jsonl", tmp_path / "said.jsonl"

    def fed(step: int) -> str:
        return json.dumps({"time": time.time_ns(), "step": step, "compute_s": 0.04, "data_wait_s": 0.0001})

    def plain(step: int) -> str:
        return json.dumps({"time": time.time_ns(), "step": step})

    with _job_that_writes(plain, unsaid), _job_that_writes(fed, said):
        time.sleep(0.1)
        ran = subprocess.run(
            [sys.executable, "-P", "-c", ASK, unsaid, said],
            env=os.environ | scenario.environment(build_twin(tmp_path)),
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    idle, idle_and_fed = json.loads(ran.stdout)

    assert idle["outcome"] == "inconclusive"
    assert "low utilisation 41%, and the cause is not known" in idle["observed"]
    assert idle_and_fed["outcome"] == "pass"
    assert "utilisation 41%, for another cause" in idle_and_fed["observed"]

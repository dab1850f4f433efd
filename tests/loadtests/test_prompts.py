"""Prompts: the same seed and index give the same bytes, and sizes follow their distribution."""

from __future__ import annotations

import json
import random
import statistics

import pytest

from loadtests.prompts import draw_size, make_body, make_prompt
from loadtests.workload import Size, WorkloadSpec

WORKLOAD = WorkloadSpec.model_validate(
    {
        "name": "test",
        "arrivals": {"kind": "constant", "rate_per_s": 1},
        "duration_s": 1,
        "prompt": {
            "input_tokens": {"kind": "lognormal", "mean": 100, "stddev": 50, "min": 4},
            "output_tokens": {"kind": "normal", "mean": 20, "stddev": 5},
        },
        "endpoint": {"body": {"top_k": 3}},
    }
).to_workload()


def test_the_same_seed_and_index_give_the_same_bytes_and_no_two_prompts_share_a_beginning() -> None:
    prompts = [make_prompt(WORKLOAD, seed=5, index=index) for index in range(50)]

    assert prompts == [make_prompt(WORKLOAD, seed=5, index=index) for index in range(50)]
    assert len({prompt.text.split(maxsplit=1)[0] for prompt in prompts}) == 50
    assert make_prompt(WORKLOAD, seed=6, index=0) != prompts[0]


def test_the_body_asks_for_what_the_prompt_says_and_takes_the_workloads_own_fields() -> None:
    prompt = make_prompt(WORKLOAD, seed=5, index=0)

    body = json.loads(make_body(WORKLOAD, prompt, model="m"))

    assert body["messages"] == [{"role": "user", "content": prompt.text}]
    assert (body["model"], body["max_tokens"], body["top_k"]) == ("m", prompt.output_tokens, 3)
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


@pytest.mark.parametrize("kind", ["normal", "lognormal"])
def test_drawn_sizes_have_the_mean_and_deviation_of_the_tokens_themselves(kind: str) -> None:
    chance = random.Random(1)
    size = Size(kind=kind, mean=400, stddev=100, least=1, most=10_000)

    drawn = [draw_size(size, chance) for _ in range(5000)]

    assert statistics.mean(drawn) == pytest.approx(400, rel=0.02)
    assert statistics.stdev(drawn) == pytest.approx(100, rel=0.08)


def test_sizes_stay_between_their_limits() -> None:
    chance = random.Random(1)
    size = Size(kind="normal", mean=10, stddev=50, least=8, most=12)

    assert {draw_size(size, chance) for _ in range(200)} == {8, 9, 10, 11, 12}

"""Prompts: the same seed and index give the same bytes, and sizes follow their distribution."""

from __future__ import annotations

import hashlib
import json
import random
import statistics
from pathlib import Path

import pytest

from loadtests.spec.prompt import PromptSpec
from loadtests.traffic.prompts import Prompt, Prompts, Size, WordScale, draw_size, make_body
from loadtests.traffic.trace import TraceRow
from probes.errors import ConfigError

SIZES = {
    "input_tokens": {"kind": "lognormal", "mean": 100, "stddev": 50, "min": 4},
    "output_tokens": {"kind": "normal", "mean": 20, "stddev": 5},
}


def prompts(*, seed: int = 5, scale: WordScale | None = None, **keys: object) -> Prompts:
    return Prompts([PromptSpec.model_validate({**SIZES, **keys}).to_class()], seed=seed, scale=scale)


def text(prompt: Prompt) -> str:
    return " ".join(message["content"] for message in prompt.messages)


def body(prompt: Prompt, **extra: object) -> bytes:
    return make_body(prompt, api="chat", model="m", is_streamed=True, extra=extra)


def test_the_same_seed_and_index_give_the_same_bytes_and_no_two_prompts_share_a_beginning() -> None:
    made = [prompts().prompt(index) for index in range(50)]
    backwards = [prompts().prompt(index) for index in reversed(range(50))]

    assert made == backwards[::-1]
    assert len({text(prompt).split(maxsplit=1)[0] for prompt in made}) == 50
    assert prompts(seed=6).prompt(0) != made[0]


def test_the_completions_api_gets_all_that_was_said_as_one_text_and_refuses_what_is_none() -> None:
    asked = Prompt(messages=({"role": "user", "content": "and then?"},), output_tokens=3)
    picture = Prompt(messages=({"role": "user", "content": [{"type": "image_url"}]},), output_tokens=3)
    said = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]

    made = make_body(asked, api="completions", model="m", is_streamed=False, extra={}, history=said)
    assert json.loads(made) == {
        "model": "m",
        "prompt": "one\n\ntwo\n\nand then?",
        "max_tokens": 3,
        "temperature": 0,
        "stream": False,
    }
    with pytest.raises(ConfigError, match="takes texts"):
        make_body(picture, api="completions", model="m", is_streamed=False, extra={})


def test_the_bytes_of_a_seed_are_those_of_every_version() -> None:
    made = prompts(shared_prefix={"share": 0.5, "tokens": 30, "count": 2})
    row = TraceRow(at_s=0, input_tokens=700, output_tokens=9, blocks=(4, 8))
    bodies = [body(made.prompt(index)) for index in range(20)] + [body(made.prompt(20, row=row))]

    assert hashlib.sha256(b"".join(bodies)).hexdigest()[:16] == "77381b6654918eac"


def test_the_body_asks_for_what_the_prompt_says_and_takes_the_workloads_own_fields() -> None:
    prompt = prompts().prompt(0)

    made = json.loads(body(prompt, top_k=3))

    assert made["messages"] == list(prompt.messages)
    assert (made["model"], made["max_tokens"], made["top_k"]) == ("m", prompt.output_tokens, 3)
    assert (made["stream"], made["stream_options"]) == (True, {"include_usage": True})


def test_a_share_of_the_prompts_begins_with_one_of_the_shared_prefixes_and_differs_after_it() -> None:
    source = prompts(shared_prefix={"share": 0.7, "tokens": 200, "count": 3})
    made = [source.prompt(index).messages for index in range(400)]
    prefixes = [messages[0]["content"] for messages in made if len(messages) == 2]

    assert len(prefixes) / 400 == pytest.approx(0.7, abs=0.08)
    assert len(set(prefixes)) == 3
    assert {len(prefix.split()) for prefix in prefixes} == {202}
    assert len({messages[-1]["content"][:12] for messages in made}) == 400


def test_prompts_that_may_be_cached_have_no_nonce() -> None:
    assert text(prompts(defeat_prefix_cache=False).prompt(3)).startswith("Go on")


def test_sizes_observed_together_are_drawn_together_and_as_often_as_their_weight() -> None:
    pairs = [
        {"input_tokens": 40, "output_tokens": 1, "weight": 3},
        {"input_tokens": 90, "output_tokens": 2},
    ]
    made = [prompts(pairs=pairs).prompt(index) for index in range(400)]
    sizes = [(len(text(prompt).split()), prompt.output_tokens) for prompt in made]

    assert {(words > 60, tokens) for words, tokens in sizes} == {(False, 1), (True, 2)}
    assert sum(tokens == 1 for _, tokens in sizes) / 400 == pytest.approx(0.75, abs=0.07)


def beginning(one: str, other: str) -> str:
    length = next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    return one[:length]


def test_blocks_of_a_trace_become_equal_text_where_they_are_equal_and_in_place() -> None:
    def replayed(index: int, *blocks: int) -> str:
        row = TraceRow(at_s=0, input_tokens=1400, output_tokens=5, blocks=blocks)
        return text(prompts().prompt(index, row=row))

    one, two, other = replayed(0, 1, 2, 3), replayed(1, 1, 2, 9), replayed(2, 7, 2, 3)
    same = beginning(one, two)

    assert len(same.split()) == pytest.approx(1024, abs=2)
    assert beginning(one, other) == "b"
    assert len(one.split()) == pytest.approx(1400 - 17, abs=3)


def test_prompt_files_are_cycled_or_sampled_and_sent_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    lines = [{"prompt": "eins"}, {"messages": [{"role": "user", "content": "zwei"}], "output_tokens": 3}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    cycled, sampled = prompts(file=str(path)), prompts(file=str(path), order="sampled")

    assert [text(cycled.prompt(index)) for index in (0, 1, 2, 3)] == ["eins", "zwei", "eins", "zwei"]
    assert cycled.prompt(1).output_tokens == 3
    assert {text(sampled.prompt(index)) for index in range(30)} == {"eins", "zwei"}
    assert [sampled.prompt(k) for k in range(9)] == [sampled.prompt(k) for k in range(9)]
    cycled.close()
    sampled.close()


@pytest.mark.parametrize(
    ("key", "lines", "said"),
    [
        ("file", '{"prompt": "a"}\n{"promt": "b"}\n', "f.jsonl:2: 'prompt' is missing"),
        ("file", '{"prompt": "a"}\n{', "f.jsonl:2:"),
        ("file", "\n", "holds no prompt"),
        ("pairs_file", '{"input_tokens": 1, "output_tokens": 0}\n', "f.jsonl:1: token counts are"),
        ("pairs_file", "", "is empty"),
    ],
)
def test_a_bad_line_of_a_file_is_named(tmp_path: Path, key: str, lines: str, said: str) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(lines)

    with pytest.raises(ConfigError, match=said):
        prompts(**{key: str(path)})


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

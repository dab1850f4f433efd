"""The batching model: what a step costs, who gets a token, who waits."""

from __future__ import annotations

import pytest

from loadtests.endpoint.batching import Batch, BatchLimits, Sequence

LIMITS = BatchLimits(
    slots=2, queue_max=1, prefill_tokens_per_s=1000, prefill_chunk_tokens=100, decode_step_s=0.01
)


def sequence(input_tokens: int = 0, output_tokens: int = 3, stride: int = 1) -> Sequence:
    return Sequence(input_tokens=input_tokens, output_tokens=output_tokens, stride=stride)


def run_steps(batch: Batch, steps: int) -> list[list[Sequence]]:
    produced = []
    for _ in range(steps):
        batch.begin_step()
        produced.append(batch.end_step())
    return produced


def test_an_idle_batch_has_no_step() -> None:
    assert Batch(LIMITS).begin_step() is None


def test_a_sequence_produces_one_token_a_step_and_then_leaves() -> None:
    batch, one = Batch(LIMITS), sequence(output_tokens=3)
    batch.submit(one)

    assert run_steps(batch, 3) == [[one], [one], [one]]
    assert one.is_finished
    assert batch.begin_step() is None


def test_a_step_takes_the_decode_time_and_the_prompt_tokens_it_takes_in() -> None:
    batch = Batch(LIMITS)
    batch.submit(sequence(input_tokens=50))

    assert batch.begin_step() == pytest.approx(0.01 + 50 / 1000)
    batch.end_step()
    assert batch.begin_step() == pytest.approx(0.01)


def test_a_long_prompt_is_taken_in_by_chunks_and_delays_the_others_next_token() -> None:
    batch, short, long = Batch(LIMITS), sequence(), sequence(input_tokens=250)
    batch.submit(short)
    batch.submit(long)

    durations, produced = [], []
    for _ in range(3):
        durations.append(batch.begin_step())
        produced.append(batch.end_step())
    assert durations == [pytest.approx(0.11), pytest.approx(0.11), pytest.approx(0.06)]
    assert produced == [[short], [short], [short, long]]


def test_sequences_beyond_the_slots_wait_and_beyond_the_queue_are_turned_away() -> None:
    batch = Batch(LIMITS)
    first, second, third = sequence(output_tokens=1), sequence(output_tokens=2), sequence(output_tokens=1)
    batch.submit(first)
    batch.submit(second)
    batch.begin_step()

    assert batch.submit(third)
    assert not batch.submit(sequence())
    assert batch.end_step() == [first, second]
    assert run_steps(batch, 1) == [[second, third]]


def test_a_cancelled_sequence_frees_its_slot_whether_it_runs_or_waits() -> None:
    batch = Batch(LIMITS)
    first, second, waiting = sequence(), sequence(), sequence()
    for item in (first, second):
        batch.submit(item)
    batch.begin_step()
    batch.submit(waiting)

    batch.cancel(first)
    batch.cancel(waiting)

    assert batch.end_step() == [second]
    assert (batch.running, list(batch.queue)) == ([second], [])


def test_a_slow_sequence_produces_only_every_fifth_step() -> None:
    batch, slow = Batch(LIMITS), sequence(output_tokens=2, stride=5)
    batch.submit(slow)

    assert [len(made) for made in run_steps(batch, 10)] == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1]

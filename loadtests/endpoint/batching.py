"""Continuous batching, as inference servers do it: prefill, decode steps, slots and a queue.

A model without clock or socket: the endpoint asks how long the next step takes, waits that long, and asks
who produced a token. One step does at most one chunk of prefill beside one token of every running sequence,
so a long prompt delays everybody's next token, as it does on a real server.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """What the simulated accelerator can do."""

    slots: int = 8  # sequences that decode together
    queue_max: int = 256  # sequences that may wait for a slot; one more is turned away
    prefill_tokens_per_s: float = 8000.0
    prefill_chunk_tokens: int = 512  # most prompt tokens that one step takes in
    decode_step_s: float = 0.02


@dataclass(slots=True, eq=False)
class Sequence:
    """One answer being generated."""

    input_tokens: int
    output_tokens: int
    stride: int = 1  # produces a token only in every ``stride``-th step; above 1 it is a slow one
    prefilled: int = 0
    produced: int = 0
    steps: int = field(default=0, repr=False)

    @property
    def is_finished(self) -> bool:
        """Whether the last token has been produced."""
        return self.produced >= self.output_tokens


class Batch:
    """The sequences that run and those that wait. Same calls, same results: there is no chance in it."""

    def __init__(self, limits: BatchLimits) -> None:
        self.limits = limits
        self.queue: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def submit(self, sequence: Sequence) -> bool:
        """Queue a sequence; False: the queue is full and it was turned away."""
        if len(self.running) >= self.limits.slots and len(self.queue) >= self.limits.queue_max:
            return False
        self.queue.append(sequence)
        return True

    def cancel(self, sequence: Sequence) -> None:
        """Forget a sequence whose client has gone; its slot is free at the next step."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.queue:
            self.queue.remove(sequence)

    def begin_step(self) -> float | None:
        """Fill free slots, take in prompts, return how long this step takes; None: nothing to do."""
        while self.queue and len(self.running) < self.limits.slots:
            self.running.append(self.queue.popleft())
        if not self.running:
            return None
        return self.limits.decode_step_s + self._prefill() / self.limits.prefill_tokens_per_s

    def _prefill(self) -> int:
        budget = self.limits.prefill_chunk_tokens
        for sequence in self.running:
            taken = min(budget, sequence.input_tokens - sequence.prefilled)
            sequence.prefilled += taken
            budget -= taken
        return self.limits.prefill_chunk_tokens - budget

    def end_step(self) -> list[Sequence]:
        """Return the sequences that produced a token in this step; finished ones leave their slots."""
        produced = []
        for sequence in self.running:
            if sequence.prefilled < sequence.input_tokens:
                continue
            sequence.steps += 1
            if sequence.steps % sequence.stride == 0:
                sequence.produced += 1
                produced.append(sequence)
        self.running = [sequence for sequence in self.running if not sequence.is_finished]
        return produced

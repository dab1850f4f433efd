"""The simulated inference service: one batch, one step timer, and the streams it writes to."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from loadtests.endpoint.answers import Ask, Reply, StreamText, completion_document, make_reply
from loadtests.endpoint.batching import Batch, BatchLimits, Sequence
from loadtests.endpoint.misbehaviour import SLOW_STRIDE, Misbehaviour, choose
from probes.event import to_json_line
from probes.json_types import JsonObject

# Of a stream that is cut, closed, reset or left hanging, this share of the tokens still comes.
_SPOILED_AFTER_SHARE = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """What one endpoint process is and how it behaves."""

    name: str
    seed: int
    limits: BatchLimits
    model: str = "simulated"
    step_work_s: float = 0.0  # of its processor that each step takes, as where a server prepares batches
    start_delay_s: float = 0.0  # time that the model takes to load, counted from the start of the process
    faults: tuple[Misbehaviour, ...] = ()
    sends_file: Path | None = None  # None: the true send times are not written down


class Listener(Protocol):
    """The connection that an answer goes to."""

    def send_head(self, *, content_type: str) -> None:
        """Begin a streamed answer."""

    def send_part(self, data: bytes) -> None:
        """Send some of it."""

    def send_end(self) -> None:
        """End it as HTTP wants it."""

    def send_document(self, document: JsonObject) -> None:
        """Send a whole JSON answer."""

    def drop(self, *, with_reset: bool) -> None:
        """Close the connection, or reset it, in the middle."""


@dataclass(slots=True, eq=False)
class Answer:
    """One request that is being answered."""

    ask: Ask
    listener: Listener
    sequence: Sequence
    reply: Reply
    text: StreamText
    number: int
    request_id: str
    fault: str | None
    sends_ns: list[int] = field(default_factory=list)

    @property
    def spoils_at(self) -> int | None:
        """After how many tokens this answer goes wrong; None: it does not."""
        if self.fault in ("cut", "close", "reset", "hang"):
            return max(1, int(self.reply.count * _SPOILED_AFTER_SHARE))
        return None


class Service:
    """Takes requests into the batch and, at the end of each step, writes a token to every stream."""

    def __init__(self, settings: ServiceSettings, loop: asyncio.AbstractEventLoop) -> None:
        self.settings = settings
        self._loop = loop
        self._batch = Batch(settings.limits)
        self._answers: dict[Sequence, Answer] = {}
        self._awaiting: list[Callable[[], None]] = []  # who is to be told of the next token
        self._step_ends_at: float | None = None  # loop time; None: the batch is idle
        self._numbers = 0
        self._loaded_at = loop.time() + settings.start_delay_s
        self._sends = _open_sends(settings.sends_file)

    @property
    def is_loaded(self) -> bool:
        """Whether the model has been loaded."""
        return self._loop.time() >= self._loaded_at

    def next_fault(self) -> tuple[int, str | None]:
        """Return the number of the request that just came and the fault that hits it."""
        number, self._numbers = self._numbers, self._numbers + 1
        return number, choose(self.settings.faults, seed=self.settings.seed, number=number, load=self.load)

    @property
    def load(self) -> float:
        """Return how many slots would be taken with one request more, as a share; above 1 some wait."""
        return (len(self._batch.running) + len(self._batch.queue) + 1) / self.settings.limits.slots

    def submit(
        self, ask: Ask, listener: Listener, *, number: int, fault: str | None, request_id: str
    ) -> Answer | None:
        """Queue a request; None: the queue is full."""
        stride = SLOW_STRIDE if fault == "slow" else 1
        reply = make_reply(ask, fault=fault)
        sequence = Sequence(input_tokens=ask.input_tokens, output_tokens=reply.count, stride=stride)
        if not self._batch.submit(sequence):
            return None
        answer = Answer(
            ask=ask,
            listener=listener,
            sequence=sequence,
            reply=reply,
            text=StreamText(ask, answer_id=f"chatcmpl-{number}", created=int(time.time())),
            number=number,
            request_id=request_id,
            fault=fault,
        )
        self._answers[sequence] = answer
        if ask.is_streamed:
            listener.send_head(content_type="text/event-stream; charset=utf-8")
        if self._step_ends_at is None:
            self._begin_step(self._loop.time())
        return answer

    def cancel(self, answer: Answer) -> None:
        """Forget an answer whose client has gone."""
        if self._answers.pop(answer.sequence, None) is not None:
            self._batch.cancel(answer.sequence)

    def await_token(self, told: Callable[[], None]) -> None:
        """Call ``told`` with the next token of whichever answer; an idle batch is given one to produce.

        So a full queue, which is no illness, never looks like one.
        """
        self._awaiting.append(told)
        if self._step_ends_at is None:
            self._batch.submit(Sequence(input_tokens=1, output_tokens=1))
            self._begin_step(self._loop.time())

    def _begin_step(self, started_at: float) -> None:
        duration_s = self._batch.begin_step()
        if duration_s is None:
            self._step_ends_at = None
            return
        # From the planned end of the step before, so that a late timer does not slow the model down.
        self._step_ends_at = started_at + duration_s
        self._loop.call_at(self._step_ends_at, self._end_step)
        self._work()

    def _work(self) -> None:
        """Keep the processor busy for its share of a step; whoever gets too little of it takes longer."""
        until = time.thread_time() + self.settings.step_work_s if self.settings.step_work_s else 0.0
        while time.thread_time() < until:
            pass

    def _end_step(self) -> None:
        assert self._step_ends_at is not None
        ended_at = self._step_ends_at
        produced = self._batch.end_step()
        for sequence in produced:
            if (answer := self._answers.get(sequence)) is not None:  # None: it was for a probe alone
                self._produce(answer)
        if produced:
            awaiting, self._awaiting = self._awaiting, []
            for told in awaiting:
                told()
        is_far_behind = self._loop.time() - ended_at > self.settings.limits.decode_step_s
        self._begin_step(self._loop.time() if is_far_behind else ended_at)

    def _produce(self, answer: Answer) -> None:
        produced = answer.sequence.produced
        spoils_at = answer.spoils_at
        if spoils_at is not None and produced > spoils_at:
            return  # it hangs: the slot is held, nothing is sent
        if answer.ask.is_streamed:
            self._send_token(answer, produced)
        if spoils_at == produced:
            self._spoil(answer)
        elif answer.sequence.is_finished:
            self._finish(answer)

    def _send_token(self, answer: Answer, produced: int) -> None:
        data = answer.text.token(answer.reply.token(produced - 1))
        if produced == 1:
            data = answer.text.role() + data
        if self._sends is not None:
            answer.sends_ns.append(time.time_ns())
        answer.listener.send_part(data)

    def _spoil(self, answer: Answer) -> None:
        if answer.fault == "hang":
            return
        self._close(answer)
        if answer.fault == "cut" and answer.ask.is_streamed:
            answer.listener.send_end()
        else:
            answer.listener.drop(with_reset=answer.fault == "reset")

    def _finish(self, answer: Answer) -> None:
        self._close(answer)
        if answer.fault == "hang":
            return
        count = answer.sequence.produced
        if answer.ask.is_streamed:
            answer.listener.send_part(
                b"".join(answer.text.ending(count, finish_reason=answer.reply.finish_reason))
            )
            answer.listener.send_end()
        else:
            answer.listener.send_document(
                completion_document(
                    answer.ask,
                    answer.reply,
                    answer_id=f"chatcmpl-{answer.number}",
                    created=int(time.time()),
                )
            )

    def _close(self, answer: Answer) -> None:
        self.cancel(answer)
        if self._sends is not None:
            line = to_json_line({"request_id": answer.request_id, "sends_ns": answer.sends_ns})
            os.write(self._sends, line.encode())


def _open_sends(path: Path | None) -> int | None:
    return None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)

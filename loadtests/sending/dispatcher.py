"""Walks one absolute schedule in an open loop: what is due is sent, however slow the answers are.

Requests are prepared ahead in a greenlet and sent by the hub itself, at the alarm for their time or between
two reads: no task switch and no turn full of reads stands between a request and its time.

An arrival that finds ``in_flight_max`` requests under way is dropped, and its row says so: it is neither
delayed in silence nor left out.
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import json
import math
import random
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import gevent
import gevent.event

from loadtests.plan import ENDPOINT_BACK, ENDPOINT_LOST, Destination, LoadPlan
from loadtests.reading.alarm import Alarm
from loadtests.reading.connections import Connections, Target
from loadtests.reading.poll_clock import PollClock, nothing
from loadtests.reading.reader import Errand, Exchange
from loadtests.reading.tls import make_context
from loadtests.sending.fail_over import FailOver
from loadtests.sending.guards import Guards, Stop
from loadtests.sending.prober import ask_until
from loadtests.sending.routes import Routes
from loadtests.sending.sessions import Chain
from loadtests.sending.spending import Tokens
from loadtests.sending.task_requests import TEXT_CHARS_MAX, choices_of, task_body, task_prompt
from loadtests.spec.workload import HangUpSpec, read_headers
from loadtests.traffic.arrivals import schedule, share_of
from loadtests.traffic.prompts import Prompt, Prompts, make_body
from probes.errors import TargetError
from probes.json_types import JsonObject
from probes.request import Request

_DEADLINE_CHECK_S = 0.1
_DEADLINE_CHECKS_PER_S = 4000  # of requests; with more under way, each is looked at less often
_DISPATCHES_PER_TURN = 8  # of late arrivals, before the hub gets to read answers again
_PREPARED_PER_TURN = 4  # the same, of requests prepared ahead
_READY_MAX, _READY_BYTES_MAX = 256, 16 * 1024 * 1024  # prepared ahead
_LOOKS_PER_TURN = 100  # at requests under way, for their deadlines; the same
_LOOK_AGAIN_S = 0.05  # at the schedule's end, while something late is still to be sent


@dataclass(slots=True)
class Counts:
    """What one worker has done so far."""

    arrivals: int = 0
    dropped: int = 0
    ended: int = 0
    failed: int = 0
    events: int = 0
    lateness_ms_max: float = 0.0  # since the figures were last taken
    lag_ms_max: float = 0.0  # the same


class Dispatcher:
    """Sends one worker's share of the schedule; ``on_row`` gets every finished request, in the hub."""

    def __init__(
        self,
        plan: LoadPlan,
        target: Target,
        on_row: Callable[[Request], None],
        *,
        worker: int,
        workers: int,
        others: Sequence[Target] = (),
        on_endpoint: Callable[[str, int, JsonObject], None] = lambda *_: None,
    ) -> None:
        """``others`` are the endpoints after the first; ``on_endpoint`` hears when one is lost or back."""
        self.counts = Counts()
        self.polls = PollClock()
        self._plan = plan
        self._workload = plan.workload
        self._on_row = on_row
        self._worker, self._workers = worker, workers
        self._connections = [Connections(one, self.polls) for one in (target, *others)]
        self._places = {one.name: place for place, one in enumerate((target, *others))}
        self._under_way = [0] * len(self._connections)  # at each
        self._on_endpoint = on_endpoint
        self._probers: list[gevent.Greenlet] = []
        self._in_flight: set[Exchange] = set()
        self._woken = gevent.event.Event()  # something is due that was not before, or the run is to finish
        self._is_finishing = False
        self._routes = Routes(self._workload, seed=plan.seed)
        fail_over = self._workload.fail_over
        self._fail_over = None if fail_over is None else FailOver(fail_over, endpoints=len(self._connections))
        self._repeats = self._workload.guards.repeats_share > 0
        self._destinations = plan.destinations
        self._prompts = Prompts(self._workload.prompts, seed=plan.seed, scale=plan.words)
        self._share = share_of(
            schedule(self._workload.arrivals, duration_s=self._workload.duration_s, seed=plan.seed),
            worker=worker,
            workers=workers,
        )
        self.guards = Guards(
            self._workload.guards,
            slos=self._workload.slos,
            choices=choices_of(self._workload.endpoint),
            workers=workers,
            seed=plan.seed,
            spent=Tokens(sent=plan.tokens_sent, received=plan.tokens_received),
        )
        self.stop: Stop | None = None  # the guard that has ended the load
        self._guarded_until_s: float | None = None  # None: no end but the schedule's
        self._ready: deque[Errand] = deque()  # prepared, in order
        self._bytes_ready = 0
        self._chains: dict[int, Chain] = {}  # by the index of their request that is wanted or under way
        self._ended: deque[tuple[Chain, int]] = deque()  # whose next request is due at that time
        self._follow_ups: list[tuple[int, int, Errand]] = []  # a heap: due, index, request
        self._t0_ns, self._t0_s = 0, 0.0
        self._drained = gevent.event.Event()
        self._alarm: Alarm | None = None  # None: no walk is going on
        self._fault: Exception | None = None

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return len(self._in_flight)

    @property
    def is_finishing(self) -> bool:
        """Whether no more arrivals are sent."""
        return self._is_finishing

    def finish(self) -> None:
        """Send no more; what is under way goes on to its end."""
        self._is_finishing = True
        self._woken.set()

    def walk(self, *, t0_ns: int) -> None:
        """Send every arrival of the share at its time, counted from ``t0_ns`` of the wall clock."""
        self._t0_ns = t0_ns
        self._t0_s = time.monotonic() + (t0_ns - time.time_ns()) / 1e9
        seconds = self._workload.guards.seconds_max
        if seconds is not None:
            self._guarded_until_s = self._t0_s + seconds
        watch = gevent.spawn(self._watch_deadlines)
        self._alarm = Alarm(self.polls, self._send_due, self._stop_with)
        self.polls.between = self._send_between
        try:
            with _few_collections():
                self._prepare_all()
        finally:
            self.polls.between = nothing
            self.polls.due_s = math.inf
            self._alarm.close()
            self._alarm = None
            watch.kill()
            gevent.killall(self._probers)
        if self._fault is not None:
            raise self._fault

    def _prepare_all(self) -> None:
        """Prepare what is sent later, in a greenlet of its own, until nothing more can become due."""
        end_s = self._t0_s + self._workload.duration_s
        count = 0
        while not self.is_finishing:
            self._take_follow_ups()
            is_new = self._prepare_one()
            self._send_due()
            if is_new:
                count += 1
                if count % _PREPARED_PER_TURN == 0:
                    gevent.sleep(0)
                continue
            left_s = end_s - time.monotonic()
            if left_s <= 0 and not self._ready and not self._follow_ups:
                return
            self._woken.wait(max(left_s, _LOOK_AGAIN_S))
            self._woken.clear()

    def _send_due(self) -> None:
        """Send what is due, and have us woken when the next is."""
        sent = 0
        while self._alarm is not None and not self.is_finishing:
            errand = self._next()
            if errand is None:
                self.polls.due_s = math.inf
                return
            now_s = time.monotonic()
            due_s = self._t0_s + (errand.t_intended_ns - self._t0_ns) / 1e9
            self.polls.due_s = due_s
            if due_s > now_s or sent == _DISPATCHES_PER_TURN:
                self._alarm.set(due_s)
                return
            self._take_next()
            self._dispatch(errand, late_ms=(now_s - due_s) * 1000)
            sent += 1

    def _send_between(self) -> None:
        """Send what is due between two reads."""
        if time.monotonic() >= self.polls.due_s:
            try:
                self._send_due()
            except Exception as error:
                self._stop_with(error)

    def _stop_with(self, error: Exception) -> None:
        """End the walk with a fault of our own, which must not escape into the hub."""
        self._fault = self._fault or error
        self.finish()

    def _next(self) -> Errand | None:
        """Return what is due next of what is prepared; None: nothing is."""
        if self._follow_ups and (not self._ready or self._follow_ups[0][0] < self._ready[0].t_intended_ns):
            return self._follow_ups[0][2]
        return self._ready[0] if self._ready else None

    def _take_next(self) -> None:
        """Take away what ``_next`` returned."""
        if self._follow_ups and self._next() is self._follow_ups[0][2]:
            heapq.heappop(self._follow_ups)
        else:
            self._bytes_ready -= len(self._ready.popleft().body)
        if len(self._ready) < _READY_MAX // 2 and not self._woken.is_set():
            self._woken.set()

    def _prepare_one(self) -> bool:
        """Prepare one more arrival; return False where enough is ready, or none is left."""
        if len(self._ready) >= _READY_MAX or (self._ready and self._bytes_ready > _READY_BYTES_MAX):
            return False
        following = next(self._share, None)
        if following is None:
            return False
        number, arrival = following
        index = number
        if self._workload.is_chained:
            chain = Chain(self._workload, number, seed=self._plan.seed)
            self._chains[chain.index] = chain
            index = chain.index
        task = self._task_at(index)
        prompt = self._prompts.prompt(index, row=arrival.row) if task is None else self._task_prompt(task)
        errand = self._errand(index, self._t0_ns + round(arrival.at_s * 1e9), prompt)
        self._ready.append(errand)
        self._bytes_ready += len(errand.body)
        return True

    def _task_at(self, index: int) -> int | None:
        tasks = self._workload.tasks
        return None if tasks is None else tasks.number_at(index, seed=self._plan.seed)

    def _task_prompt(self, number: int) -> Prompt:
        return task_prompt(self._plan, number)

    def _errand(self, index: int, t_intended_ns: int, prompt: Prompt) -> Errand:
        if self._task_at(index) is not None:
            return self._task_errand(index, t_intended_ns, prompt)
        chain = self._chains.get(index)
        endpoint, hang_up = self._workload.endpoint, self._hang_up(index)
        planned = self._destinations[self._routes.planned(index)]
        body = make_body(
            prompt,
            api=endpoint.api,
            model=planned.model,
            is_streamed=endpoint.stream,
            extra=endpoint.extra_body,
            history=() if chain is None else chain.history,
        )
        if chain is not None and self._workload.session is not None:
            chain.history.extend(prompt.messages)
        return Errand(
            index=index,
            worker=self._worker,
            t_intended_ns=t_intended_ns,
            body=body,
            output_tokens=prompt.output_tokens,
            request_id=f"{self._plan.run.name}-{index}",
            keeps_text=self._workload.session is not None
            or self.guards.watches(index, output_tokens=prompt.output_tokens),
            hang_up_after_events=None if hang_up is None else hang_up.after_events,
            session=None if chain is None else chain.number,
            turn=None if chain is None else chain.turn,
            endpoint=planned.endpoint.name,
        )

    def _task_errand(self, index: int, t_intended_ns: int, prompt: Prompt) -> Errand:
        """Return the request of a checked task: nobody hangs up on it, and its text is kept."""
        chain = self._chains.get(index)
        planned = self._destinations[self._routes.planned(index)]
        return Errand(
            index=index,
            worker=self._worker,
            t_intended_ns=t_intended_ns,
            body=task_body(self._plan, prompt, model=planned.model),
            output_tokens=prompt.output_tokens,
            request_id=f"{self._plan.run.name}-{index}",
            keeps_text=True,
            session=None if chain is None else chain.number,
            turn=None if chain is None else chain.turn,
            endpoint=planned.endpoint.name,
        )

    def _hang_up(self, index: int) -> HangUpSpec | None:
        """Return how this request's client leaves; None: it stays to the end."""
        kind = self._workload.hang_ups
        if kind is None or self._task_at(index) is not None:
            return None
        if random.Random(f"hang-up:{self._plan.seed}:{index}").random() >= kind.share:
            return None
        return kind

    def _take_follow_ups(self) -> None:
        """Prepare what has become due since answers ended, and put it in order."""
        while self._ended:
            chain, due_ns = self._ended.popleft()
            if due_ns >= self._t0_ns + round(self._workload.duration_s * 1e9):
                continue
            self._chains[chain.index] = chain
            number = self._task_at(chain.index)
            if number is None:
                prompt = self._prompts.prompt(chain.index, is_follow_up=chain.is_follow_up)
            else:
                prompt = self._task_prompt(number)
            heapq.heappush(self._follow_ups, (due_ns, chain.index, self._errand(chain.index, due_ns, prompt)))

    def _dispatch(self, errand: Errand, *, late_ms: float) -> None:
        place = self._place_for(errand)
        is_dropped = self._under_way[place] >= self._workload.in_flight_max
        if not is_dropped and not self._may_send(errand):
            return
        self.counts.arrivals += 1
        self.counts.lateness_ms_max = max(self.counts.lateness_ms_max, late_ms)
        if is_dropped:
            self.counts.dropped += 1
            self._finish_row(
                _dropped(errand, self._connections[place].target, self._workload.in_flight_max), ""
            )
            return
        exchange = Exchange(self._fitted(errand, place), self._connections[place], self._on_end)
        self._in_flight.add(exchange)
        self._under_way[place] += 1
        hang_up = self._hang_up(errand.index)
        if hang_up is not None and hang_up.patience_s is not None:
            patience = f"after {hang_up.patience_s:g} s of patience"
            gevent.spawn_later(hang_up.patience_s, exchange.hang_up, patience)
        exchange.begin()

    def _place_for(self, errand: Errand) -> int:
        """Return the endpoint that a request goes to now: the planned one, or by fail-over another."""
        planned = self._places[errand.endpoint]
        if self._fail_over is None or planned not in self._fail_over.lost:
            return planned
        if not self._fail_over.is_anybody_there:
            return planned
        return self._routes.instead(errand.index, self._fail_over.lost)

    def _fitted(self, errand: Errand, place: int) -> Errand:
        """Return a request with the model's name as the endpoint knows it."""
        model = self._destinations[place].model
        if model == self._destinations[self._places[errand.endpoint]].model:
            return errand
        return replace(errand, body=json.dumps(json.loads(errand.body) | {"model": model}).encode())

    def _note_endpoint(self, row: Request) -> None:
        """See whether the endpoint of a request that has ended is lost; if so, have it asked from now on."""
        assert self._fail_over is not None
        place = self._places[row.endpoint_name]
        failed = self._fail_over.note(place, row)
        if failed:
            self._probers.append(gevent.spawn(self._bring_back, place, time.time_ns(), failed))

    def _bring_back(self, place: int, lost_ns: int, failed: Sequence[Request]) -> None:
        """Tell that an endpoint is lost, ask until it answers, and tell that."""
        assert self._fail_over is not None
        fail_over, name = self._fail_over, self._destinations[place].endpoint.name
        kinds = [row.error for row in failed]
        self._on_endpoint(ENDPOINT_LOST, lost_ns, {"endpoint": name, "failed_in_a_row": kinds})
        try:
            probes = ask_until(
                lambda row: fail_over.note_probe(place, row, now_ns=time.time_ns()),
                self._plan,
                place,
                self._connections[place],
                worker=self._worker,
                spending=self.guards.spending,
            )
        except Exception as error:
            self._stop_with(error)
            return
        back_ns = time.time_ns()
        self._on_endpoint(ENDPOINT_BACK, back_ns, {"endpoint": name, "probes": probes})

    def _may_send(self, errand: Errand) -> bool:
        if self.stop is None:
            self._stop(
                self.guards.admit(
                    errand.index, body_bytes=len(errand.body), output_tokens=errand.output_tokens
                )
            )
        return self.stop is None

    def _stop(self, stop: Stop | None) -> None:
        """Send no more where a guard wants it; the first one stands in the record."""
        if stop is not None and self.stop is None:
            self.stop = stop
            self.finish()

    def _on_end(self, exchange: Exchange) -> None:
        self._in_flight.discard(exchange)
        row = exchange.row
        assert row is not None
        self._under_way[self._places[row.endpoint_name]] -= 1
        if self._fail_over is not None:
            self._note_endpoint(row)
        self._finish_row(row, exchange.text)
        if not self._in_flight:
            self._drained.set()

    def _finish_row(self, row: Request, text: str) -> None:
        """Note a row, and what follows from it."""
        number = self._task_at(row.index)
        if number is not None:
            row = replace(row, task=number, text=text[:TEXT_CHARS_MAX])
        chain = self._chains.pop(row.index, None)
        if chain is not None:
            chain.history.append({"role": "assistant", "content": text})
            due_ns = chain.due_after_ns(row)
            if due_ns is not None:
                self._ended.append((chain, due_ns))
                self._woken.set()
        self._note(row)

    def _note(self, row: Request) -> None:
        counts = self.counts
        counts.ended += 1
        counts.failed += row.error is not None and not row.is_hung_up
        counts.events += row.events
        counts.lag_ms_max = max(counts.lag_ms_max, row.lag_ms_max)
        self._stop(self.guards.take(row))
        self._on_row(row)

    def drain(self, *, timeout_s: float) -> None:
        """Wait for what is under way; what is left after the time is ended as ``abandoned``."""
        if self._guarded_until_s is not None:
            timeout_s = min(timeout_s, max(0.0, self._guarded_until_s - time.monotonic()))
        watch = gevent.spawn(self._watch_deadlines)
        self._drained.clear()
        if self._in_flight:
            self._drained.wait(timeout_s)
        watch.kill()
        self.abandon("was still under way when the run ended")

    def abandon(self, reason: str) -> None:
        """End everything under way now."""
        gevent.killall(self._probers)
        for exchange in list(self._in_flight):
            exchange.fail("abandoned", reason)
        for connections in self._connections:
            connections.close()

    def _watch_deadlines(self) -> None:
        while True:
            gevent.sleep(max(_DEADLINE_CHECK_S, len(self._in_flight) / _DEADLINE_CHECKS_PER_S))
            now_s = time.monotonic()
            for number, exchange in enumerate(list(self._in_flight), 1):
                exchange.check_deadlines(now_s)
                self._look_at(exchange)
                if number % _LOOKS_PER_TURN == 0:
                    gevent.sleep(0)
            if self._guarded_until_s is not None and now_s >= self._guarded_until_s:
                self._stop(Stop(guard="seconds", detail=f"{self._workload.guards.seconds_max:g} s are over"))

    def _look_at(self, exchange: Exchange) -> None:
        """End an answer that goes on beyond its limit, or in circles."""
        errand = exchange.errand
        fault = self.guards.look(
            exchange, output_tokens=errand.output_tokens, is_watched=errand.keeps_text and self._repeats
        )
        if fault is not None:
            exchange.fail(*fault)


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    """Leave what has lived for a while out of garbage collection: that stops the schedule for milliseconds.

    Nothing that a request leaves behind is part of a cycle; what others make is collected while it is young.
    """
    before = gc.get_threshold()
    gc.set_threshold(2000, 10, 5000)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _dropped(errand: Errand, target: Target, in_flight_max: int) -> Request:
    return Request(
        index=errand.index,
        worker=errand.worker,
        endpoint=target.url,
        endpoint_name=target.name,
        endpoint_planned=errand.endpoint,
        t_intended_ns=errand.t_intended_ns,
        t_sent_ns=None,
        t_first_ns=None,
        t_last_ns=None,
        t_end_ns=None,
        connect_ms=None,
        status=None,
        error="dropped",
        error_detail=f"{in_flight_max} requests were under way already",
        session=errand.session,
        turn=errand.turn,
    )


def make_targets(plan: LoadPlan) -> list[Target]:
    """Return each endpoint of the workload; their secrets are read here.

    Raises:
        ConfigError: a secret is not there.
        TargetError: a name cannot be resolved.
    """
    return [make_target(plan, headers=read_headers(one.endpoint.spec), to=one) for one in plan.destinations]


def make_target(plan: LoadPlan, *, headers: Mapping[str, str], to: Destination | None = None) -> Target:
    """Resolve the endpoint's address once and put together what every request shares.

    Raises:
        TargetError: the name cannot be resolved.
    """
    url = plan.url if to is None else to.url
    parts = urlsplit(url)
    assert parts.hostname is not None
    endpoint = plan.workload.endpoint if to is None else to.endpoint.spec
    is_tls = parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    try:
        family, _, _, _, address = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise TargetError(f"{url}: the host name cannot be resolved: {error}") from error
    return Target(
        url=url,
        name=None if to is None else to.endpoint.name,
        host=parts.netloc,
        family=family,
        address=address,
        path=parts.path.rstrip("/") + endpoint.path,
        head_fields="".join(f"{name}: {value}\r\n" for name, value in headers.items()),
        is_streamed=endpoint.stream,
        timeout_s=endpoint.timeout_s,
        connect_timeout_s=endpoint.connect_timeout_s,
        first_byte_timeout_s=endpoint.first_byte_timeout_s or endpoint.timeout_s,
        reuses_connections=endpoint.reuse_connections,
        sends_done=endpoint.sends_done,
        tls=make_context(endpoint.ca_file) if is_tls else None,
        server_name=parts.hostname,
        events_max=plan.workload.limits.events_max,
        bytes_max=plan.workload.limits.bytes_max,
    )

"""What is known of one trial while it runs, and what follows from it: pure, fed with events and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from burnin.fleet.network.trial import Sweep, Trial, TrialResult
from burnin.node.pace import PULSE
from burnin.node.stall import Sign, find_stalled, note_pulse
from probes.event import Event
from probes.json_types import JsonObject

DONE, HUNG, FAILED, LOST, NOT_RUN = "done", "hung", "failed", "lost", "not run"
DETAIL_MAX = 900


@dataclass(slots=True, kw_only=True)
class _HostState:
    """What one host has said so far."""

    ready: JsonObject | None = None  # None: not yet
    heard_at: float | None = None  # None: never
    ended: JsonObject | None = None  # how its ranks ended; None: they run
    ranks: set[int] = field(default_factory=set)
    joined: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    failed: list[JsonObject] = field(default_factory=list)
    ras: JsonObject | None = None  # None: not asked, or no answer yet


class TrialState:
    """One trial, as its hosts' words make it."""

    def __init__(
        self, trial: Trial, *, stall_s: float, silence_s: float, training: JsonObject | None = None
    ) -> None:
        self._training = training
        self._has_stepped = False
        self._trial, self._stall_s, self._silence_s = trial, stall_s, silence_s
        self._hosts = {name: _HostState() for name in trial.hosts}
        self._signs: dict[str, Sign] = {}
        self._sweeps: dict[tuple[str, int], dict[int, JsonObject]] = {}
        self._planned: list[tuple[str, int]] = []
        self._transports: set[str] = set()
        self._environment: dict[str, dict[str, str]] = {}
        self._details: list[str] = []
        self._is_watching = False
        self.port: int | None = None  # None: the first host has not named one
        self.gone: dict[str, str] = {}  # hosts that fell out, and why
        self._refused: dict[str, str] = {}
        self._stalled: tuple[str, ...] = ()
        self.state = ""  # empty: it still runs

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to wait for."""
        return bool(self.state)

    @property
    def is_broken(self) -> bool:
        """Whether it ended with an error, for which somebody's loss may be the reason."""
        return self.state == FAILED and not self._stalled

    @property
    def is_explained(self) -> bool:
        """Whether it is known who broke it."""
        return self.state == LOST

    @property
    def is_ready(self) -> bool:
        """Whether every host can begin, and it is known where they meet."""
        return self.port is not None and all(host.ready for host in self._hosts.values())

    @property
    def has_met(self) -> bool:
        """Whether every rank of every host has come together with the others."""
        if self._training and self._training.get("command"):
            return self._has_stepped  # nothing else is known of the user's own ranks
        return all(
            host.ready and len(host.joined) == int(host.ready["ranks"]) for host in self._hosts.values()
        )

    @property
    def device(self) -> str:
        """What the ranks run on; empty while no host has said so."""
        return next((str(host.ready["device"]) for host in self._hosts.values() if host.ready), "")

    @property
    def has_ras_answer(self) -> bool:
        """Whether every host that can still speak has told what RAS said to it."""
        return all(host.ras for name, host in self._hosts.items() if name not in self.gone)

    def start_watching_stalls(self) -> None:
        """From now on a rank that makes no step for too long is a hang."""
        self._is_watching = True

    def give_up(self, state: str, detail: str) -> None:
        """End the trial for a reason of our own."""
        self.state = state
        self.add_detail(detail)

    def refuse_lone_rank(self) -> None:
        """Give up where there is one rank in all: it would exchange data with nobody."""
        if self.is_ready and sum(int(host.ready["ranks"]) for host in self._hosts.values() if host.ready) < 2:
            self.give_up(NOT_RUN, "one rank alone has nobody to exchange data with")

    def add_detail(self, detail: str) -> None:
        """Add a sentence to what is told of the trial."""
        if detail and detail not in self._details:
            self._details.append(detail)

    def lose(self, name: str, why: str) -> None:
        """Note that a host fell out, or was never reached."""
        self.gone.setdefault(name, why)
        self.state = LOST

    def note_life(self, name: str, now_s: float) -> None:
        """Note that a host said something, whatever it was."""
        self._hosts[name].heard_at = now_s

    def note_time(self, now_s: float) -> None:
        """See who is silent, and whether anybody has stalled."""
        for name, host in self._hosts.items():
            if host.heard_at is not None and now_s - host.heard_at >= self._silence_s and not host.ended:
                self.lose(name, f"silent for {self._silence_s:.0f} s")
        if self._is_watching and not self.is_over:
            stalled = find_stalled(list(self._signs.values()), stall_s=self._stall_s, now_s=now_s)
            if stalled:
                self._note_hang(stalled)

    def _note_hang(self, stalled: Sequence[str]) -> None:
        busy = [sign for sign in self._signs.values() if sign.is_busy]
        names = {self._host_of(int(rank)) for rank in stalled}
        # Where all wait alike, the pace of the ranks accuses nobody.
        is_everybody = len(stalled) == len(busy)
        self._stalled = () if is_everybody else tuple(name for name in self._trial.hosts if name in names)
        self.state = HUNG
        entered = sorted({sign.entered for sign in busy})
        who = "all ranks wait alike" if is_everybody else f"rank {', '.join(stalled)} did not come"
        self.add_detail(f"no step for {self._stall_s:.0f} s after {entered[-1]} collectives: {who}")

    def _host_of(self, rank: int) -> str:
        return next((name for name, host in self._hosts.items() if rank in host.ranks), "")

    def run_out_of_time(self, what: str) -> None:
        """Conclude from who has done what that the time was up."""
        if not self.is_ready:
            late = [name for name, host in self._hosts.items() if not host.ready]
            self.state, self._stalled = FAILED, tuple(late)
        elif not self.has_met:
            self.state, self._stalled = FAILED, self._absent()
        else:
            self.state = HUNG
        self.add_detail(what)

    def _absent(self) -> tuple[str, ...]:
        """Return the hosts whose ranks did not begin, unless those of no other host did."""
        absent = tuple(name for name, host in self._hosts.items() if not host.ranks)
        return absent if len(absent) < len(self._hosts) else ()

    def note_end(self, name: str, why: str) -> None:
        """Note that a host's line has ended: in order where its ranks had, else it is lost."""
        host = self._hosts[name]
        if host.ended is None and name not in self._refused:
            self.lose(name, f"its line ended; it said last: {why[-200:]!r}" if why else "its line ended")

    def note(self, event: Event, now_s: float) -> None:
        """Take in what a host or one of its ranks said."""
        name, data = event.host, event.data
        host = self._hosts[name]
        if event.kind == "trial.ready":
            host.ready = data
        elif event.kind == "trial.port":
            self.port = int(data["port"])
        elif event.kind == "trial.refused":
            self._refused[name] = str(data["reason"])
            self.give_up(NOT_RUN, f"{name}: {data['reason']}")
        elif event.kind == "trial.ras":
            host.ras = data
        elif event.kind == "trial.ended":
            self._note_ranks_ended(name, data)
        elif event.kind == "train.step":
            self._has_stepped = True
        elif event.kind == PULSE:
            note_pulse(self._sign(str(data["device"]), now_s), data, now_s=now_s)
        elif "rank" in data:
            self._note_rank(host, name, event, now_s)

    def _sign(self, rank: str, now_s: float) -> Sign:
        sign = Sign(device=rank, is_busy=True, stepped_at=now_s, heard_at=now_s)
        return self._signs.setdefault(rank, sign)

    def _note_rank(self, host: _HostState, name: str, event: Event, now_s: float) -> None:
        data, rank = event.data, int(event.data["rank"])
        if event.kind == "rank.started":
            host.ranks.add(rank)
        elif event.kind == "rank.joined":
            host.joined.add(rank)
            self._environment.setdefault(name, dict(data["environment"]))
            self._sign(str(rank), now_s).stepped_at = now_s
        elif event.kind == "rank.plan":
            self._planned = [(one, size) for one in data["collectives"] for size in data["sizes_bytes"]]
            if data["too_large_bytes"]:
                self.add_detail(f"left out for want of memory: {data['too_large_bytes']} B")
        elif event.kind == "rank.sweep":
            key = (str(data["collective"]), int(data["size_bytes"]))
            self._sweeps.setdefault(key, {})[rank] = data
        elif event.kind == "rank.failed":
            host.failed.append(data)
        elif event.kind == "rank.done":
            host.done.add(rank)
            self._transports |= {str(transport) for transport in data["transports"]}
            self._sign(str(rank), now_s).is_busy = False

    def _note_ranks_ended(self, name: str, data: JsonObject) -> None:
        host = self._hosts[name]
        host.ended = data
        if not data["is_well"]:
            self.state = self.state or FAILED
            codes = ", ".join(f"rank {f['rank']} ended with {f['exit_code']}" for f in data["failures"])
            self.add_detail(f"{name}: {data.get('error') or codes}")
            for failed in host.failed:
                self.add_detail(f"{name}: {failed['error'][:200]}")
        elif all(host.ended for host in self._hosts.values()):
            self.state = self.state or DONE

    def _first_to_fail(self) -> tuple[str, ...]:
        """Return the hosts that broke by themselves: not while they waited for others.

        A rank that died without a word was killed; the others then fail while they wait for it.
        """
        broken = []
        for name, host in self._hosts.items():
            own = [failed for failed in host.failed if not failed["is_waiting"]]
            died = host.ended is not None and bool(host.ended.get("failures")) and not host.failed
            if own or died:
                broken.append(name)
        return tuple(broken) if len(broken) < len(self._hosts) else ()

    def _did_not_come(self) -> tuple[str, ...]:
        """Return the hosts that say nothing of where others have waited for them in vain."""
        if any(host.ranks for host in self._hosts.values()):
            return ()
        absent = tuple(name for name, host in self._hosts.items() if host.ended is None)
        return absent if len(absent) < len(self._hosts) else ()

    def _blamed(self) -> tuple[str, ...]:
        if self.state == LOST:
            return tuple(name for name in self._trial.hosts if name in self.gone)
        if self.state == FAILED:
            return self._stalled or self._first_to_fail() or self._did_not_come()
        if self.state == HUNG:
            return self._stalled or self._missing_to_ras()
        return ()

    def _missing_to_ras(self) -> tuple[str, ...]:
        """Return the hosts of the ranks that NCCL's RAS misses, or finds behind the others."""
        answers = [host.ras for host in self._hosts.values() if host.ras and "error" not in host.ras]
        missing = {int(rank["rank"]) for answer in answers for rank in answer.get("missing", [])}
        missing = missing or {int(rank) for answer in answers for rank in answer.get("behind", [])}
        names = {self._host_of(rank) for rank in missing}
        return tuple(name for name in self._trial.hosts if name in names)

    def result(self) -> TrialResult:
        """Return what came of the trial."""
        sweeps = tuple(
            merge_sweep(key, rows) for key, rows in sorted(self._sweeps.items()) if self._is_whole(rows)
        )
        lacking = [key for key in self._planned if not self._is_whole(self._sweeps.get(key, {}))]
        lost = [f"{name}: {why}" for name, why in self.gone.items()]
        ras = [f"RAS on {name}: {host.ras}" for name, host in self._hosts.items() if host.ras is not None]
        return TrialResult(
            trial=self._trial,
            state=self.state or FAILED,
            sweeps=sweeps,
            is_complete=self.state == DONE and not lacking and bool(self._planned or self._training),
            transport=name_transport(self._transports),
            blamed=self._blamed(),
            detail="; ".join([*lost, *self._details, *ras])[:DETAIL_MAX],
            environment=merge_environment(self._environment),
        )

    def _is_whole(self, rows: Mapping[int, JsonObject]) -> bool:
        """Whether every rank has told of it."""
        return bool(rows) and len(rows) == next(iter(rows.values()))["ranks"]


def merge_sweep(key: tuple[str, int], rows: Mapping[int, JsonObject]) -> Sweep:
    """Return one collective at one size: as slow as its slowest rank, wrong wherever anybody saw it."""
    any_row = next(iter(rows.values()))
    mean_s = max(float(row["mean_s"]) for row in rows.values())
    worst_s = max(float(row["worst_s"]) for row in rows.values())
    carried = float(any_row["busbw_bytes"]) / 1e9
    return Sweep(
        collective=key[0],
        size_bytes=key[1],
        ranks=int(any_row["ranks"]),
        iterations=int(any_row["iterations"]),
        busbw_gbps=carried / max(mean_s, 1e-12),
        busbw_worst_gbps=carried / max(worst_s, 1e-12),
        wrong_elements=sum(int(row["wrong_elements"]) for row in rows.values()),
    )


def name_transport(transports: set[str]) -> str | None:
    """Return the transport that decides: sockets wherever there were any, then the network, then the rest.

    Names are NCCL's, cut to two parts: "NET/IB/0/GDRDMA" is "NET/IB". None: it was not told.
    """
    short = sorted({"/".join(transport.split("/")[:2]) for transport in transports})
    for wanted in ("NET/Socket", "NET/", ""):
        found = [transport for transport in short if transport.startswith(wanted)]
        if found:
            return found[0]
    return None


def merge_environment(told: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return what steers the libraries; where hosts differ, each value with those that have it."""
    merged = {}
    for key in sorted({key for environment in told.values() for key in environment}):
        values: dict[str, list[str]] = {}
        for name, environment in told.items():
            values.setdefault(environment.get(key, "(unset)"), []).append(name)
        if len(values) == 1:
            merged[key] = next(iter(values))
        else:
            merged[key] = "; ".join(f"{value} on {', '.join(names[:4])}" for value, names in values.items())
    return merged

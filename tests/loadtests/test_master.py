"""The master's part: shares, one start, lost and late workers, chunks of rows; and the rules over it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from loadtests import plan as plans
from loadtests.plan import LoadPlan, load_plan, write_plan
from loadtests.processes import master as messages
from loadtests.processes.crew import Crew
from loadtests.processes.master import Master
from loadtests.processes.parts import CHUNK_BYTES, PartTaker, cut_part
from loadtests.processes.tally import Tally, tally_from_json
from loadtests.rules.crew_judging import Sums, judge_accounted, judge_workers
from loadtests.spec.workload import WorkloadSpec
from probes.errors import ConfigError, TargetError
from probes.event import Event
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.record import create_run
from reports.run import load_run
from tests.probes.rows import answered

SPEC = WorkloadSpec.model_validate(
    {"name": "m", "arrivals": {"kind": "constant", "rate_per_s": 1}, "duration_s": 4}
)


class FakeCrew:
    """A master on its own, with everything that it sends."""

    def __init__(self, folder: Path, *, processes: int = 2, joining: int = 0) -> None:
        self.writer = create_run(folder, kind="load", spec={}, seed=0)
        self.sent: list[tuple[str, str, JsonObject]] = []
        crew = Crew(processes=processes, joining=joining, join_s=30)
        self.plan = LoadPlan(run=self.writer.path, spec=SPEC, seed=1, url="http://h", model="m", crew=crew)
        self.master = Master(self.plan, self.writer, inputs={}, send=lambda *sent: self.sent.append(sent))
        self.now_s = self.master._begun_s

    def hello(self, client: str, number: int | None, **changes: object) -> JsonObject:
        """Return what the master answers a worker that asks for a share."""
        version = self.writer.header.versions.get("overproof", "")
        hello = {"host": f"host-{client}", "version": version, "number": number, "folder": ""} | changes
        self.master.take(client, messages.HELLO, hello)
        return self.sent[-1][2]

    def start(self) -> None:
        for number, client in enumerate("ab"):
            self.hello(client, number)
            self.master.take(client, messages.READY, {})

    def look(self, there: str, after_s: float) -> None:
        self.now_s += after_s
        self.master.look(set(there), now_s=self.now_s)

    def events(self, kind: str) -> list[Event]:
        return load_run(self.writer.path).events_of(kind)


def report(rows: int) -> JsonObject:
    tally = Tally()
    for index in range(rows):
        tally.add(answered(index))
    return tally.to_json() | {"arrivals": rows, "in_flight": 0}


def test_all_start_at_the_same_moment_and_only_when_the_last_is_ready(tmp_path: Path) -> None:
    crew = FakeCrew(tmp_path)
    crew.hello("a", 0)
    crew.master.take("a", messages.READY, {})
    before = [kind for _, kind, _ in crew.sent]
    crew.hello("b", 1)
    crew.master.take("b", messages.READY, {})
    starts = [(client, data["t0_ns"]) for client, kind, data in crew.sent if kind == messages.START]

    assert messages.START not in before
    assert [client for client, _ in starts] == ["a", "b"]
    assert starts[0][1] == starts[1][1]


def test_a_worker_that_asks_twice_keeps_its_share_and_who_comes_too_many_or_too_late_gets_none(
    tmp_path: Path,
) -> None:
    crew = FakeCrew(tmp_path, processes=1, joining=1)

    assert [crew.hello(*asked)["number"] for asked in (("a", 0), ("b", None), ("b", None))] == [0, 1, 1]
    assert "all 1 places are taken" in crew.hello("c", None)["refused"]
    assert "it is overproof '0.0.0-other'" in crew.hello("d", None, version="0.0.0-other")["refused"]
    for client in "ab":
        crew.master.take(client, messages.READY, {})
    assert "the load has begun" in crew.hello("e", None)["refused"]
    assert len(crew.events(plans.REFUSED)) == 3
    assert len(crew.events(plans.JOINED)) == 2


def test_a_share_is_free_again_if_its_worker_goes_before_the_start_and_nobody_waits_for_ever(
    tmp_path: Path,
) -> None:
    crew = FakeCrew(tmp_path)
    crew.hello("a", 0)
    crew.look("", 0.1)
    crew.look("", 4)

    assert crew.hello("a2", 0)["number"] == 0
    with pytest.raises(TargetError, match="1 of 2 workers joined within 30 s, 0 are ready"):
        crew.look("a2", 31)


def test_a_worker_that_is_silent_is_lost_and_the_run_ends_without_it_unless_it_comes_back(
    tmp_path: Path,
) -> None:
    crew = FakeCrew(tmp_path)
    crew.start()
    crew.master.take_report("b", report(3))
    crew.look("a", 0.1)
    crew.look("a", 2)
    assert not crew.events(plans.LOST)
    crew.look("a", 2)
    crew.master.take("a", messages.ENDED, report(2))
    is_over_without_it = crew.master.is_over
    crew.look("ab", 1)
    is_over_with_it = crew.master.is_over
    crew.master.take("b", messages.ENDED, report(5))
    crew.master.write_merged()
    merged = crew.events(plans.MERGED)[0].data

    assert (is_over_without_it, is_over_with_it, crew.master.is_over) == (True, False, True)
    assert crew.events(plans.LOST)[0].data["rows_reported"] == 3
    assert crew.events(plans.CAME_BACK)[0].data["worker"] == 1
    assert (merged["rows"], merged["ttft_ms"]["count"], merged["lost"]) == (7, 7, [])


def test_a_worker_that_fails_is_the_runs_failure_before_the_start_and_a_lost_worker_after_it(
    tmp_path: Path,
) -> None:
    before, after = FakeCrew(tmp_path / "before"), FakeCrew(tmp_path / "after")
    before.hello("a", 0)
    after.start()
    full = {"reason": "requests/worker-1.ndjson: cannot be written: No space left on device"}
    after.master.take("b", messages.FAILED, full)
    after.look("ab", 10)  # it is still heard, but its rows will never be whole
    after.master.take("a", messages.ENDED, report(2))

    with pytest.raises(ConfigError, match="worker 0 on host-a: no key"):
        before.master.take("a", messages.FAILED, {"reason": "no key", "is_config": True})
    assert "No space left" in after.events(plans.LOST)[0].data["reason"]
    assert after.master.is_over
    assert not after.events(plans.CAME_BACK)


def test_rows_come_in_chunks_and_appear_only_when_they_are_whole(tmp_path: Path) -> None:
    source, run = tmp_path / "rows", tmp_path / "run"
    (run / "requests").mkdir(parents=True)
    source.write_bytes(bytes(range(256)) * 8192 + b"end")
    chunks = list(cut_part(source, "requests"))
    taker = PartTaker(run, 3)
    for chunk in chunks[:-1]:
        taker.take(chunk)
    before = [path.name for path in (run / "requests").iterdir()]
    taker.take(chunks[-1])
    after = [path.name for path in (run / "requests").iterdir()]

    assert len(chunks) == 3
    assert len(chunks[0]["data"]) == CHUNK_BYTES
    assert (before, after) == (["worker-3.parquet.part"], ["worker-3.parquet"])
    assert (run / "requests" / after[0]).read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    "change",
    [{"offset": 5}, {"kind": "../../etc"}, {"sha256": hashlib.sha256(b"other").hexdigest()}],
)
def test_a_chunk_that_does_not_fit_loses_its_worker_and_nothing_else(
    change: JsonObject, tmp_path: Path
) -> None:
    crew = FakeCrew(tmp_path)
    crew.start()
    good = {"kind": "requests", "offset": 0, "data": b"x", "sha256": hashlib.sha256(b"x").hexdigest()}
    crew.master.take("a", messages.PART, good | change)
    crew.master.take("b", messages.PART, good)

    assert [event.data["worker"] for event in crew.events(plans.LOST)] == [0]
    assert [path.name for path in (crew.writer.path / "requests").iterdir()] == ["worker-1.parquet"]


@pytest.mark.parametrize("kind", messages.FROM_WORKER)
def test_a_message_that_makes_no_sense_costs_its_sender_and_nobody_else(kind: str, tmp_path: Path) -> None:
    crew = FakeCrew(tmp_path)
    crew.start()
    for client in ("a", "stranger"):
        for data in ({}, None, {"kind": 5, "number": "x", "reason": None}):
            crew.master.take(client, kind, data)  # type: ignore[arg-type]
    crew.master.take("b", messages.ENDED, report(1))

    assert {event.data["worker"] for event in crew.events(plans.LOST)} <= {0}
    assert crew.events(plans.COLLECTED)[-1].data["worker"] == 1


def test_a_plan_survives_its_file_and_a_tally_its_message(tmp_path: Path) -> None:
    crew = FakeCrew(tmp_path)
    tally = tally_from_json(report(4))

    assert load_plan(write_plan(crew.plan)) == crew.plan
    assert tally.to_json() == tally_from_json(tally.to_json()).to_json()
    assert (tally.counts["rows"], tally.counts["gaps"], tally.counts["tokens"]) == (4, 8, 12)


EQUAL = {"rows": 5, "failed": 1, "tokens": 40}


@pytest.mark.parametrize(
    ("by_worker", "by_master", "said"),
    [
        (EQUAL, EQUAL, None),
        (EQUAL | {"tokens": 41}, EQUAL, "worker 0: tokens 41 by itself, 40 in its rows"),
        (EQUAL, EQUAL | {"rows": 4}, "worker 0: rows 4 by the master, 5 in its rows"),
        (None, EQUAL, "worker 0: no sums by itself"),
        (EQUAL, None, "worker 0: no sums by the master"),
    ],
)
def test_sums_that_differ_by_one_are_no_pass(
    by_worker: JsonObject | None, by_master: JsonObject | None, said: str | None
) -> None:
    sums = Sums(worker=0, is_lost=False, by_worker=by_worker, by_master=by_master, in_rows=EQUAL)
    found = judge_accounted([sums], subject="client:load")

    assert found.outcome is (Outcome.PASS if said is None else Outcome.INCONCLUSIVE)
    assert said is None or said in found.observed
    assert judge_accounted([], subject="client:load").outcome is Outcome.INCONCLUSIVE


def test_a_worker_that_was_stopped_or_never_ended_is_no_pass() -> None:
    def ended(worker: int, reason: str) -> Event:
        return Event(
            t_ns=1, host="h", source="load", kind=plans.ENDED, data={"worker": worker, "reason": reason}
        )

    whole = [ended(0, "drained"), ended(1, "drained")]
    cut = [ended(0, "drained"), ended(1, "stopped")]

    assert judge_workers(workers=2, ended=whole, lost={}, arrivals=9, rows={}).outcome is Outcome.PASS
    for found in (
        judge_workers(workers=2, ended=cut, lost={}, arrivals=9, rows={1: 2}),
        judge_workers(workers=2, ended=whole[:1], lost={}, arrivals=9, rows={1: 2}),
    ):
        assert found.outcome is Outcome.INCONCLUSIVE
        assert "worker 1 was lost" in found.observed
        assert "2 rows of 4 in its share are here" in found.observed

"""The live view of a game day: what the record, the ledger and the guards say at this moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from experiments.experiment import load_experiment
from experiments.guards.guard import SEES, Look
from experiments.injecting.ledger import INJECTED, UNDONE, Ledger
from experiments.live.view import HEADERS, DayView
from probes.json_types import JsonObject
from reports.exporter import render_page
from reports.record import RunWriter, create_run
from tests.reports.recorded import request, write_requests

DAY = Path("experiments/catalogue/local/replica-kill.yaml")


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def view_of(
    folder: Path,
    clock: FakeClock,
    looks: dict[str, Look] | None = None,
    steps: Callable[[], int | None] = lambda: None,
) -> DayView:
    return DayView(load_experiment(DAY), folder, looks or {}, steps=steps, clock=clock)


def day(tmp_path: Path) -> RunWriter:
    return create_run(tmp_path, kind="gameday", spec={}, seed=1)


def rows_of(view: DayView) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in view.rows()}


def page_of(view: DayView) -> set[str]:
    return {line for line in render_page(view.figures()).decode().splitlines() if not line.startswith("#")}


def sample(writer: RunWriter, series: str, subject: str, **columns: object) -> None:
    row: JsonObject = {"t_ns": 1, "subject": subject, **columns}
    writer.sample(series, row)


def test_before_the_first_phase_there_is_nothing_to_see(tmp_path: Path) -> None:
    with day(tmp_path) as writer:
        view = view_of(writer.path, FakeClock())

        assert (view.rows(), page_of(view)) == ([], _wanted())


def _wanted() -> set[str]:
    return {
        f'overproof_load_promise_wanted_ratio{{promise="{name}"}} 0.8' for name in ("ttft_ms_p80", "goodput")
    }


def test_phase_and_time_left_follow_the_clock(tmp_path: Path) -> None:
    clock = FakeClock()
    with day(tmp_path) as writer:
        view = view_of(writer.path, clock)
        view.begin("before")
        seen = [rows_of(view)["phase"]]
        for phase, s in (("", 4), ("during", 3), ("", 100), ("after", 0), ("", 7)):
            if phase:
                view.begin(phase)
            clock.now_s += s + 1
            seen.append(rows_of(view)["phase"])

    assert seen == [  # steady for 10 s, recovery within 15 s, 10 s of watching afterwards
        ("before, 0 s", "about 35 s left"),
        ("before, 5 s", "about 30 s left"),
        ("during, 4 s", "about 21 s left"),
        ("during, 105 s", "about 10 s left"),
        ("after, 1 s", "about 9 s left"),
        ("after, 9 s", "about 1 s left"),
    ]


def test_a_fault_is_shown_until_it_is_undone_and_what_serves_with_it(tmp_path: Path) -> None:
    clock = FakeClock()
    with day(tmp_path) as writer, Ledger(writer.path) as ledger:
        view = view_of(writer.path, clock)
        view.begin("during")
        quiet = rows_of(view)
        for name in ("replica-0", "replica-1", "replica-2"):
            sample(writer, "lab", f"replica:{name}", is_serving=name != "replica-1")
        entry = ledger.arm("replica.kill", "replica:replica-1", {})
        ledger.note(entry, INJECTED)
        clock.now_s += 2
        broken, broken_page = rows_of(view), page_of(view)
        sample(writer, "lab", "replica:replica-1", is_serving=True)
        ledger.note(entry, UNDONE)
        clock.now_s += 2
        healed, healed_page = rows_of(view), page_of(view)

    fault = 'overproof_gameday_fault{fault="replica.kill",subject="replica:replica-1"}'
    assert quiet["fault"] == ("none yet", "")
    assert broken["fault"] == ("replica.kill replica:replica-1", "injected")
    assert broken["serving"] == ("2 of 3", "lab")
    assert {f"{fault} 1.0", 'overproof_gameday_replicas_ready{service="lab"} 2.0'} <= broken_page
    assert healed["fault"] == ("replica.kill replica:replica-1", "undone")
    assert healed["serving"] == ("3 of 3", "lab")
    assert {f"{fault} 0.0", 'overproof_gameday_replicas_wanted{service="lab"} 3.0'} <= healed_page


def test_workloads_of_a_cluster_are_counted_by_themselves_and_nodes_are_not(tmp_path: Path) -> None:
    with day(tmp_path) as writer:
        sample(writer, "kube", "workload:Deployment/ns/llm", is_serving=False, ready=2, wanted=3)
        sample(writer, "kube", "workload:Deployment/ns/gateway", is_serving=True, ready=1, wanted=1)
        sample(writer, "kube", "node:a", is_serving=True, ready=1, wanted=1)
        view = view_of(writer.path, FakeClock())
        view.begin("before")
        serving = [row[1:] for row in view.rows() if row[0] == "serving"]

    assert serving == [("2 of 3", "Deployment/ns/llm"), ("1 of 1", "Deployment/ns/gateway")]


def test_guards_show_how_much_of_what_they_allow_is_used_while_they_are_looked_at(tmp_path: Path) -> None:
    clock, looks = FakeClock(), {"errors": Look(state=SEES, observed="", used=0.25)}
    with day(tmp_path) as writer:
        view = view_of(writer.path, clock, looks)
        view.begin("during")
        during, page = rows_of(view), page_of(view)
        view.begin("after")
        clock.now_s += 2
        after = rows_of(view)

    assert during["guard errors"] == ("25% of what it allows", "")
    assert 'overproof_gameday_guard_used_ratio{guard="errors"} 0.25' in page
    assert "guard errors" not in after


def test_traffic_and_training_steps_stand_below(tmp_path: Path) -> None:
    clock = FakeClock()
    with day(tmp_path) as writer:
        load = create_run(tmp_path, kind="load", spec={}, seed=1, is_child=True, path=writer.path / "load")
        view = view_of(writer.path, clock, steps=lambda: 1234)
        view.begin("before")
        without = rows_of(view)
        write_requests(load.path, [request(load.header.started_ns, 0, 0)])
        load.sample("client-0", {"t_ns": 1, "arrivals": 1, "ended": 1, "failed": 0, "in_flight": 0})
        load.close()
        later = view_of(writer.path, clock)
        later.begin("before")
        rows = later.rows()

    assert (without["training"], "offered" in without) == (("", "1,234 steps"), False)
    assert {row[0]: row[2] for row in rows}["goodput"] == "✓ 100.00%, wants 80%"
    assert all(len(row) == len(HEADERS) for row in rows)

"""The dead-man and the mirror of the ledger, on an API server in memory and a clock that only we move."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from experiments.faults.fault import FaultRefused
from experiments.kube.deadman import arming
from experiments.kube.deadman.arming import arm_in_cluster, check_lease, undo_in_cluster
from experiments.kube.deadman.hold import end_dead_man, start_dead_man
from experiments.kube.deadman.lease import LEASE_S, beat_of, renew
from experiments.kube.deadman.mirror import (
    MirrorClosed,
    MirrorEntry,
    Place,
    entries_of,
    fired_reason,
    place_of,
    write_armed,
    write_fired,
)
from experiments.kube.deadman.modules import build_dead_man
from experiments.kube.deadman.objects import (
    DeadManSettings,
    job_object,
    lease_object,
    mirror_object,
)
from experiments.kube.deadman.pod import SETTLE_S, DeadMan
from experiments.kube.undoing.steps import make_change, make_step
from probes.errors import ConfigError, TargetError
from probes.json_types import JsonObject
from tests.experiments.kube.fake_api import FakeApi, node

NODE = "/api/v1/nodes/node-1"
PLACE = place_of("20261121T101010Z-gameday-ab12")


class Clock:
    """Moves when somebody sleeps, and lets something happen meanwhile."""

    def __init__(self, *, end_s: float = 600.0) -> None:
        self.now_s = 0.0
        self.end_s = end_s
        self.events: list[tuple[float, Callable[[], object]]] = []
        self.every: Callable[[], object] = lambda: None

    def read(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        if self.now_s > self.end_s:
            raise TimeoutError("the dead-man has not ended")
        for at_s, event in [e for e in self.events if e[0] <= self.now_s]:
            self.events.remove((at_s, event))
            event()
        self.every()


@pytest.fixture
def api() -> FakeApi:
    """Return a cluster with one node and a game day's things."""
    made = FakeApi({NODE: node("node-1")})
    _, mirror = made.ask("POST", PLACE.config_maps, mirror_object(PLACE, "run", "host/1"))
    made.ask("POST", PLACE.leases, lease_object(PLACE, PLACE.name, mirror, "host/1"))
    made.ask("POST", PLACE.leases, lease_object(PLACE, f"{PLACE.name}-dead-man", mirror, ""))
    return made


def dead_man(api: FakeApi, clock: Clock, *, place: Place = PLACE) -> DeadMan:
    return DeadMan(place, api, nonce="n1", name="pod-1", clock_s=clock.read, sleep=clock.sleep)


def armed(api: FakeApi, *, entry_id: str = "node.cordon-1", place: Place = PLACE) -> Callable[[], object]:
    """Mirror a cordon, and return what makes it."""
    ours = [(("spec", "unschedulable"), True)]
    step = make_step(api.objects[NODE], subject="node/node-1", path=NODE, ours=ours, mark=entry_id)
    write_armed(place, api, MirrorEntry(id=entry_id, fault="f", subject="s", steps=(step,)))
    return lambda: make_change(step, api)


def is_cordoned(api: FakeApi) -> bool:
    return "unschedulable" in api.objects[NODE]["spec"]


def test_a_silent_controller_is_undone_after_its_lease_and_the_dead_man_leaves(api: FakeApi) -> None:
    clock = Clock()
    armed(api)()

    dead_man(api, clock).watch()

    (entry,) = entries_of(api.objects[PLACE.mirror])
    assert not is_cordoned(api)
    assert (entry.state, entry.by) == ("undone", "dead-man pod-1")
    assert "not renewed" in fired_reason(api.objects[PLACE.mirror])
    assert LEASE_S <= clock.now_s < LEASE_S + SETTLE_S + 10


def test_while_the_controller_renews_nothing_is_undone(api: FakeApi) -> None:
    clock = Clock(end_s=200)
    clock.every = lambda: renew(PLACE.lease, api, "host/1")
    armed(api)()

    with pytest.raises(TimeoutError):
        dead_man(api, clock).watch()

    assert is_cordoned(api)


def test_a_game_day_that_has_ended_lets_the_dead_man_leave_with_nothing_touched(api: FakeApi) -> None:
    clock = Clock()
    clock.events = [(5, lambda: api.objects.pop(PLACE.mirror))]

    dead_man(api, clock).watch()

    assert clock.now_s < 10


def test_an_api_that_is_away_is_no_silence_of_the_controller(api: FakeApi) -> None:
    clock = Clock(end_s=120)
    armed(api)()

    def away(is_away: bool) -> None:
        api.is_away = is_away

    clock.events = [(5, lambda: away(True)), (100, lambda: away(False))]
    clock.every = lambda: None if api.is_away else renew(PLACE.lease, api, "host/1")

    with pytest.raises(TimeoutError):
        dead_man(api, clock).watch()

    assert is_cordoned(api)


def test_an_api_that_is_away_in_the_middle_of_undoing_is_asked_until_it_is_back(api: FakeApi) -> None:
    clock = Clock()
    armed(api)()

    def refused(patch: dict[str, int]) -> None:
        api.refusals = patch

    clock.events = [(LEASE_S - 1, lambda: refused({"GET": 503})), (150, lambda: refused({}))]

    dead_man(api, clock).watch()

    assert not is_cordoned(api)
    assert clock.now_s > 150


def test_a_slow_server_delays_the_undo_by_no_more_than_a_look(api: FakeApi) -> None:
    clock, asked = Clock(), api.ask

    def slowly(method: str, path: str, body: JsonObject | None = None) -> tuple[int, JsonObject]:
        clock.now_s += 3.0
        return asked(method, path, body)

    armed(api)()
    api.ask = slowly  # type: ignore[method-assign]
    undone_at: list[float] = []
    clock.every = lambda: None if is_cordoned(api) else undone_at.append(clock.now_s)

    dead_man(api, clock).watch()

    assert undone_at[0] < LEASE_S + 50  # some looks of three calls each, then the undo


def test_an_injection_that_arrives_after_the_undo_is_undone_too(api: FakeApi) -> None:
    clock = Clock()
    inject = armed(api)
    clock.events = [(LEASE_S + 8, inject)]

    dead_man(api, clock).watch()

    assert not is_cordoned(api)
    assert not clock.events


def test_once_the_dead_man_has_fired_nothing_is_armed_any_more(api: FakeApi) -> None:
    write_fired(PLACE, api, "because")

    with pytest.raises(MirrorClosed, match="because"):
        armed(api)


def test_a_second_dead_man_after_the_first_was_lost_goes_on_undoing_at_once(api: FakeApi) -> None:
    clock = Clock()
    armed(api)()
    write_fired(PLACE, api, "the first one did")

    dead_man(api, clock).watch()

    assert not is_cordoned(api)
    assert clock.now_s < LEASE_S


def test_one_entry_that_cannot_be_undone_keeps_no_other_from_it(api: FakeApi) -> None:
    clock = Clock(end_s=100)
    armed(api)()
    key, text = "node.other-2", json.loads(next(iter(api.objects[PLACE.mirror]["data"].values())))
    step = text["steps"][0] | {"changes": "nonsense"}
    api.objects[PLACE.mirror]["data"][key] = json.dumps(text | {"id": key, "steps": [step], "t_armed_ns": 9})

    with pytest.raises(TimeoutError):
        dead_man(api, clock).watch()

    assert not is_cordoned(api)


def test_an_entry_is_armed_once_the_dead_man_says_that_it_could_undo_it(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arming, "SEEN_WITHIN_S", 0.0)
    step = make_step(
        api.objects[NODE],
        subject="node/node-1",
        path=NODE,
        ours=[(("spec", "unschedulable"), True)],
        mark="1",
    )

    def arm() -> None:
        arm_in_cluster(api, PLACE, entry_id="c-1", fault="node.cordon", subject="node/node-1", steps=[step])

    with pytest.raises(FaultRefused, match="has not seen it"):
        arm()
    with pytest.raises(TimeoutError):
        dead_man(api, Clock(end_s=3)).watch()
    arm()

    assert beat_of(api.objects[PLACE.heartbeat]).sees == {"c-1"}
    assert not is_cordoned(api)


def test_what_the_dead_man_may_not_undo_is_not_injected(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arming, "SEEN_WITHIN_S", 0.0)
    step = make_step(
        api.objects[NODE],
        subject="node/node-1",
        path=NODE,
        ours=[(("spec", "unschedulable"), True)],
        mark="1",
    )
    api.forbidden = {NODE}
    with pytest.raises(FaultRefused, match="has not seen"):
        arm_in_cluster(api, PLACE, entry_id="c-1", fault="f", subject="node/node-1", steps=[step])
    with pytest.raises(TimeoutError):
        dead_man(api, Clock(end_s=3)).watch()

    with pytest.raises(FaultRefused, match=r"could not undo it.*403"):
        arm_in_cluster(api, PLACE, entry_id="c-1", fault="f", subject="node/node-1", steps=[step])


def test_a_lease_that_may_run_out_during_the_call_forbids_it(api: FakeApi) -> None:
    check_lease(api, PLACE)
    api.objects[PLACE.lease]["spec"]["renewTime"] = "2026-01-01T00:00:00.000000Z"

    with pytest.raises(FaultRefused, match="not renewed"):
        check_lease(api, PLACE)


def test_two_game_days_have_two_mirrors_and_each_dead_man_its_own(api: FakeApi) -> None:
    other = place_of("20261121T101010Z-gameday-cd34")
    api.objects["/api/v1/nodes/node-2"] = node("node-2", uid="uid-2")
    armed(api)()
    _, mirror = api.ask("POST", other.config_maps, mirror_object(other, "run", "host/2"))
    api.ask("POST", other.leases, lease_object(other, other.name, mirror, "host/2"))
    api.ask("POST", other.leases, lease_object(other, f"{other.name}-dead-man", mirror, ""))

    dead_man(api, Clock(), place=other).watch()

    assert is_cordoned(api)
    assert not fired_reason(api.objects[PLACE.mirror])


def test_our_own_undo_is_noted_and_a_clean_end_takes_the_mirror_away(api: FakeApi) -> None:
    inject = armed(api)
    inject()
    (entry,) = entries_of(api.objects[PLACE.mirror])

    left_before = end_dead_man(api, PLACE)
    done = undo_in_cluster(
        api, PLACE, entry_id=entry.id, fault=entry.fault, subject=entry.subject, steps=entry.steps
    )
    left = end_dead_man(api, PLACE)

    assert left_before == ["s"]
    assert (done.is_restored, done.has_acted, left) == (True, True, [])
    assert set(api.objects) == {NODE}


def test_a_run_without_a_mirror_injects_nothing(api: FakeApi) -> None:
    del api.objects[PLACE.mirror]

    with pytest.raises(MirrorClosed, match="no mirror"):
        armed(api)


def test_an_undo_of_ours_that_is_refused_is_no_success_and_stays_in_the_mirror(api: FakeApi) -> None:
    armed(api)()
    (entry,) = entries_of(api.objects[PLACE.mirror])
    api.forbidden = {NODE}

    with pytest.raises(TargetError, match="403"):
        undo_in_cluster(
            api, PLACE, entry_id=entry.id, fault=entry.fault, subject=entry.subject, steps=entry.steps
        )

    (noted,) = entries_of(api.objects[PLACE.mirror])
    assert noted.state == "undo_failed"
    assert end_dead_man(api, PLACE) == ["s"]


def test_a_cluster_without_the_service_account_is_told_what_to_apply(api: FakeApi) -> None:
    with pytest.raises(ConfigError, match="kubectl apply"):
        start_dead_man(api, "run", DeadManSettings(namespace="overproof"), away_from=[])

    assert set(api.objects) == {NODE, PLACE.mirror, PLACE.lease, PLACE.heartbeat}


def test_the_name_of_a_run_becomes_one_that_kubernetes_takes() -> None:
    assert place_of("20261121T101010Z-gameday-ab12").name == "20261121t101010z-gameday-ab12"
    assert place_of("Mine_1.").name == "mine-1"


def test_the_dead_man_stays_away_from_the_nodes_to_be_hit() -> None:
    owner = {"metadata": {"name": "m", "uid": "u"}}
    job = job_object(
        PLACE, owner, DeadManSettings(namespace="overproof"), "n", ["node-2", "node-1", "node-1"]
    )

    spec = job["spec"]["template"]["spec"]
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert [each["values"] for each in term["matchFields"]] == [["node-1"], ["node-2"]]
    assert {each["operator"] for each in term["matchFields"]} == {"NotIn"}


def test_what_travels_runs_on_a_bare_python(tmp_path: Path) -> None:
    archive = tmp_path / "dead-man.zip"
    archive.write_bytes(build_dead_man())
    words = [str(archive), "experiments.kube.deadman.pod", "ns", "name", "nonce"]

    done = subprocess.run(
        [sys.executable, "-I", "-S", *words],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert "KeyError: 'KUBERNETES_SERVICE_HOST'" in done.stderr  # it came as far as looking for its cluster


def test_an_api_that_gives_no_answer_is_a_target_error(api: FakeApi) -> None:
    api.is_away = True

    with pytest.raises(TargetError, match="no answer"):
        end_dead_man(api, PLACE)


def test_no_manifest_grants_everything_and_the_dead_man_only_reads_and_patches() -> None:
    folder = Path(arming.__file__).parents[1] / "manifests"
    rules = {
        path.stem: [rule for row in yaml.safe_load_all(path.read_text()) for rule in row.get("rules", ())]
        for path in sorted(folder.glob("*.yaml"))
    }
    granted = {name: {verb for rule in found for verb in rule["verbs"]} for name, found in rules.items()}

    assert next(iter(rules)) == "0-namespace"  # kubectl takes them in this order
    assert not any("*" in (*r["verbs"], *r["resources"], *r["apiGroups"]) for f in rules.values() for r in f)
    assert granted["dead-man"] == {"get", "patch"}
    assert granted["observe"] == {"get", "list", "watch"}

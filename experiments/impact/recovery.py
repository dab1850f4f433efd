"""When traffic and redundancy came back: pure functions over request rows and lab samples.

A window is good when, of the requests under way in it, no more were bad than the promise allows. A request
that hangs spoils every window that it spans, so silence is never taken for health. Traffic has recovered with
the first of ``GOOD_IN_A_ROW`` good windows; redundancy when every replica serves, each victim of a fault that
the platform heals as a new one. The clock of recovery starts with the injection, or, for a fault that
only undoing ends, with its undoing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.faults.fault import PLATFORM
from experiments.kube.watching.samples import find_whole, hit_ids
from probes.json_types import JsonObject
from probes.request import Request
from probes.slo import GOODPUT, Slo, count_bad, is_good

WINDOW_NS = 1_000_000_000
GOOD_IN_A_ROW = 3
LAB_SERIES = "lab"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A second of traffic."""

    start_ns: int
    total: int  # requests under way in it
    is_good: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """When the fault was first noticed, and by what."""

    t_ns: int
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultSeen:
    """A fault as the record has it."""

    data: JsonObject  # of ``fault.injected``
    captured: JsonObject
    is_verified: bool
    observed: str  # what was seen on its target
    t_undone_ns: int | None  # None: it was not, or not yet
    t_healed_ns: int | None = None  # when a probe saw it healed on its host; None: none did

    @property
    def t_inject_ns(self) -> int:
        """When it was injected."""
        return int(self.data["t_inject_ns"])

    @property
    def is_healed_by_platform(self) -> bool:
        """Whether it is the platform's to end it, and not undoing's."""
        return bool(self.data["ends_by"] == PLATFORM)

    @property
    def t_clock_ns(self) -> int | None:
        """From when on recovery is expected; None: a fault that only undoing ends is still there."""
        return self.t_inject_ns if self.is_healed_by_platform else self.t_undone_ns

    @property
    def is_declared(self) -> bool:
        """Whether an action of somebody else's has injected it, and no lab is there to be sampled."""
        return bool(self.data["fault"] == "declared")

    @property
    def is_on_host(self) -> bool:
        """Whether it is on a host, which is looked at over SSH."""
        return "host_fault" in self.captured

    @property
    def is_on_cluster(self) -> bool:
        """Whether it is on a Kubernetes cluster, whose workloads are watched."""
        return "kube_fault" in self.captured

    @property
    def t_whole_ns(self) -> int | None:
        """When a fault that no lab samples was over: on a host as it was seen there."""
        return self.t_healed_ns if self.is_on_host and self.is_healed_by_platform else self.t_clock_ns

    @property
    def victims(self) -> list[JsonObject]:
        """Name and process of each replica that it hit."""
        return [*self.captured.get("victims", ())]


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """The moments of an experiment's faults; None: it has not come, or nothing showed it."""

    t_inject_ns: int  # of the first
    t_clock_ns: int | None  # from when on recovery is expected; None: a fault is still there
    detection: Detection | None
    t_mitigate_ns: int | None  # the gateway sent the victim nothing more
    t_recover_ns: int | None
    t_redundant_ns: int | None
    windows: tuple[Window, ...]
    # What a request or a probe of ours first showed, where noticing is up to the site's own alerts.
    harm: Detection | None = None

    @property
    def t_back_ns(self) -> int | None:
        """When both traffic and redundancy were back: the end of the ``during`` phase."""
        if self.t_recover_ns is None or self.t_redundant_ns is None:
            return None
        return max(self.t_recover_ns, self.t_redundant_ns)

    def after_inject_s(self, t_ns: int | None) -> float | None:
        """Return seconds from the injection."""
        return None if t_ns is None else round((t_ns - self.t_inject_ns) / 1e9, 3)

    def took_s(self, t_ns: int | None) -> float | None:
        """Return seconds on the clock of recovery; what was well all along took none."""
        if t_ns is None or self.t_clock_ns is None:
            return None
        return max(0.0, round((t_ns - self.t_clock_ns) / 1e9, 3))

    def to_json(self) -> JsonObject:
        """Return each moment that came, as a time (``_ns``) and as seconds from the injection (``_s``)."""
        moments = {
            "t_inject": self.t_inject_ns,
            "t_harm": self.harm.t_ns if self.harm else None,
            "t_detect": self.detection.t_ns if self.detection else None,
            "t_mitigate": self.t_mitigate_ns,
            "t_recover": self.t_recover_ns,
            "t_redundant": self.t_redundant_ns,
        }
        known = {name: t_ns for name, t_ns in moments.items() if t_ns is not None}
        return {f"{name}_ns": t_ns for name, t_ns in known.items()} | {
            f"{name}_s": self.after_inject_s(t_ns) for name, t_ns in known.items()
        }


def find_times(
    requests: Sequence[Request],
    samples: Sequence[JsonObject],
    *,
    faults: Sequence[FaultSeen],
    t_end_ns: int,
    slos: Sequence[Slo],
) -> Times:
    """Derive the moments of at least one fault from what was recorded up to ``t_end_ns``."""
    t_inject_ns = min(fault.t_inject_ns for fault in faults)
    clocks = [fault.t_clock_ns for fault in faults]
    t_clock_ns = None if None in clocks else max(clock for clock in clocks if clock is not None)
    later = [row for row in samples if row["t_ns"] >= t_inject_ns]
    windows = cut_windows(requests, slos, start_ns=t_inject_ns, end_ns=t_end_ns)
    hit = {f"replica:{victim['name']}" for fault in faults for victim in fault.victims}
    since = [] if t_clock_ns is None else [w for w in windows if w.start_ns + WINDOW_NS > t_clock_ns]
    return Times(
        t_inject_ns=t_inject_ns,
        t_clock_ns=t_clock_ns,
        detection=_detection(requests, later, slos, t_inject_ns),
        t_mitigate_ns=_first(later, lambda row: row["subject"] in hit and not row["is_routed"]),
        t_recover_ns=find_recovery(since),
        t_redundant_ns=None if t_clock_ns is None else _redundancy(later, faults, t_clock_ns),
        windows=tuple(windows),
    )


def cut_windows(
    requests: Sequence[Request], slos: Sequence[Slo], *, start_ns: int, end_ns: int
) -> list[Window]:
    """Cut a stretch of traffic into whole windows and judge each by its own requests."""
    windows = []
    for begin in range(start_ns, end_ns - WINDOW_NS + 1, WINDOW_NS):
        inside = [r for r in requests if r.t_intended_ns < begin + WINDOW_NS and end_of(r) >= begin]
        windows.append(Window(start_ns=begin, total=len(inside), is_good=_keeps(slos, inside)))
    return windows


def end_of(request: Request) -> int:
    """Return when a request was over; one that was never begun was over when it was due."""
    return request.t_intended_ns if request.t_end_ns is None else request.t_end_ns


def _keeps(slos: Sequence[Slo], requests: Sequence[Request]) -> bool:
    if not requests:
        return False
    for slo in slos:
        bad, total = count_bad(slo, requests, slos)
        if bad > (1 - slo.objective) * total:
            return False
    return True


def find_recovery(windows: Sequence[Window]) -> int | None:
    """Return the start of the first run of good windows that is long enough."""
    for i in range(len(windows) - GOOD_IN_A_ROW + 1):
        if all(window.is_good for window in windows[i : i + GOOD_IN_A_ROW]):
            return windows[i].start_ns
    return None


def is_bad_after(times: Times, recovery_s: float) -> bool:
    """Say whether requests were still bad after that time, before traffic recovered if it did."""
    assert times.t_clock_ns is not None
    deadline_ns = times.t_clock_ns + round(recovery_s * 1e9)
    return any(
        window.total and not window.is_good and window.start_ns + WINDOW_NS > deadline_ns
        for window in times.windows
        if times.t_recover_ns is None or window.start_ns < times.t_recover_ns
    )


def _detection(
    requests: Sequence[Request], later: Sequence[JsonObject], slos: Sequence[Slo], t_inject_ns: int
) -> Detection | None:
    bounded = [slo for slo in slos if slo.metric != GOODPUT]
    bad = [end_of(r) for r in requests if end_of(r) >= t_inject_ns and not is_good(r, bounded)]
    lost = _first(later, lambda row: not row["is_serving"])
    found = [Detection(t_ns=t, by="a bad request") for t in bad]
    found += [] if lost is None else [Detection(t_ns=lost, by="the redundancy probe")]
    return min(found, key=lambda detection: detection.t_ns, default=None)


def _redundancy(later: Sequence[JsonObject], faults: Sequence[FaultSeen], t_clock_ns: int) -> int | None:
    """Return the first moment, once nothing is broken any more, at which all replicas serve.

    A victim that the platform had to replace serves only as another process than was hit.
    """
    if all(fault.is_declared or fault.is_on_host for fault in faults):
        # There are no samples: it is whole once nothing is broken any more.
        moments = [fault.t_whole_ns for fault in faults]
        return None if None in moments else max(moment for moment in moments if moment is not None)
    if all(fault.is_on_cluster for fault in faults):
        gone = {each for f in faults if f.is_healed_by_platform for each in hit_ids(f.captured)}
        return find_whole(later, [f.captured for f in faults], replaced=gone, since_ns=t_clock_ns)
    replaced = {
        f"replica:{v['name']}": v["pid"]
        for fault in faults
        if fault.is_healed_by_platform
        for v in fault.victims
    }
    by_time: dict[int, list[JsonObject]] = {}
    for row in later:
        if row["t_ns"] >= t_clock_ns:
            by_time.setdefault(row["t_ns"], []).append(row)
    for t_ns, rows in sorted(by_time.items()):
        are_new = all(row["pid"] != replaced.get(row["subject"], -1) for row in rows)
        if are_new and all(row["is_serving"] for row in rows):
            return t_ns
    return None


def _first(rows: Sequence[JsonObject], holds: object) -> int | None:
    assert callable(holds)
    return min((int(row["t_ns"]) for row in rows if holds(row)), default=None)


def split_phases(
    requests: Sequence[Request], *, t_inject_ns: int, t_back_ns: int | None
) -> dict[str, list[Request]]:
    """Split requests into before, during and after.

    What was under way when the fault came belongs to ``during``: it is the fault that cut it.
    """
    phases: dict[str, list[Request]] = {"before": [], "during": [], "after": []}
    for request in requests:
        if end_of(request) < t_inject_ns:
            phases["before"].append(request)
        elif t_back_ns is not None and request.t_intended_ns >= t_back_ns:
            phases["after"].append(request)
        else:
            phases["during"].append(request)
    return phases

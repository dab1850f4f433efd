"""Trials in the record of a fleet's run: written while they run, read to judge again and to go on later."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from burnin.fleet.network.trial import RoundRunner, Sweep, Trial, TrialResult
from probes.json_types import JsonObject
from reports.record import RunWriter
from reports.run import Run
from reports.table import read_series

TABLE = "net"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRounds:
    """A ``RoundRunner`` that writes down what another one brings."""

    writer: RunWriter
    run_round: RoundRunner

    def __call__(self, trials: Sequence[Trial]) -> list[TrialResult]:
        """Run a round; each trial is in the record once the round is over."""
        number = trials[0].round if trials else 0
        self.writer.event("network", "round.started", round=number, trials=len(trials))
        results = list(self.run_round(trials))
        for result in results:
            for row in result_to_rows(result):
                self.writer.sample(TABLE, {"t_ns": time.time_ns(), **row})
        states: dict[str, int] = {}
        for result in results:
            states[result.state] = states.get(result.state, 0) + 1
        self.writer.event("network", "round.finished", round=number, states=states)
        return results


def result_to_rows(result: TrialResult) -> Iterator[JsonObject]:
    """Yield a row for each sweep, or one without a collective where a trial gave none."""
    trial = result.trial
    about: JsonObject = {
        "round": trial.round,
        "trial": trial.id,
        "design": trial.design,
        "hosts": list(trial.hosts),
        "path": trial.path,
        "state": result.state,
        "is_complete": result.is_complete,
        "transport": result.transport,
        "seconds": round(result.seconds, 3),
        "detail": result.detail,
        "blamed": list(result.blamed),
    }
    if not result.sweeps:
        yield about | {"collective": ""}
    for sweep in result.sweeps:
        yield about | {name: getattr(sweep, name) for name in Sweep.__slots__}


def read_results(run: Run) -> dict[str, TrialResult]:
    """Return what the record holds of each trial, by its id; a trial that ran twice counts as it ran last."""
    rows: dict[str, list[Mapping[str, object]]] = {}
    for row in read_series(run, TABLE):
        known = rows.setdefault(str(row["trial"]), [])
        if known and (known[0]["hosts"] != row["hosts"] or _is_same_sweep(known, row)):
            known.clear()
        known.append(row)
    return {trial: _to_result(found) for trial, found in rows.items()}


def _is_same_sweep(known: Sequence[Mapping[str, object]], row: Mapping[str, object]) -> bool:
    key = (row.get("collective"), row.get("size_bytes"))
    return any((k.get("collective"), k.get("size_bytes")) == key for k in known)


def _to_result(rows: Sequence[Mapping[str, object]]) -> TrialResult:
    first: Mapping[str, object] = rows[0]
    measured = [row for row in rows if row.get("collective")]
    hosts, blamed = first["hosts"], first["blamed"]
    assert isinstance(hosts, list) and isinstance(blamed, list)  # noqa: PT018
    trial = Trial(
        id=str(first["trial"]),
        round=int(str(first["round"])),
        design=str(first["design"]),
        hosts=tuple(hosts),
        path=str(first["path"]),
        collectives=tuple(dict.fromkeys(str(row["collective"]) for row in measured)),
    )
    transport = first["transport"]
    return TrialResult(
        trial=trial,
        state=str(first["state"]),
        sweeps=tuple(_to_sweep(row) for row in measured),
        is_complete=bool(first["is_complete"]),
        transport=str(transport) if transport is not None else None,
        blamed=tuple(blamed),
        seconds=float(str(first["seconds"])),
        detail=str(first["detail"]),
    )


def _to_sweep(row: Mapping[str, object]) -> Sweep:
    return Sweep(
        collective=str(row["collective"]),
        size_bytes=int(str(row["size_bytes"])),
        ranks=int(str(row["ranks"])),
        iterations=int(str(row["iterations"])),
        busbw_gbps=float(str(row["busbw_gbps"])),
        busbw_worst_gbps=float(str(row["busbw_worst_gbps"])),
        wrong_elements=int(str(row["wrong_elements"])),
    )

"""OpenSLO v1 files as promises: the part of them that a test of minutes can show.

Taken: SLOs over a threshold or a ratio, budgeted by occurrences or time slices, with their indicator inside
or in the same file. Which of our metrics an indicator means cannot be read from a query, so it is said, in
the workload or in the file (``metricSource: {type: overproof, spec: {metric: ttft_ms}}``). What is refused
is refused by line; what is passed over stands in the promise's ``source``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from probes.errors import ConfigError
from probes.metric import METRICS
from probes.promise import GOODPUT, Slo, Window, known_metrics
from probes.spec import Spec, check_spec, find_line, load_documents

OURS = "overproof"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_OTHER_KINDS = ("DataSource", "Service", "AlertPolicy", "AlertCondition", "AlertNotificationTarget")


class _Metadata(Spec):
    name: str
    displayName: str | None = None
    labels: Any = None
    annotations: Any = None


class _Source(Spec):
    metricSourceRef: str | None = None
    type: str | None = None
    spec: Any = None


class _Metric(Spec):
    metricSource: _Source


class _Ratio(Spec):
    counter: bool | None = None
    good: _Metric | None = None
    bad: _Metric | None = None
    total: _Metric | None = None
    rawType: str | None = None
    raw: _Metric | None = None


class _IndicatorSpec(Spec):
    description: str | None = None
    thresholdMetric: _Metric | None = None
    ratioMetric: _Ratio | None = None

    @model_validator(mode="after")
    def _has_one(self) -> _IndicatorSpec:
        if (self.thresholdMetric is None) == (self.ratioMetric is None):
            raise ValueError("give either thresholdMetric or ratioMetric")
        return self


class _Indicator(Spec):
    metadata: _Metadata
    spec: _IndicatorSpec


class _Objective(Spec):
    displayName: str | None = None
    op: Literal["lte", "lt", "gte", "gt"] | None = None
    value: float | None = None
    target: float | None = Field(default=None, gt=0, lt=1)
    targetPercent: float | None = Field(default=None, gt=0, lt=100)
    timeSliceTarget: float | None = Field(default=None, gt=0, le=1)
    timeSliceWindow: float | str | None = None
    indicator: _Indicator | None = None
    indicatorRef: str | None = None
    compositeWeight: float | None = None

    @model_validator(mode="after")
    def _has_target(self) -> _Objective:
        if (self.target is None) == (self.targetPercent is None):
            raise ValueError("give either target or targetPercent")
        return self

    @property
    def share(self) -> float:
        """Return the target as a share."""
        return self.target if self.target is not None else round((self.targetPercent or 0) / 100, 12)


class _SloSpec(Spec):
    description: str | None = None
    service: str | None = None
    indicator: _Indicator | None = None
    indicatorRef: str | None = None
    timeWindow: Any = None
    budgetingMethod: Literal["Occurrences", "Timeslices", "RatioTimeslices"]
    objectives: tuple[_Objective, ...] = Field(min_length=1)
    alertPolicies: Any = None


class _SloDocument(Spec):
    apiVersion: Literal["openslo/v1"]
    kind: Literal["SLO"]
    metadata: _Metadata
    spec: _SloSpec


class _IndicatorDocument(Spec):
    apiVersion: Literal["openslo/v1"]
    kind: Literal["SLI"]
    metadata: _Metadata
    spec: _IndicatorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a part of the file stands, for messages."""

    path: Path
    root: yaml.Node

    def refuse(self, keys: tuple[int | str, ...], wrong: str) -> ConfigError:
        """Return the error for one key."""
        return ConfigError(
            f"{self.path}:{find_line(self.root, keys)}: {'.'.join(str(key) for key in keys)}: {wrong}"
        )


def load_openslo(path: Path, *, metrics: Mapping[str, str], confidence: float) -> tuple[Slo, ...]:
    """Read the promises of an OpenSLO file; ``metrics`` says which of ours each indicator means.

    Raises:
        ConfigError: it is none, or holds what a test cannot show; the message names file, line and key.
    """
    found: list[tuple[_SloDocument, _Place]] = []
    indicators: dict[str, _Indicator] = {}
    for data, root in load_documents(path):
        kind = data.get("kind") if isinstance(data, dict) else None
        if kind == "SLO":
            found.append((check_spec(data, _SloDocument, path=path, root=root), _Place(path=path, root=root)))
        elif kind == "SLI":
            shape = check_spec(data, _IndicatorDocument, path=path, root=root)
            indicators[shape.metadata.name] = _Indicator(metadata=shape.metadata, spec=shape.spec)
        elif kind not in _OTHER_KINDS:
            where = f"{path}:{root.start_mark.line + 1}"
            raise ConfigError(f"{where}: kind: got {kind!r}, wanted SLO or SLI of openslo/v1")
    if not found:
        raise ConfigError(f"{path}: no document of kind SLO is in it")
    return tuple(
        slo
        for document, place in found
        for slo in _promises(document, place, indicators, metrics=metrics, confidence=confidence)
    )


def _promises(
    document: _SloDocument,
    place: _Place,
    indicators: Mapping[str, _Indicator],
    *,
    metrics: Mapping[str, str],
    confidence: float,
) -> list[Slo]:
    spec = document.spec
    if spec.budgetingMethod == "RatioTimeslices":
        raise place.refuse(
            ("spec", "budgetingMethod"), "RatioTimeslices is not supported; Occurrences counts all requests"
        )
    indicator = _indicator(spec, place, indicators)
    promises = []
    for index, objective in enumerate(spec.objectives):
        at = ("spec", "objectives", index)
        for key in ("indicator", "indicatorRef", "compositeWeight"):
            if getattr(objective, key) is not None:
                raise place.refuse(
                    (*at, key), "composite SLOs are not supported; write one SLO for each objective"
                )
        metric, per_unit = _metric(indicator, place, metrics)
        name = document.metadata.name + (f"-{index + 1}" if len(spec.objectives) > 1 else "")
        promises.append(
            Slo(
                name=name,
                metric=metric,
                bound=_bound(objective, metric, per_unit, place, at),
                confidence=confidence,
                objective=_slice_target(objective, place, at)
                if spec.budgetingMethod == "Timeslices"
                else objective.share,
                window=_window(objective, place, at) if spec.budgetingMethod == "Timeslices" else None,
                source=_source(document, place, objective),
            )
        )
    return promises


def _indicator(spec: _SloSpec, place: _Place, indicators: Mapping[str, _Indicator]) -> _Indicator:
    if (spec.indicator is None) == (spec.indicatorRef is None):
        raise place.refuse(
            ("spec",), "give either indicator or indicatorRef; composite SLOs are not supported"
        )
    if spec.indicator is not None:
        return spec.indicator
    if spec.indicatorRef not in indicators:
        raise place.refuse(
            ("spec", "indicatorRef"), f"no SLI named {spec.indicatorRef!r} is in this file; put it there"
        )
    return indicators[str(spec.indicatorRef)]


def _metric(indicator: _Indicator, place: _Place, metrics: Mapping[str, str]) -> tuple[str, float]:
    """Return which of our metrics is meant, and how many of its units one of the file's is."""
    threshold = indicator.spec.thresholdMetric
    source = threshold.metricSource if threshold is not None else None
    if source is not None and source.type == OURS:
        said = source.spec if isinstance(source.spec, dict) else {}
        metric, unit = said.get("metric"), said.get("unit", "ms")
    else:
        metric, _, unit = metrics.get(indicator.metadata.name, "").partition(" in ")
        unit = unit or "ms"
        if not metric and threshold is None:
            metric = GOODPUT  # good over total is what goodput is
    if metric not in METRICS and metric != GOODPUT:
        name = indicator.metadata.name
        raise place.refuse(
            ("spec",),
            f"which metric the indicator {name!r} means is not known (got {metric!r}); say so beside the "
            f"file, metrics: {{{name}: ttft_ms}}, or `ttft_ms in s` where its values are seconds; one of "
            f"{known_metrics()}",
        )
    if (metric == GOODPUT) != (threshold is None):
        raise place.refuse(
            ("spec",), f"{metric} does not fit: a ratioMetric is goodput, a thresholdMetric a time"
        )
    if unit not in ("ms", "s"):
        raise place.refuse(("spec",), f"unit: got {unit!r}, wanted ms or s")
    return str(metric), 1000.0 if unit == "s" else 1.0


def _bound(
    objective: _Objective, metric: str, per_unit: float, place: _Place, at: tuple[int | str, ...]
) -> float | None:
    if metric == GOODPUT:
        return None
    if objective.op in ("gte", "gt"):
        raise place.refuse((*at, "op"), f"got {objective.op!r}; a time is promised from above: lte or lt")
    if objective.value is None:
        raise place.refuse((*at,), "value is missing: the bound of the thresholdMetric")
    return objective.value * per_unit


def _slice_target(objective: _Objective, place: _Place, at: tuple[int | str, ...]) -> float:
    if objective.timeSliceTarget is None or objective.timeSliceTarget >= 1:
        raise place.refuse(
            (*at, "timeSliceTarget"), f"got {objective.timeSliceTarget!r}, wanted a share below 1"
        )
    return objective.timeSliceTarget


def _window(objective: _Objective, place: _Place, at: tuple[int | str, ...]) -> Window:
    said = objective.timeSliceWindow
    if isinstance(said, float):
        return Window(length_s=said * 60, objective=objective.share)  # a bare number is minutes
    match = re.fullmatch(r"([0-9]+)([smhdw])", said or "")
    if match is None:
        raise place.refuse((*at, "timeSliceWindow"), f"got {said!r}, wanted a duration as 30s, 1m or 1h")
    return Window(length_s=int(match[1]) * _SECONDS[match[2]], objective=objective.share)


def _source(document: _SloDocument, place: _Place, objective: _Objective) -> str:
    """Return where a promise comes from, and what of it is passed over."""
    notes = []
    if document.spec.timeWindow:
        notes.append("timeWindow: a run shows whether the share holds, not what is left of a budget of weeks")
    if document.spec.alertPolicies:
        notes.append("alertPolicies")
    if objective.op == "lt":
        notes.append("op lt is taken as lte")
    passed_over = f"; passed over: {'; '.join(notes)}" if notes else ""
    return f"OpenSLO {place.path.name}, {document.metadata.name}{passed_over}"

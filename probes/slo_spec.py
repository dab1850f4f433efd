"""How a promise is written in YAML, the same for load tests and game days.

An entry is a promise of its own, the name of a preset, or an OpenSLO file; the last two stand for several.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from probes.errors import ConfigError
from probes.json_types import JsonObject
from probes.openslo import load_openslo
from probes.promise import GOODPUT, Slo, Window
from probes.spec import Spec, load_yaml

_STATISTIC = r"^p[0-9]{1,2}(\.[0-9]+)?$"
_PRESETS = Path(__file__).with_name("slo_presets.yaml")
CONFIDENCE = 0.95
_LATER = frozenset(("window", "source", "preset", "openslo", "metrics"))
_OF_ITS_OWN = ("metric", "bound", "objective", "statistic", "name", "window", "source")


class WindowSpec(Spec):
    """Stretches of the run, each good or bad as a whole: good where its own share reaches the objective."""

    length_s: Annotated[float, Field(gt=0, le=86_400, description="of one stretch")]
    objective: Annotated[float, Field(gt=0, lt=1, description="share of the stretches that must be good")]

    def to_window(self) -> Window:
        """Return it as the rules take it."""
        return Window(length_s=self.length_s, objective=self.objective)


class SloSpec(Spec):
    """``{metric: ttft_ms, statistic: p95, bound: 500}``, ``{metric: goodput, objective: 0.99}``, a preset."""

    metric: Annotated[str | None, Field(description="ttft_ms, itl_ms, tpot_ms, e2e_ms, …, or goodput")] = None
    bound: Annotated[float | None, Field(gt=0, description="in the metric's unit; goodput takes none")] = None
    objective: Annotated[float | None, Field(gt=0, lt=1, description="share that keeps the bound")] = None
    statistic: Annotated[str | None, Field(pattern=_STATISTIC, description="p95 is objective 0.95")] = None
    window: Annotated[
        WindowSpec | None, Field(description="judge stretch by stretch, not all requests together")
    ] = None
    confidence: Annotated[float, Field(ge=0.5, lt=1, description="of PASS and of FAIL, each")] = CONFIDENCE
    name: Annotated[str | None, Field(min_length=1, description="shown in the report")] = None
    source: Annotated[str | None, Field(description="where it comes from; shown in the report")] = None
    preset: Annotated[str | None, Field(description="limits of others by name, instead of a metric")] = None
    openslo: Annotated[str | None, Field(description="an OpenSLO v1 file, instead of a metric")] = None
    metrics: Annotated[
        dict[str, str] | None, Field(description="what the OpenSLO file's indicators are: `ttft_ms in s`")
    ] = None

    @model_serializer(mode="wrap")
    def _leave_out_unsaid(self, write: SerializerFunctionWrapHandler) -> JsonObject:
        """Leave out keys that came later and are not given, so that promises equal those of earlier runs."""
        written: JsonObject = write(self)
        return {key: value for key, value in written.items() if value is not None or key not in _LATER}

    @model_validator(mode="after")
    def _is_a_promise(self) -> SloSpec:
        given = [key for key in ("metric", "preset", "openslo") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError("give a metric, a preset or an openslo file, and one of them only")
        if self.metrics is not None and self.openslo is None:
            raise ValueError("metrics goes with openslo")
        if self.metric is not None:
            self._check_own()
            return self
        extra = next((key for key in _OF_ITS_OWN if getattr(self, key) is not None), None)
        if extra is not None:
            raise ValueError(f"{extra} does not go with {given[0]}, which brings its own")
        if self.preset is not None and self.preset not in load_presets():
            raise ValueError(f"preset {self.preset!r} is unknown; one of {', '.join(load_presets())}")
        return self

    def _check_own(self) -> None:
        if (self.objective is None) == (self.statistic is None):
            raise ValueError("give either objective: 0.95 or statistic: p95")
        if self.statistic is not None and not 0 < float(self.statistic[1:]) < 100:
            raise ValueError(f"statistic must lie between p0 and p100, got {self.statistic!r}")
        try:
            self.to_slo()
        except ConfigError as error:  # the same check serves callers that have no file
            raise ValueError(str(error)) from error

    def to_slo(self) -> Slo:
        """Return the promise as the rules take it; of an entry that is one itself."""
        assert self.metric is not None, "presets and files are expanded first"
        objective = self.objective
        if objective is None:
            assert self.statistic is not None
            objective = round(float(self.statistic[1:]) / 100, 12)
        return Slo(
            name=self.name or self._default_name(objective),
            metric=self.metric,
            objective=objective,
            bound=self.bound,
            confidence=self.confidence,
            window=None if self.window is None else self.window.to_window(),
            source=self.source or "",
        )

    def _default_name(self, objective: float) -> str:
        name = GOODPUT if self.metric == GOODPUT else f"{self.metric}_p{objective * 100:g}"
        return name if self.window is None else f"{name}_per_{self.window.length_s:g}s"


class PresetSpec(Spec):
    """Limits of others, with where they come from."""

    source: str = Field(min_length=10)
    slos: tuple[SloSpec, ...] = Field(min_length=1)


@cache
def load_presets() -> dict[str, PresetSpec]:
    """Return every preset by its name."""
    data = load_yaml(_PRESETS)
    assert isinstance(data, dict)
    return {name: PresetSpec.model_validate(entry) for name, entry in data.items()}


def expand(specs: tuple[SloSpec, ...], *, folder: Path) -> tuple[SloSpec, ...]:
    """Return the promises themselves in place of presets and files, which are looked for in ``folder``.

    Raises:
        ConfigError: a file cannot be read, or holds what a test cannot show.
    """
    return tuple(promise for spec in specs for promise in _expand(spec, folder))


def _expand(spec: SloSpec, folder: Path) -> list[SloSpec]:
    if spec.preset is not None:
        preset = load_presets()[spec.preset]
        said = {"confidence": spec.confidence, "source": f"preset {spec.preset}: {preset.source}"}
        return [promise.model_copy(update=said) for promise in preset.slos]
    if spec.openslo is None:
        return [spec]
    path = folder / Path(spec.openslo).expanduser()
    slos = load_openslo(path, metrics=spec.metrics or {}, confidence=spec.confidence)
    return [_as_spec(slo) for slo in slos]


def _as_spec(slo: Slo) -> SloSpec:
    window = slo.window
    return SloSpec(
        metric=slo.metric,
        bound=slo.bound,
        objective=slo.objective,
        confidence=slo.confidence,
        name=slo.name,
        source=slo.source or None,
        window=None if window is None else WindowSpec(length_s=window.length_s, objective=window.objective),
    )


def to_slos(specs: tuple[SloSpec, ...]) -> tuple[Slo, ...]:
    """Return the promises of a file, whose OpenSLO files are expanded.

    Raises:
        ValueError: two have the same name, so that their findings could not be told apart.
    """
    file = next((spec.openslo for spec in specs if spec.openslo is not None), None)
    if file is not None:
        raise ValueError(f"openslo: {file} cannot be read here; write its promises out")
    slos = tuple(spec.to_slo() for spec in expand(specs, folder=Path()))
    names = [slo.name for slo in slos]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two SLOs are named {twice!r}; give each a name of its own")
    return slos


def known_slos(specs: tuple[SloSpec, ...]) -> tuple[Slo, ...] | None:
    """Return the promises; None: of some it is known only once their files are expanded."""
    return to_slos(specs) if all(spec.openslo is None for spec in specs) else None

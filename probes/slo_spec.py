"""How a promise is written in YAML, the same for load tests and game days."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from probes.errors import ConfigError
from probes.slo import GOODPUT, Slo
from probes.spec import Spec

_STATISTIC = r"^p[0-9]{1,2}(\.[0-9]+)?$"


class SloSpec(Spec):
    """``{metric: ttft_ms, statistic: p95, bound: 500}`` or ``{metric: goodput, objective: 0.99}``."""

    metric: Annotated[str, Field(description="ttft_ms, itl_ms, tpot_ms, e2e_ms, …, or goodput")]
    bound: Annotated[float | None, Field(gt=0, description="in the metric's unit; goodput takes none")] = None
    objective: Annotated[float | None, Field(gt=0, lt=1, description="share that keeps the bound")] = None
    statistic: Annotated[str | None, Field(pattern=_STATISTIC, description="p95 is objective 0.95")] = None
    confidence: Annotated[float, Field(ge=0.5, lt=1, description="of PASS and of FAIL, each")] = 0.95
    name: Annotated[str | None, Field(min_length=1, description="shown in the report")] = None

    @model_validator(mode="after")
    def _is_a_promise(self) -> SloSpec:
        if (self.objective is None) == (self.statistic is None):
            raise ValueError("give either objective: 0.95 or statistic: p95")
        if self.statistic is not None and not 0 < float(self.statistic[1:]) < 100:
            raise ValueError(f"statistic must lie between p0 and p100, got {self.statistic!r}")
        try:
            self.to_slo()
        except ConfigError as error:  # the same check serves callers that have no file
            raise ValueError(str(error)) from error
        return self

    def to_slo(self) -> Slo:
        """Return the promise as the rules take it."""
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
        )

    def _default_name(self, objective: float) -> str:
        return GOODPUT if self.metric == GOODPUT else f"{self.metric}_p{objective * 100:g}"


def to_slos(specs: tuple[SloSpec, ...]) -> tuple[Slo, ...]:
    """Return the promises of a file.

    Raises:
        ValueError: two have the same name, so that their findings could not be told apart.
    """
    slos = tuple(spec.to_slo() for spec in specs)
    names = [slo.name for slo in slos]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two SLOs are named {twice!r}; give each a name of its own")
    return slos

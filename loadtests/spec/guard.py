"""What a workload file may say about guards: when to stop, and what may be spent."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from loadtests.sending.spending import Budget, Prices
from probes.spec import Spec


class PricesSpec(Spec):
    """What a million tokens cost; the budget is in the same currency."""

    input: Annotated[float, Field(ge=0, description="a million tokens of prompts")]
    output: Annotated[float, Field(ge=0, description="a million tokens of answers")]


class ErrorStormSpec(Spec):
    """Stop where so many of the latest requests failed by the server's doing."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    of_last: Annotated[int, Field(ge=10, le=100_000, description="requests that have ended")] = 100


class GuardsSpec(Spec):
    """What ends a run early. Nothing more is sent then; what is under way comes to its end."""

    tokens_max: Annotated[
        int | None, Field(ge=1, description="of prompts and answers together, of the whole run")
    ] = None
    money_max: Annotated[float | None, Field(gt=0, description="needs price_per_million_tokens")] = None
    price_per_million_tokens: PricesSpec | None = None
    seconds_max: Annotated[
        float | None, Field(gt=0, description="of the load with its last answers; the rest is abandoned")
    ] = None
    error_storm: ErrorStormSpec | None = None
    runaways_max: Annotated[
        int | None, Field(ge=0, description="answers that go on beyond their limit, or in circles")
    ] = None
    repeats_share: Annotated[
        float, Field(ge=0, le=1, description="of long answers, looked at for saying the same over and over")
    ] = 0.0
    slos: Annotated[
        tuple[str, ...], Field(description="names of SLOs whose certain breach ends the run")
    ] = ()

    @model_validator(mode="after")
    def _has_prices(self) -> GuardsSpec:
        if self.money_max is not None and self.price_per_million_tokens is None:
            raise ValueError("money_max needs price_per_million_tokens")
        return self

    @property
    def is_any(self) -> bool:
        """Whether anything may end the run early."""
        return self != GuardsSpec(
            price_per_million_tokens=self.price_per_million_tokens, repeats_share=self.repeats_share
        )

    def to_budget(self) -> Budget:
        """Return what may be spent."""
        prices = self.price_per_million_tokens
        return Budget(
            tokens=self.tokens_max,
            money=self.money_max,
            prices=None if prices is None else Prices(sent=prices.input, received=prices.output),
        )

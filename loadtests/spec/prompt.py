"""What a workload file may say about prompts: sizes, shared prefixes, files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from loadtests.traffic.prompts import Pair, PromptClass, SharedPrefix, Size
from probes.spec import Spec

_Tokens = Annotated[int, Field(ge=1, le=10_000_000)]


class ConstantSize(Spec):
    """Every request has this many tokens."""

    kind: Literal["constant"] = "constant"
    value: _Tokens

    def to_size(self) -> Size:
        """Return it as the rest of the code takes it."""
        return Size(kind="constant", mean=self.value, stddev=0.0, least=self.value, most=self.value)


class SpreadSize(Spec):
    """Token counts drawn from a distribution, kept between ``min`` and ``max``."""

    kind: Literal["normal", "lognormal"]
    mean: Annotated[
        float, Field(ge=1, le=10_000_000, description="of the tokens themselves, also for lognormal")
    ]
    stddev: Annotated[float, Field(ge=0, le=10_000_000)]
    min: Annotated[int, Field(ge=1)] = 1
    max: _Tokens = 1_000_000

    @model_validator(mode="after")
    def _is_ordered(self) -> SpreadSize:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    def to_size(self) -> Size:
        """Return it as the rest of the code takes it."""
        return Size(kind=self.kind, mean=self.mean, stddev=self.stddev, least=self.min, most=self.max)


SizeSpec = Annotated[ConstantSize | SpreadSize, Field(discriminator="kind")]


class PairSpec(Spec):
    """An observed request: how long its prompt was and how long its answer."""

    input_tokens: _Tokens
    output_tokens: _Tokens
    weight: Annotated[float, Field(gt=0, le=1e9, description="how often, beside the others")] = 1.0


class SharedPrefixSpec(Spec):
    """The same beginning for many prompts, such as a system prompt or a retrieved document."""

    share: Annotated[float, Field(gt=0, le=1, description="of the requests that begin with one")] = 1.0
    tokens: Annotated[int, Field(ge=1, le=1_000_000, description="its length, on top of input_tokens")]
    count: Annotated[int, Field(ge=1, le=100_000, description="how many different ones there are")] = 1


class PromptSpec(Spec):
    """How big the prompts are and how long the answers may get."""

    input_tokens: SizeSpec = ConstantSize(value=128)
    output_tokens: SizeSpec = ConstantSize(value=64)
    pairs: Annotated[
        tuple[PairSpec, ...],
        Field(max_length=100_000, description="observed sizes, drawn instead of the two above"),
    ] = ()
    pairs_file: Annotated[
        str | None, Field(description="the same as JSON lines, relative to the workload's folder")
    ] = None
    shared_prefix: SharedPrefixSpec | None = None
    defeat_prefix_cache: Annotated[
        bool, Field(description="begin every prompt, after its shared prefix, like no other before")
    ] = True
    file: Annotated[str | None, Field(description="JSON lines with prompt or messages; sent as they are")] = (
        None
    )
    order: Annotated[Literal["cycled", "sampled"], Field(description="how lines of file are taken")] = (
        "cycled"
    )

    @model_validator(mode="after")
    def _has_one_source(self) -> PromptSpec:
        given = [name for name in ("pairs", "pairs_file", "file") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"give one of {' and '.join(given)}")
        if self.file is not None and self.shared_prefix is not None:
            raise ValueError("prompts of a file are sent as they are; shared_prefix does not go with file")
        return self

    def to_class(self, *, weight: float = 1.0) -> PromptClass:
        """Return it as the rest of the code takes it."""
        prefix = self.shared_prefix
        return PromptClass(
            weight=weight,
            input_tokens=self.input_tokens.to_size(),
            output_tokens=self.output_tokens.to_size(),
            pairs=tuple(
                Pair(input_tokens=p.input_tokens, output_tokens=p.output_tokens, weight=p.weight)
                for p in self.pairs
            ),
            pairs_file=None if self.pairs_file is None else Path(self.pairs_file),
            prefix=None
            if prefix is None
            else SharedPrefix(share=prefix.share, tokens=prefix.tokens, count=prefix.count),
            defeats_prefix_cache=self.defeat_prefix_cache,
            file=None if self.file is None else Path(self.file),
            is_sampled=self.order == "sampled",
        )


class PromptClassSpec(Spec):
    """One kind of request among several."""

    weight: Annotated[float, Field(gt=0, le=1e9, description="how often, beside the other classes")]
    prompt: PromptSpec

"""What a healthy GPU of a model delivers, as data with its source: ``burnin/expectations/*.yaml``.

A user's file of the same form goes on top, figure by figure. A model that no file knows is not judged by
figures at all, only against its siblings, and the verdict says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from probes.spec import Spec, load_spec

FOLDER = Path(__file__).with_name("expectations")


class FigureSpec(Spec):
    """One figure and the key of its source."""

    value: PositiveFloat
    source: str


class MatmulSpec(Spec):
    """Dense TFLOPS in one number format."""

    peak: PositiveFloat
    peak_source: str
    typical: PositiveFloat | None = Field(
        default=None, description="What a good shape reaches; no floor without."
    )
    typical_source: str | None = None

    @model_validator(mode="after")
    def _typical_has_a_source(self) -> MatmulSpec:
        if (self.typical is None) != (self.typical_source is None):
            raise ValueError("typical and typical_source belong together")
        if self.typical is not None and self.typical > self.peak:
            raise ValueError(f"typical lies above the peak of {self.peak:g}")
        return self


class AllreduceSpec(Spec):
    """A floor of bus bandwidth, which means nothing without size, algorithm and number of GPUs."""

    gpus: PositiveInt
    message_bytes: PositiveInt
    algorithm: str = Field(description="As NCCL names it, or any.")
    min: PositiveFloat
    source: str
    note: str = ""


class ExpectationSpec(Spec):
    """One model of GPU."""

    model: str
    match: list[str] = Field(min_length=1, description="Names that NVML gives it, whole.")
    memory_gb: FigureSpec | None = None
    power_limit_w: FigureSpec | None = None
    sm_clock_mhz_max: FigureSpec | None = None
    pcie_generation: FigureSpec | None = None
    pcie_width: FigureSpec | None = None
    nvlinks: FigureSpec | None = None
    nvlink_gbps_per_link: FigureSpec | None = None
    hbm_tbps_peak: FigureSpec | None = None
    hbm_tbps_typical: FigureSpec | None = None
    host_to_device_gbps_min: FigureSpec | None = None
    peer_read_gbps_min: FigureSpec | None = None
    matmul_tflops: dict[str, MatmulSpec] = Field(default_factory=dict)
    allreduce_busbw_gbps: list[AllreduceSpec] = Field(default_factory=list)
    sources: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sources_are_told(self) -> ExpectationSpec:
        unknown = sorted(self._used_sources() - set(self.sources))
        if unknown:
            raise ValueError(
                f"source {unknown[0]!r} is not among sources: {', '.join(self.sources) or 'none'}"
            )
        return self

    def _used_sources(self) -> set[str]:
        figures = [value for _, value in self if isinstance(value, FigureSpec)]
        matmul = [s for m in self.matmul_tflops.values() for s in (m.peak_source, m.typical_source) if s]
        return {f.source for f in figures} | set(matmul) | {a.source for a in self.allreduce_busbw_gbps}

    def to_expectation(self) -> Expectation:
        """Return what the rules work with."""
        return Expectation(
            model=self.model,
            figures={
                name: _figure(value, self.sources) for name, value in self if isinstance(value, FigureSpec)
            },
            tflops_typical={
                name: Figure(value=m.typical, source=self.sources[m.typical_source])
                for name, m in self.matmul_tflops.items()
                if m.typical is not None and m.typical_source is not None
            },
            allreduce_floors=tuple(
                AllreduceFloor(
                    gpus=a.gpus,
                    message_bytes=a.message_bytes,
                    algorithm=a.algorithm,
                    busbw_gbps_min=a.min,
                    source=self.sources[a.source],
                )
                for a in self.allreduce_busbw_gbps
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure and where it comes from, in words."""

    value: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AllreduceFloor:
    """The bus bandwidth that an all-reduce of this size among so many GPUs must reach."""

    gpus: int
    message_bytes: int
    algorithm: str  # as NCCL names it, or "any"
    busbw_gbps_min: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a healthy GPU of one model delivers."""

    model: str
    figures: dict[str, Figure]
    tflops_typical: dict[str, Figure]  # by number format; what is not here has no floor
    allreduce_floors: tuple[AllreduceFloor, ...]


def _figure(spec: FigureSpec, sources: dict[str, str]) -> Figure:
    return Figure(value=spec.value, source=sources[spec.source])


@cache
def shipped_expectations() -> tuple[ExpectationSpec, ...]:
    """Return what comes with overproof."""
    return tuple(load_spec(path, ExpectationSpec) for path in sorted(FOLDER.glob("*.yaml")))


def expectation_for(name: str, overrides: Sequence[ExpectationSpec] = ()) -> Expectation | None:
    """Return what a GPU with this NVML name should deliver; None: nobody has said.

    An override replaces the figures that it states; those that it leaves out stay as they are shipped.
    """
    shipped = next((spec for spec in shipped_expectations() if name in spec.match), None)
    own = [spec for spec in overrides if name in spec.match]
    merged = shipped
    for spec in own:
        merged = spec if merged is None else _put_on_top(merged, spec)
    return merged.to_expectation() if merged is not None else None


def _put_on_top(below: ExpectationSpec, above: ExpectationSpec) -> ExpectationSpec:
    stated = {name: getattr(above, name) for name in above.model_fields_set}
    # Two files may use one key for two sources: each side keeps its own.
    renamed = {f"{key} (override)": text for key, text in above.sources.items()}
    stated = {name: _rename_sources(value) for name, value in stated.items()}
    stated["sources"] = below.sources | renamed
    if "matmul_tflops" in stated:
        stated["matmul_tflops"] = below.matmul_tflops | stated["matmul_tflops"]
    return below.model_copy(update=stated)


def _rename_sources(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rename_sources(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rename_sources(item) for item in value]
    if isinstance(value, Spec):
        names = [name for name in type(value).model_fields if name.endswith("source")]
        update = {name: f"{getattr(value, name)} (override)" for name in names if getattr(value, name)}
        return value.model_copy(update=update)
    return value

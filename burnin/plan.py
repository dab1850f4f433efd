"""Plan files and profiles: which stages run, for how long, and what is left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, model_validator

from burnin.node.order import LOADED_STAGES, STAGE_ORDER, STAGES, Order, SeededFault, StageOrder
from burnin.node.vendor_tools import COLLECTIVE_WITHIN_S, COLLECTIVES, DIAG_WITHIN_S, DISCOVERY_WITHIN_S
from burnin.training_spec import TrainingSpec
from probes.spec import Spec

DeviceKind = Literal["auto", "cuda", "cpu"]
FormatName = Literal["fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8"]
ProfileName = Literal["gate", "quick", "intake", "soak"]
StageName = Literal[
    "preflight", "memory", "matmul", "bandwidth", "links", "allreduce", "power", "vendor", "aftermath"
]
AlgorithmName = Literal["auto", "Ring", "Tree", "NVLS"]
PhaseName = Literal["alone", "together"]
STALL_S = 10.0  # a product takes milliseconds, a collective seconds: ten of silence is no hiccup
LOAD_S_MIN = 4.0
CYCLE_S = 3600.0  # what fails after hours of heat fails in a later cycle, whichever stage would have seen it
CYCLES_MAX = 1000
ALL_FORMATS = ("fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8")
ALL_PHASES = ("alone", "together")
# Of the load time that no stage claims for itself. The two that load most have the most.
SHARES = {"memory": 0.12, "matmul": 0.36, "bandwidth": 0.08, "links": 0.08, "allreduce": 0.12, "power": 0.24}
# Over days it is the power that finds what the half hour of an intake did not.
SOAK_SHARES = {
    "memory": 0.15,
    "matmul": 0.2,
    "bandwidth": 0.02,
    "links": 0.03,
    "allreduce": 0.1,
    "power": 0.5,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Lengths, number formats and depth that go together."""

    load_s: float  # seconds of load; start and end come on top
    cycle_s: float | None = None  # after which the stages begin anew; None: each runs once
    formats: tuple[str, ...] = ALL_FORMATS  # those that the device does not have are left out, and said so
    left_out: tuple[str, ...] = ()
    shares: dict[str, float] = field(default_factory=lambda: SHARES)
    link_phases: tuple[str, ...] = ALL_PHASES
    algorithms: tuple[str, ...] = ("auto", "Ring", "Tree", "NVLS")  # of all-reduce
    dcgm_level: int = 3  # where the vendor's tools are asked for
    nccl_bytes_max: int = 1 << 34


PROFILES: dict[str, Profile] = {
    # A minute in all, for prolog and init container.
    "gate": Profile(
        load_s=45.0,
        formats=("fp32", "bf16"),
        left_out=("memory", "bandwidth"),
        link_phases=("together",),
        algorithms=("auto",),
        dcgm_level=1,
        nccl_bytes_max=1 << 28,
    ),
    "quick": Profile(  # two minutes
        load_s=100.0, link_phases=("together",), algorithms=("auto",), dcgm_level=2, nccl_bytes_max=1 << 30
    ),
    "intake": Profile(load_s=1740.0),  # half an hour
    "soak": Profile(
        load_s=24 * 3600.0, cycle_s=CYCLE_S, shares=SOAK_SHARES, dcgm_level=4
    ),  # duration_s makes it 72 hours
}


class StageSpec(Spec):
    """What a plan file may say about any stage."""

    length_s: float | None = Field(default=None, ge=1, description="Seconds of load.")


class MemorySpec(StageSpec):
    """What a plan file may say about the memory stage."""

    bytes_max: int | None = Field(
        default=None, ge=1 << 24, description="Bytes to test on each device, instead of nearly all."
    )


class MatmulSpec(StageSpec):
    """What a plan file may say about the matmul stage."""

    formats: list[FormatName] | None = Field(
        default=None, min_length=1, description="Number formats to check."
    )


class LinksSpec(StageSpec):
    """What a plan file may say about the links stage."""

    phases: list[PhaseName] | None = Field(
        default=None,
        min_length=1,
        description="alone: pair by pair; together: all pairs, in disjoint rounds.",
    )


class AllreduceSpec(StageSpec):
    """What a plan file may say about the all-reduce stage."""

    algorithms: list[AlgorithmName] | None = Field(
        default=None, min_length=1, description="NCCL's algorithms, each in a group of its own."
    )
    sizes_bytes: list[int] | None = Field(default=None, min_length=1, description="Message sizes, in bytes.")

    @model_validator(mode="after")
    def _sizes_hold_elements(self) -> AllreduceSpec:
        if any(size < 8 or size % 4 for size in self.sizes_bytes or ()):
            raise ValueError("sizes_bytes: each size must be a multiple of 4 and at least 8")
        return self


class VendorSpec(Spec):
    """What a plan file may say about the vendor's own tools; that it says anything asks for them."""

    dcgm_level: int | None = Field(
        default=None, ge=0, le=4, description="Level of dcgmi diag, instead of the profile's; 0: not at all."
    )
    dcgm_within_s: float | None = Field(
        default=None, ge=1, description="Seconds after which dcgmi diag is ended."
    )
    nccl_bytes_max: int | None = Field(
        default=None, ge=0, description="Largest message of nccl-tests, in bytes; 0: none of them."
    )
    nccl_within_s: float | None = Field(
        default=None, ge=1, description="Seconds after which one of nccl-tests is ended."
    )


class DiskSpec(Spec):
    """What a plan file may say about disks and shared file systems; ``fio`` measures them where it is."""

    directories: list[str] = Field(
        default_factory=list,
        description="Folders on the file systems to measure; none: that of temporary files.",
    )
    size_bytes: int = Field(
        default=1 << 28,
        ge=1 << 20,
        le=1 << 36,
        description="Bytes to write and read; at most a tenth of what is free.",
    )
    write_mbps_min: float | None = Field(
        default=None, gt=0, description="MB/s that writing must reach; without it the figure is only shown."
    )
    read_mbps_min: float | None = Field(
        default=None, gt=0, description="MB/s that reading must reach; without it the figure is only shown."
    )


class PlanSpec(Spec):
    """A plan file: what differs from the profile."""

    profile: ProfileName = Field(default="quick", description="Where everything that is not said comes from.")
    duration_s: float | None = Field(
        default=None, ge=LOAD_S_MIN, description="Seconds of load in all stages."
    )
    cycle_s: float | None = Field(
        default=None,
        ge=1,
        description="Seconds of load after which the stages begin anew, until the load is over.",
    )
    device: DeviceKind = "auto"
    only: list[StageName] = Field(
        default_factory=list,
        description="Stages to run; the others are left out, but not the first and last.",
    )
    leave_out: list[StageName] = Field(default_factory=list, description="Stages not to run.")
    memory: MemorySpec = MemorySpec()
    matmul: MatmulSpec = MatmulSpec()
    bandwidth: StageSpec = StageSpec()
    links: LinksSpec = LinksSpec()
    allreduce: AllreduceSpec = AllreduceSpec()
    power: StageSpec = StageSpec()
    vendor: VendorSpec | None = Field(
        default=None, description="Run dcgmi and nccl-tests as well, where they are installed."
    )
    disk: DiskSpec | None = Field(
        default=None, description="Measure disks and shared file systems; intake and soak do so anyway."
    )
    training: TrainingSpec | None = Field(
        default=None, description="Have the hosts of a fleet train together, as --train does."
    )
    bundle: bool = Field(
        default=False, description="After a FAIL collect what the vendor asks for, beside the record."
    )
    cpu_devices: int = Field(
        default=2,
        ge=1,
        le=8,
        description="Devices that the cores are split into where they stand in for GPUs.",
    )
    stall_s: float = Field(
        default=STALL_S, ge=2, description="Seconds without a step after which a worker has stalled."
    )
    gpus_expected: int | None = Field(default=None, ge=1, description="GPUs that this node must have.")

    def to_order(self, *, seed: int, seeded_faults: tuple[SeededFault, ...] = ()) -> Order:
        """Return what the agent is to do."""
        lengths, left_out, cycles = self._lengths(), self._left_out(), self._cycles()
        lengths |= {name: lengths[name] / cycles for name in LOADED_STAGES if name in lengths}
        options = self._options()
        return Order(
            device=self.device,
            stages=tuple(
                StageOrder(name=name, length_s=lengths.get(name, 0.0), options=options.get(name, {}))
                for name in STAGE_ORDER
                if name not in left_out and (name in STAGES or self._wants_vendor())
            ),
            left_out=left_out,
            seed=seed,
            stall_s=self.stall_s,
            gpus_expected=self.gpus_expected,
            cpu_devices=self.cpu_devices,
            seeded_faults=seeded_faults,
            cycles=cycles,
        )

    def _options(self) -> dict[str, dict[str, object]]:
        profile = PROFILES[self.profile]
        return {
            "preflight": {"host_load_s": self._host_load_s(), "disk": self._disk()},
            "memory": {"bytes_max": self.memory.bytes_max},
            "matmul": {"formats": list(self.matmul.formats or profile.formats)},
            "links": {"phases": list(self.links.phases or profile.link_phases)},
            "allreduce": {
                "sizes_bytes": list(self.allreduce.sizes_bytes or ()),
                "algorithms": list(self.allreduce.algorithms or profile.algorithms),
            },
            "vendor": self._vendor_options(),
        }

    def _host_load_s(self) -> float:
        """Return for how long each core is loaded by itself: a fiftieth of the load, at most five seconds."""
        load_s = sum(length for name, length in self._lengths().items() if name in LOADED_STAGES)
        return round(min(max(load_s / 50, 0.1), 5.0), 2)

    def _disk(self) -> dict[str, object] | None:
        disk = self.disk or (DiskSpec() if self.profile in ("intake", "soak") else None)
        return None if disk is None else disk.model_dump()

    def _wants_vendor(self) -> bool:
        return self.vendor is not None or "vendor" in self.only

    def _vendor_options(self) -> dict[str, object]:
        profile, spec = PROFILES[self.profile], self.vendor or VendorSpec()
        level = profile.dcgm_level if spec.dcgm_level is None else spec.dcgm_level
        largest = profile.nccl_bytes_max if spec.nccl_bytes_max is None else spec.nccl_bytes_max
        return {
            "dcgm_level": level,
            "dcgm_within_s": spec.dcgm_within_s or DIAG_WITHIN_S.get(level, 0.0),
            "nccl_bytes_max": largest,
            "nccl_within_s": spec.nccl_within_s or COLLECTIVE_WITHIN_S,
        }

    def _vendor_s(self) -> float:
        """Return what the tools may take at most, one after the other."""
        options = self._vendor_options()
        collectives_s = len(COLLECTIVES) * float(str(options["nccl_within_s"]))
        return DISCOVERY_WITHIN_S + float(str(options["dcgm_within_s"])) + collectives_s

    def _stated(self) -> dict[str, float]:
        """Return the lengths that the plan states itself."""
        specs: dict[str, StageSpec] = {
            "memory": self.memory,
            "matmul": self.matmul,
            "bandwidth": self.bandwidth,
            "links": self.links,
            "allreduce": self.allreduce,
            "power": self.power,
        }
        return {name: spec.length_s for name, spec in specs.items() if spec.length_s is not None}

    def _left_out(self) -> tuple[str, ...]:
        """What the plan leaves out; and what the profile does, unless the plan asks for it."""
        asked = {*self.only, *self._stated()}
        left_out = {name for name in PROFILES[self.profile].left_out if name not in asked} | {*self.leave_out}
        if self.only:
            left_out |= {name for name in LOADED_STAGES if name not in self.only}
        return tuple(name for name in STAGE_ORDER if name in left_out)

    def _cycles(self) -> int:
        """Return how often the loaded stages are run: in cycles of about the length that was asked for."""
        cycle_s = self.cycle_s or PROFILES[self.profile].cycle_s
        load_s = sum(length for name, length in self._lengths().items() if name in LOADED_STAGES)
        return min(max(round(load_s / cycle_s), 1), CYCLES_MAX) if cycle_s else 1

    def _lengths(self) -> dict[str, float]:
        """Share the load time out; a stage that states its own length has it on top of nothing else."""
        profile, left_out = PROFILES[self.profile], self._left_out()
        stated = {name: length for name, length in self._stated().items() if name not in left_out}
        load_s = self.duration_s or profile.load_s
        open_ = {n: s for n, s in profile.shares.items() if n not in stated and n not in left_out}
        left_s = max(load_s - sum(stated.values()), LOAD_S_MIN)
        stated["vendor"] = self._vendor_s()  # an upper bound; the load time of the others is theirs
        return stated | {name: left_s * share / sum(open_.values()) for name, share in open_.items()}

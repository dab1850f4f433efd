"""Plan files and profiles: which stages run, for how long, and what is left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from burnin.order import STAGES, Order, SeededFault, StageOrder
from probes.spec import Spec

DeviceKind = Literal["auto", "cuda", "cpu"]
FormatName = Literal["fp64", "fp32", "tf32", "bf16", "fp16", "int8"]
ProfileName = Literal["gate", "quick"]
StageName = Literal["preflight", "matmul", "allreduce", "aftermath"]
STALL_S = 10.0  # a product takes milliseconds, a collective seconds: ten of silence is no hiccup
LOAD_S_MIN = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A length and a choice of number formats that go together."""

    load_s: float  # seconds of load; start and end come on top
    formats: tuple[str, ...]  # those that the device does not have are left out, and said so


PROFILES: dict[str, Profile] = {
    "gate": Profile(load_s=45.0, formats=("fp32", "bf16")),  # a minute in all: prolog, init container
    "quick": Profile(load_s=100.0, formats=("fp64", "fp32", "tf32", "bf16", "fp16", "int8")),  # two minutes
}
MATMUL_SHARE = 0.7  # of the load time that no stage claims for itself


class MatmulSpec(Spec):
    """What a plan file may say about the matmul stage."""

    length_s: float | None = Field(default=None, ge=2, description="Seconds of load.")
    formats: list[FormatName] | None = Field(
        default=None, min_length=1, description="Number formats to check."
    )


class AllreduceSpec(Spec):
    """What a plan file may say about the all-reduce stage."""

    length_s: float | None = Field(default=None, ge=1, description="Seconds of load.")
    sizes_bytes: list[int] | None = Field(default=None, min_length=1, description="Message sizes, in bytes.")

    @model_validator(mode="after")
    def _sizes_hold_elements(self) -> AllreduceSpec:
        if any(size < 8 or size % 4 for size in self.sizes_bytes or ()):
            raise ValueError("sizes_bytes: each size must be a multiple of 4 and at least 8")
        return self


class PlanSpec(Spec):
    """A plan file: what differs from the profile."""

    profile: ProfileName = Field(default="quick", description="Where everything that is not said comes from.")
    duration_s: float | None = Field(
        default=None, ge=LOAD_S_MIN, description="Seconds of load in all stages."
    )
    device: DeviceKind = "auto"
    leave_out: list[StageName] = Field(default_factory=list, description="Stages not to run.")
    matmul: MatmulSpec = MatmulSpec()
    allreduce: AllreduceSpec = AllreduceSpec()
    stall_s: float = Field(
        default=STALL_S, ge=2, description="Seconds without a step after which a worker has stalled."
    )
    gpus_expected: int | None = Field(default=None, ge=1, description="GPUs that this node must have.")

    def to_order(self, *, seed: int, seeded_faults: tuple[SeededFault, ...] = ()) -> Order:
        """Return what the agent is to do."""
        lengths = self._lengths()
        profile = PROFILES[self.profile]
        options: dict[str, dict[str, object]] = {
            "matmul": {"formats": list(self.matmul.formats or profile.formats)},
            "allreduce": {"sizes_bytes": list(self.allreduce.sizes_bytes or ())},
        }
        return Order(
            device=self.device,
            stages=tuple(
                StageOrder(name=name, length_s=lengths.get(name, 0.0), options=options.get(name, {}))
                for name in STAGES
                if name not in self.leave_out
            ),
            left_out=tuple(name for name in STAGES if name in self.leave_out),
            seed=seed,
            stall_s=self.stall_s,
            gpus_expected=self.gpus_expected,
            seeded_faults=seeded_faults,
        )

    def _lengths(self) -> dict[str, float]:
        """Share the load time out; a stage that states its own length has it on top of nothing else."""
        load_s = self.duration_s or PROFILES[self.profile].load_s
        own = {"matmul": self.matmul.length_s, "allreduce": self.allreduce.length_s}
        stated_s = sum(length for name, length in own.items() if length and name not in self.leave_out)
        shares = {"matmul": MATMUL_SHARE, "allreduce": 1 - MATMUL_SHARE}
        open_ = {
            name: share for name, share in shares.items() if not own[name] and name not in self.leave_out
        }
        left_s = max(load_s - stated_s, LOAD_S_MIN)
        return {
            name: own[name] or left_s * shares[name] / (sum(open_.values()) or 1.0)
            for name in shares
            if name not in self.leave_out
        }

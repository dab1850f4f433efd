"""A small transformer, trained by every rank: alone on the same data, then together, twice over.

Alone, all ranks compute the same numbers, so that each is the reference of the others. Together, the second
time must repeat the first bit for bit where every operation is deterministic, which is said.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import time
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from burnin.node.exchange import Place
from burnin.node.pace import Pace
from burnin.node.product import flip_bit
from burnin.node.speaker import Speaker
from burnin.node.trial_order import TrialOrder

ALONE, FIRST, SECOND = "alone", "together", "together again"
STEPS = 6
FAULT_AT = 2
SLOW_S = 0.3
LEARNING_RATE = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large the model and a rank's batch are."""

    width: int
    layers: int
    heads: int
    tokens: int  # of a sequence
    batch: int
    vocabulary: int


SHAPES = {
    "cpu": Shape(width=64, layers=2, heads=4, tokens=64, batch=2, vocabulary=256),
    "cuda": Shape(width=2048, layers=8, heads=16, tokens=2048, batch=4, vocabulary=32000),
}


class _Block(nn.Module):
    """One layer: causal attention, then two products with a non-linearity between them."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self._heads = shape.heads
        self.before, self.between = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
        self.mixed = nn.Linear(shape.width, 3 * shape.width)
        self.joined = nn.Linear(shape.width, shape.width)
        self.up = nn.Linear(shape.width, 4 * shape.width)
        self.down = nn.Linear(4 * shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the next layer gets."""
        parts = self.mixed(self.before(x)).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self._heads, -1)).transpose(1, 2) for part in parts)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.joined(attended.transpose(1, 2).flatten(2))
        result: Tensor = x + self.down(functional.gelu(self.up(self.between(x))))
        return result


class _Transformer(nn.Module):
    """A decoder that returns the loss of predicting each next token."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.places = nn.Embedding(shape.tokens, shape.width)
        self.layers = nn.ModuleList(_Block(shape) for _ in range(shape.layers))
        self.last = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)

    def forward(self, batch: Tensor) -> Tensor:
        """Return the mean loss."""
        sequence = batch[:, :-1]
        x = self.tokens(sequence) + self.places.weight[: sequence.shape[1]]
        for layer in self.layers:
            x = layer(x)
        predicted = self.head(self.last(x)).float()
        return functional.cross_entropy(predicted.flatten(0, 1), batch[:, 1:].flatten())


def run_training(order: TrialOrder, place: Place, speaker: Speaker, pace: Pace) -> None:
    """Train alone, together, and together again; each step of each rank is told."""
    options = order.training or {}
    sharding = str(options.get("sharding") or ("fsdp" if place.device.type == "cuda" else "ddp"))
    steps = int(options.get("steps") or STEPS)
    shape = SHAPES[place.device.type]
    unsure = _be_deterministic(order, place, shape)
    pace.step()
    for phase in (ALONE, FIRST, SECOND):
        _run_phase(order, place, speaker, pace, shape, phase=phase, sharding=sharding, steps=steps)
    speaker.say(
        "train.setup",
        rank=place.rank,
        ranks=place.world,
        steps=steps,
        sharding=sharding,
        device=place.device.type,
        model=_model_name(place),
        torch=torch.__version__,
        is_deterministic=unsure is None,
        not_deterministic=unsure,
    )


def _be_deterministic(order: TrialOrder, place: Place, shape: Shape) -> str | None:
    """Have every operation repeat bit for bit; where one cannot, return which, and let it be as it is.

    It has to be tried: asked to warn only, some operations take their faster way, which does not repeat.
    """
    torch.set_deterministic_debug_mode("error")
    torch.manual_seed(order.seed)
    model = _Transformer(shape).to(place.device)
    batch = torch.zeros((shape.batch, shape.tokens + 1), dtype=torch.int64, device=place.device)
    try:
        with torch.autocast(place.device.type, dtype=torch.bfloat16, enabled=place.device.type == "cuda"):
            loss = model(batch)
        loss.backward()
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        torch.set_deterministic_debug_mode("default")
        return str(error)[:300]
    return None


def _model_name(place: Place) -> str:
    if place.device.type == "cuda":
        return str(torch.cuda.get_device_properties(place.device).name)
    return str(torch.backends.cpu.get_cpu_capability())


def _run_phase(
    order: TrialOrder,
    place: Place,
    speaker: Speaker,
    pace: Pace,
    shape: Shape,
    *,
    phase: str,
    sharding: str,
    steps: int,
) -> None:
    torch.manual_seed(order.seed)
    model: nn.Module = _Transformer(shape).to(place.device)
    flops = _flops(model, shape)
    raw = model
    if phase != ALONE:
        model = _share(model, place, sharding)
    # Alone, every rank has the same data; together, each its own.
    generator = torch.Generator().manual_seed(order.seed + (0 if phase == ALONE else 1 + place.rank))
    for step in range(steps):
        size = (shape.batch, shape.tokens + 1)
        batch = torch.randint(shape.vocabulary, size, generator=generator).to(place.device)
        if phase == FIRST and step == FAULT_AT:
            _act_faulty(order, pace)
        took_s, loss = _train_step(order, place, pace, model, batch)
        is_spoiled = phase == ALONE or (phase == SECOND and sharding == "ddp")
        if is_spoiled and step == FAULT_AT and "bit_flip" in order.faults:
            _spoil(raw, order.seed)
        _tell(speaker, place, phase=phase, step=step, took_s=took_s, loss=loss, flops=flops)
    pace.enter()
    dist.barrier()  # who trained alone may be faster: what comes next is timed together
    pace.leave()
    pace.step()


def _share(model: nn.Module, place: Place, sharding: str) -> nn.Module:
    """Spread the model over all ranks, or copy it to all of them."""
    if sharding == "ddp":
        ids = [place.device.index] if place.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)
    from torch.distributed.fsdp import fully_shard

    assert isinstance(model, _Transformer)
    for layer in model.layers:
        fully_shard(layer)
    fully_shard(model)  # in place
    return model


def _train_step(
    order: TrialOrder,
    place: Place,
    pace: Pace,
    model: nn.Module,
    batch: Tensor,
) -> tuple[float, float]:
    """Do one step; return the seconds it took and the loss before it."""
    started = time.perf_counter()
    if "slow" in order.faults:
        time.sleep(SLOW_S)
    pace.enter()  # gradients are exchanged while they are computed
    with torch.autocast(place.device.type, dtype=torch.bfloat16, enabled=place.device.type == "cuda"):
        loss = model(batch)
    loss.backward()
    with torch.no_grad():  # by hand: torch.optim imports a compiler first, for seconds
        for weight in model.parameters():
            assert weight.grad is not None
            weight.sub_(weight.grad, alpha=LEARNING_RATE)
            weight.grad = None
    value = float(loss.item())  # waits for the device
    if place.device.type == "cuda":
        torch.cuda.synchronize(place.device)
    pace.leave()
    pace.step()
    return time.perf_counter() - started, value


def _flops(model: nn.Module, shape: Shape) -> float:
    """Return the operations of one step of one rank: six for each weight and token, and attention's."""
    weights = sum(weight.numel() for name, weight in model.named_parameters() if "places" not in name)
    weights -= shape.vocabulary * shape.width  # looking up a token multiplies nothing
    tokens = shape.batch * shape.tokens
    return tokens * (6.0 * weights + 12.0 * shape.layers * shape.width * shape.tokens)


def _tell(
    speaker: Speaker, place: Place, *, phase: str, step: int, took_s: float, loss: float, flops: float
) -> None:
    speaker.say(
        "train.step",
        rank=place.rank,
        phase=phase,
        step=step,
        step_s=took_s,
        tflops=flops / took_s / 1e12,
        loss=loss,
        loss_bits=struct.pack(">f", loss).hex(),  # what equality means here
    )


def _act_faulty(order: TrialOrder, pace: Pace) -> None:
    if "crash" in order.faults:
        os.kill(os.getpid(), signal.SIGKILL)
    while "absent" in order.faults:
        pace.is_waiting = True
        time.sleep(1)


def _spoil(model: nn.Module, seed: int) -> None:
    """A seeded fault: flip a high bit of one weight, where the next loss must show it."""
    weight = model.get_parameter("head.weight").data
    flip_bit(weight, address=random.Random(seed).randrange(weight.numel()), bit=29)

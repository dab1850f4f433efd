"""The loop of every rank: a small model, trained in step with the others over gloo.

A part of each step stands for a device at work: the processor only waits for it. Any failure ends the
process; starting again is torchrun's part.
"""

from __future__ import annotations

import datetime
import io
import itertools
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from experiments.training.checkpoint import checkpoint_folder, load_newest, read_checkpoint, save_checkpoint
from experiments.training.feed import Feed, NoData
from experiments.training.job_folder import (
    CHECKPOINTS_FOLDER,
    PROGRESS_FOLDER,
    RESUMES_FILE,
    progress_file,
    read_resumes,
)
from experiments.training.storage import BATCH_BYTES

START_TIMEOUT_S = 120.0  # for all ranks to be there: each imports torch first
SLICE_S = 0.002
LEARNING_RATE = 0.05
_WIDTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which rank this is, and how it is to train."""

    rank: int
    world: int
    folder: Path
    seed: int
    step_s: float  # that the device needs for a step
    checkpoint_every_steps: int  # 0: none are made
    collective_timeout_s: float
    storage_timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """Where the group of ranks begins, the same for all of them."""

    step: int  # of the checkpoint; 0: at the very beginning
    restart: int  # how many times the ranks were started before


class Stalled(Exception):
    """The others did not come to a collective in time."""


def train(place: Place) -> None:
    """Train until ended; leave where that is not possible any more."""
    try:
        _train(place)
    except (NoData, Stalled, RuntimeError) as error:  # torch raises RuntimeError for whatever its peers do
        _say(place, f"{type(error).__name__}: {str(error).splitlines()[0][:400]}")
        os._exit(1)  # torch would wait for the very peers that are gone


def _train(place: Place) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=START_TIMEOUT_S))
    beginning = _begin(place)
    model = _load(place, beginning)
    feed = Feed(place.folder, timeout_s=place.storage_timeout_s)
    safe = beginning.step or None
    (place.folder / PROGRESS_FOLDER).mkdir(exist_ok=True)
    with progress_file(place.folder, place.rank).open("ab", buffering=0) as progress:
        for step in itertools.count(beginning.step + 1):
            row = _train_step(place, model, feed, step)
            began = time.monotonic()
            if place.checkpoint_every_steps and step % place.checkpoint_every_steps == 0:
                _save(place, model, step)
                safe = step
            row |= {"checkpoint_s": round(time.monotonic() - began, 6), "checkpoint_step": safe}
            head = {"t_ns": time.time_ns(), "rank": place.rank, "world": place.world, "pid": os.getpid()}
            head |= {"restart": beginning.restart, "step": step}
            progress.write(json.dumps(head | row).encode() + b"\n")


def _begin(place: Place) -> Beginning:
    """Have rank 0 choose the checkpoint, say so, and tell the others."""
    chosen = torch.zeros(2, dtype=torch.int64)
    if place.rank == 0:
        restart = len(read_resumes(place.folder))
        step, _, passed_over = load_newest(place.folder / CHECKPOINTS_FOLDER)
        row = {"t_ns": time.time_ns(), "restart": restart, "world": place.world, "from_step": step} | {
            "passed_over": [{"step": spoiled, "why": why} for spoiled, why in passed_over]
        }
        with (place.folder / RESUMES_FILE).open("ab", buffering=0) as resumes:
            resumes.write(json.dumps(row).encode() + b"\n")
        for spoiled, why in passed_over:
            _say(place, f"passed over the checkpoint of step {spoiled}: {why}")
        _say(place, f"start {restart} of {place.world} ranks, after step {step}")
        chosen = torch.tensor([step, restart])
    dist.broadcast(chosen, src=0)
    return Beginning(step=int(chosen[0]), restart=int(chosen[1]))


def _load(place: Place, beginning: Beginning) -> nn.Module:
    torch.manual_seed(place.seed)
    model = nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.Tanh(), nn.Linear(_WIDTH, 1))
    if beginning.step:
        path = checkpoint_folder(place.folder / CHECKPOINTS_FOLDER, beginning.step)
        data, why = read_checkpoint(path)
        if why:
            raise RuntimeError(f"{path}: {why}")  # rank 0 found it whole just now
        model.load_state_dict(torch.load(io.BytesIO(data), weights_only=True))
    return model


def _save(place: Place, model: nn.Module, step: int) -> None:
    if place.rank == 0:
        data = io.BytesIO()
        torch.save(model.state_dict(), data)
        save_checkpoint(place.folder / CHECKPOINTS_FOLDER, step, data.getvalue())
    _sum_up(place, torch.zeros(1))  # none goes on before it is safe


def _train_step(place: Place, model: nn.Module, feed: Feed, step: int) -> dict[str, object]:
    """Do one step; return its loss and where its time went."""
    began = time.monotonic()
    batch = feed.read_batch(step, place.rank)
    fed = time.monotonic()
    samples = torch.frombuffer(bytearray(batch), dtype=torch.uint8).reshape(-1, _WIDTH) / 255 - 0.5
    assert samples.numel() == BATCH_BYTES
    loss = (model(samples) - samples[:, :8].sum(1, keepdim=True)).square().mean()
    loss.backward()
    _wait_for_device(place.step_s)
    computed = time.monotonic()
    weights = list(model.parameters())
    gradient = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])
    _sum_up(place, gradient)
    synced = time.monotonic()
    with torch.no_grad():  # by hand: torch.optim imports a compiler first, for seconds
        parts = torch.split(gradient, [weight.numel() for weight in weights])
        for weight, part in zip(weights, parts, strict=True):
            weight.sub_(part.view_as(weight), alpha=LEARNING_RATE / place.world)
            weight.grad = None
    return {
        "loss": round(float(loss.item()), 6),
        "compute_s": round(computed - fed, 6),
        "sync_s": round(synced - computed, 6),
        "data_wait_s": round(fed - began, 6),
    }


def _wait_for_device(step_s: float) -> None:
    """Wait in slices: a process that is stopped for a while must not have its device go on meanwhile."""
    for _ in range(round(step_s / SLICE_S)):
        time.sleep(SLICE_S)


def _sum_up(place: Place, tensor: Tensor) -> None:
    """Add up over all ranks, in time.

    Raises:
        Stalled: another rank did not come, or is gone.
    """
    work = dist.all_reduce(tensor, async_op=True)
    assert work is not None
    try:
        work.wait(timeout=datetime.timedelta(seconds=place.collective_timeout_s))
    except RuntimeError as error:
        raise Stalled(
            f"collective failed, its time-out is {place.collective_timeout_s:g} s: {error}"
        ) from error


def _say(place: Place, text: str) -> None:
    sys.stderr.write(f"rank {place.rank}: {text}\n")
    sys.stderr.flush()

"""One rank of a trial, as torchrun starts it: it joins the group, exchanges data, checks every element.

It tells its host's leader what it saw, line by line on standard output, and how far it is every second, so
that of a group that hangs the one can be named that did not come.
"""

from __future__ import annotations

import ctypes
import datetime
import json
import os
import signal
import time

from burnin.node.pace import Pace
from burnin.node.speaker import Speaker
from burnin.node.trial_order import (
    GPUS_VARIABLE,
    LEADER_VARIABLE,
    RANKS_VARIABLE,
    TrialOrder,
    trial_order_from_json,
)

ENVIRONMENT_PREFIXES = ("NCCL_", "TORCH_NCCL_", "GLOO_", "UCX_", "FI_")
ENVIRONMENT_MAX = 60
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Do this rank's part and leave, without the clean-up of libraries, which can hang."""
    _die_with_leader()
    order = trial_order_from_json(json.loads(os.environ[RANKS_VARIABLE]))
    speaker, rank = Speaker("rank"), int(os.environ["RANK"])
    pace = Pace(speaker, str(rank))
    pace.start()
    speaker.say("rank.started", rank=rank, pid=os.getpid())
    try:
        _take_part(order, speaker, pace)
    except Exception as error:  # whatever it is goes to the controller, which judges by it
        text = f"{type(error).__name__}: {error}"
        speaker.say("rank.failed", rank=rank, is_waiting=pace.is_waiting, error=text[:600])
        os._exit(1)
    os._exit(0)


def _die_with_leader() -> None:
    """Have the kernel end us with the leader, however it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(os.environ[LEADER_VARIABLE]):
        os._exit(1)  # it has gone already


def _take_part(order: TrialOrder, speaker: Speaker, pace: Pace) -> None:
    # Imported here: the pulse goes on meanwhile.
    import torch
    import torch.distributed as dist

    from burnin.node.exchange import Place
    from burnin.node.nccl_log import NcclLog

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    is_cuda = order.device == "cuda"
    device = torch.device("cpu")
    if is_cuda:
        gpus = os.environ[GPUS_VARIABLE].split(",")
        device = torch.device("cuda", int(gpus[int(os.environ["LOCAL_RANK"])]))
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    log = NcclLog() if is_cuda else None
    pace.enter()
    # We give up before the library does: its own limit is only for the case that nobody is there any more.
    timeout = datetime.timedelta(seconds=2 * order.limit_s)
    dist.init_process_group("nccl" if is_cuda else "gloo", timeout=timeout)
    dist.all_reduce(torch.ones(1, device=device))  # NCCL connects at the first collective only
    if is_cuda:
        torch.cuda.synchronize(device)
    pace.leave()
    pace.step()
    speaker.say("rank.joined", rank=rank, ranks=world, environment=read_environment())
    local_ranks = int(os.environ["LOCAL_WORLD_SIZE"])
    place = Place(rank=rank, world=world, device=device, local_ranks=local_ranks)
    if order.training is not None:
        from burnin.node.training import run_training

        run_training(order, place, speaker, pace)
    else:
        from burnin.node.sweep import run_sweep

        run_sweep(order, place, speaker, pace)
    transports = log.new_transports() if log is not None else ["gloo"]
    speaker.say("rank.done", rank=rank, transports=transports[:20])
    if log is not None:
        log.close()
    else:
        dist.destroy_process_group()
    time.sleep(0.05)  # let the others read what we sent them last


def read_environment() -> dict[str, str]:
    """Return what steers the libraries of collectives; nothing in it is secret."""
    names = sorted(name for name in os.environ if name.startswith(ENVIRONMENT_PREFIXES))
    kept = [name for name in names if name not in ("NCCL_DEBUG", "NCCL_DEBUG_SUBSYS", "NCCL_DEBUG_FILE")]
    return {name: os.environ[name][:200] for name in kept[:ENVIRONMENT_MAX]}


if __name__ == "__main__":
    main()

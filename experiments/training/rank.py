"""The training script that torchrun runs as every rank: ``python -m experiments.training.rank``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from experiments.training.parent import end_with_parent
from experiments.training.processes import show_rank


def main() -> None:
    """Train as the rank that the environment names."""
    parser = argparse.ArgumentParser(prog="experiments.training.rank")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--step-s", type=float, required=True)
    parser.add_argument("--checkpoint-every-steps", type=int, required=True)
    parser.add_argument("--collective-timeout-s", type=float, required=True)
    parser.add_argument("--storage-timeout-s", type=float, required=True)
    given = parser.parse_args()
    rank = int(os.environ["RANK"])
    end_with_parent()
    show_rank(rank)
    from experiments.training.loop import Place, train  # seconds, in which the parent may end

    train(Place(rank=rank, world=int(os.environ["WORLD_SIZE"]), **vars(given)))


if __name__ == "__main__":
    main()

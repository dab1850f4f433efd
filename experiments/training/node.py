"""One node of a training job: a torchrun agent, ``python -m experiments.training.node TORCHRUN-OPTIONS``.

This is torchrun itself, in a process that ends with its supervisor, and whose ranks end with it.
"""

from __future__ import annotations

import os
import sys

from experiments.training.parent import end_with_parent, parent_environment


def main() -> None:
    """Be torchrun."""
    end_with_parent()
    os.environ.update(parent_environment())  # for the ranks
    from torch.distributed.run import main as torchrun

    torchrun(sys.argv[1:])


if __name__ == "__main__":
    main()

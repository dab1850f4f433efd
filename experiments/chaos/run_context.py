"""What an action knows of the run that it belongs to: where its ledger is, and with which seed it chooses.

Under ``overproof gameday run`` the environment says. Under plain ``chaos run`` an action gets a folder of its
own under ``runs/``, with a timer that undoes what it leaves behind.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from functools import cache
from pathlib import Path

from experiments.injecting.undo_timer import start_timer
from probes.errors import ConfigError

RUN_VARIABLE = "OVERPROOF_RUN"  # folder of the game day's run
SEED_VARIABLE = "OVERPROOF_SEED"
OUT = Path("runs")  # where plain ``chaos run`` keeps ledgers and looks for what it may hit


def seed_or_drawn(given: int | None) -> int:
    """Return the seed: the argument, else the game day's, else a new one."""
    text = os.environ.get(SEED_VARIABLE)
    if given is not None:
        return given
    try:
        return random.SystemRandom().randrange(2**31) if text is None else int(text)
    except ValueError as error:
        raise ConfigError(f"{SEED_VARIABLE}: wanted a whole number, got {text!r}") from error


def record_folder() -> Path:
    """Return the folder of the run that this action writes its ledger to; make one where there is none."""
    run = os.environ.get(RUN_VARIABLE)
    return Path(run) if run else _own_folder()


def known_record_folder() -> Path | None:
    """Return that folder without making one; None: nothing was recorded so far."""
    run = os.environ.get(RUN_VARIABLE)
    if run:
        return Path(run)
    return _own_folder() if _own_folder.cache_info().currsize else None


@cache
def _own_folder() -> Path:
    """Make this process's own folder for ledger and timeline, as under plain ``chaos run``."""
    folder = OUT / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-chaos-{secrets.token_hex(2)}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: no ledger can be kept there, so nothing is injected: {error}"
        ) from error
    start_timer(folder.resolve())
    return folder.resolve()

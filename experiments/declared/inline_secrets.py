"""Secrets that stand in an experiment file itself, where Chaos Toolkit would also take where they lie.

The ledger keeps ``secrets`` as the experiment states them, since undoing may come from another process: of
``{type: env, …}`` and ``{type: vault, …}`` that is where they lie, and no secret. One that stands inline has
to be kept as it is, in a file that its owner alone can read; ``gameday plan`` says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from probes.spec import find_line

_ELSEWHERE = ("env", "vault")  # what Chaos Toolkit looks up; anything else it takes as the secret itself
Names = tuple[str, ...]


def inline_secrets(secrets: object) -> Iterator[Names]:
    """Yield the names, from the outside in, of each secret that stands inline."""
    for name, value in secrets.items() if isinstance(secrets, dict) else ():
        if not isinstance(value, dict):
            yield (str(name),)
        elif value.get("type") not in _ELSEWHERE:
            yield from ((str(name), *below) for below in inline_secrets(value))


def warnings_about(path: Path, secrets: object) -> list[str]:
    """Say of each inline secret of an experiment file where it stands, and what would be better."""
    names = list(inline_secrets(secrets))
    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader) if names else None
    return [
        f"{path}:{find_line(root, ('secrets', *name))}: secret {'.'.join(name)} stands inline: the ledger of "
        "the run will hold it (its owner alone can read that); better {type: env, key: VARIABLE}"
        for name in names
    ]

"""How a program starts on a host where nothing of ours is installed, and nothing is left behind.

The command line holds one short statement, which every login shell takes as it is. It reads the second step
from standard input, and that one reads what is to run and the archive, which it keeps in memory that has no
name: it vanishes with the last process that holds it, also after kill -9. Then the program takes over.

Nothing that the user wants to be kept to himself is ever an argument. Each read has a deadline.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from burnin.fleet.launchers.channel import ARCHIVE, Program
from probes.event import to_json_line

# Said first, so that what a login shell prints before is told apart from what the program says.
HELLO = b"overproof-program-begins\n"
SILENCE_S = 10  # of the line in the midst of what is sent; the connection is gone then
FIRST_WITHIN_S = 60  # for the second step to come at all
_END = b"\0"

# No quotes that a shell could take for its own, no backslash, no exclamation mark, no line break. In a
# container it may be the first process, from which the kernel keeps every signal that it has not asked for.
_FIRST = (
    "import os,signal;signal.signal(signal.SIGALRM,lambda number,frame:os._exit(1));"
    f"signal.alarm({FIRST_WITHIN_S});"
    'exec(b"".join(iter(lambda:os.read(0,1).rstrip(bytes(1)),b"")))'
)
_SECOND = f'''
import json, os, signal, sys, tempfile

def take(count):
    """Return so many bytes; leave where the controller has gone."""
    parts = []
    while count:
        signal.alarm({SILENCE_S})
        part = os.read(0, min(count, 1 << 16))
        if not part:
            os._exit(1)
        parts.append(part)
        count -= len(part)
    return b"".join(parts)

def keep(content):
    """Return a path of a file that has no name and that our children can open while we live."""
    try:
        descriptor = os.memfd_create("overproof", 0)
    except (AttributeError, OSError):
        descriptor = os.dup(tempfile.TemporaryFile().fileno())
    os.set_inheritable(descriptor, True)
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest):]
    return "/proc/%s/fd/%d" % (os.readlink("/proc/self"), descriptor)

os.write(1, {HELLO!r})
size = int(take(10))
order = json.loads(take(size))
path = keep(take(order["archive_bytes"]))
arguments = [word.replace({ARCHIVE!r}, path) for word in order["arguments"]]
os.environ.update(order["environment"])
os.chdir("/")
signal.alarm(0)
python = sys.executable or "python3"
os.execve(python, [python, *arguments], os.environ)
'''


def command_words(python: str, wrapper: Sequence[str] = ()) -> list[str]:
    """Return the command that is to run on the host, word by word."""
    return [*wrapper, python, "-I", "-S", "-c", _FIRST]


def shell_command(python: str, wrapper: Sequence[str] = ()) -> str:
    """Return the same as one line for a login shell, which it replaces."""
    return f"exec {shlex.join(command_words(python, wrapper))}"


def opening(program: Program) -> bytes:
    """Return what goes first to the standard input of that command; the program's own input follows."""
    order = to_json_line(
        {
            "arguments": list(program.arguments),
            "environment": dict(program.environment),
            "archive_bytes": len(program.archive),
        }
    ).encode()
    return _SECOND.encode() + _END + b"%010d" % len(order) + order + program.archive

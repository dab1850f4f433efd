"""A real dockerd below one folder, and an image that shows what this machine has under /usr. Needs root."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from probes.child import wait_until

_DAEMON = (
    "--bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false --log-level=warn"
)
_LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    """A running dockerd with one image."""

    words: tuple[str, ...]  # its client, told where it listens
    image: str  # its digest

    def ask(self, *words: str) -> str:
        """Run one of its commands and return what it said."""
        done = subprocess.run([*self.words, *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}"
        return done.stdout

    def containers(self) -> list[str]:
        """Return every container that there is, ended ones too."""
        return self.ask("ps", "--all", "--quiet", "--no-trunc").split()

    def wrapper(self, *options: str) -> tuple[str, ...]:
        """Return the words that run our own Python in a container of its own."""
        shown = [
            path for each in ("/usr", sys.base_prefix, sys.prefix) for path in ("-v", f"{each}:{each}:ro")
        ]
        return (*self.words, "run", "--rm", "-i", "--network=host", *options, *shown, self.image)


@contextlib.contextmanager
def running_docker(folder: Path) -> Iterator[Docker]:
    """Start dockerd, make the image, and end it all."""
    socket = f"unix://{folder}/docker.sock"
    places = [f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/docker.pid"]
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    with (folder / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            ["dockerd", f"--host={socket}", *places, *_DAEMON.split()],
            env=os.environ | {"PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    words = (shutil.which("docker") or "docker", "-H", socket)
    try:
        is_up = wait_until(lambda: _answers(words), timeout_s=30)
        assert is_up, (folder / "dockerd.log").read_text()[-2000:]
        yield Docker(words=words, image=_make_image(words))
    finally:
        with contextlib.suppress(AssertionError):
            docker = Docker(words=words, image="")
            for container in docker.containers():
                docker.ask("rm", "--force", container)
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(timeout=20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait(timeout=10)
        # dockerd leaves the network namespace mounted that its containers have in common.
        subprocess.run(["umount", f"{folder}/exec/netns/default"], capture_output=True, check=False)


def _answers(words: tuple[str, ...]) -> bool:
    return subprocess.run([*words, "version"], capture_output=True, check=False).returncode == 0


def _make_image(words: tuple[str, ...]) -> str:
    """Import a root file system of a few links, and return the digest under which it can be run."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, target in _LINKS.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(folder)
    done = subprocess.run([*words, "import", "-"], input=packed.getvalue(), capture_output=True, check=True)
    return done.stdout.decode().strip()

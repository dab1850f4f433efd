"""The launchers that a fleet needs, each made when its first host starts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from burnin.fleet.host import Fleet, Host
from burnin.fleet.launchers.channel import Launcher
from burnin.fleet.launchers.kubernetes import check_jobs
from burnin.fleet.launchers.local import LocalLauncher
from burnin.fleet.launchers.ssh import SshLauncher
from probes.errors import ConfigError
from probes.kubernetes_api import connect_api


class Launchers:
    """Gives each host its launcher, and closes them all at the end."""

    def __init__(self, fleet: Fleet, *, run: str, connects_max: int, time_limit_s: float) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, Launcher] = {}
        slurm_hosts = [host.name for host in fleet.hosts if host.access.launcher == "slurm"]

        def slurm() -> Launcher:
            from burnin.fleet.launchers.slurm import SlurmLauncher

            return SlurmLauncher(slurm_hosts, time_limit_s=time_limit_s, salloc_options=fleet.salloc_options)

        def kubernetes() -> Launcher:
            from burnin.fleet.launchers.cluster_jobs import KubernetesLauncher

            jobs = check_jobs(fleet)
            return KubernetesLauncher(connect_api(), jobs, run=run, time_limit_s=time_limit_s)

        self._makers: dict[str, Callable[[], Launcher]] = {
            "local": LocalLauncher,
            "ssh": lambda: SshLauncher(connects_max=connects_max),
            "slurm": slurm,
            "kubernetes": kubernetes,
        }

    def of(self, host: Host) -> Launcher:
        """Return the launcher of a host.

        Raises:
            ConfigError: there is none of that name.
        """
        name = host.access.launcher
        with self._lock:
            if name not in self._makers:
                known = ", ".join(self._makers)
                raise ConfigError(f"{host.name}: launcher {name!r} is unknown here; one of {known}")
            if name not in self._made:
                self._made[name] = self._makers[name]()
            return self._made[name]

    def __enter__(self) -> Launchers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every launcher that was made, and with it what still runs behind it."""
        with self._lock:
            made = list(self._made.values())
            self._made.clear()
        for launcher in made:
            launcher.close()

"""What a burn-in of a fleet would create in a cluster, shown without creating it."""

from __future__ import annotations

from pathlib import Path

from burnin.burn import BurnRequest, load_plan
from burnin.fleet.fleet_burn import with_launcher
from burnin.fleet.fleet_file import load_fleet
from burnin.fleet.launchers.kubernetes import check_jobs, job_manifest, render_manifests
from burnin.launcher import longest_s
from probes.errors import ConfigError

_RUN = "dry-run"


def render_dry_run(request: BurnRequest, *, fleet_file: Path | None, launcher: str | None) -> str:
    """Return the manifests of every host's Job; nothing is asked of any host or cluster.

    Raises:
        ConfigError: a file is wrong, or a host is not reached through Kubernetes.
    """
    if fleet_file is None:
        raise ConfigError("--dry-run: name the fleet file of which to show the Jobs")
    plan = load_plan(request)
    order = plan.to_order(seed=request.seed, seeded_faults=request.seeded_faults)
    fleet = with_launcher(load_fleet(fleet_file), launcher)
    others = [host for host in fleet.hosts if host.access.launcher != "kubernetes"]
    if others:
        raise ConfigError(
            f"--dry-run: {others[0].name} is reached by {others[0].access.launcher}, which creates nothing;"
            " only Jobs of Kubernetes are shown: --launcher kubernetes"
        )
    jobs, limit_s = check_jobs(fleet), longest_s(order)
    return render_manifests(
        [job_manifest(host, jobs, run=_RUN, time_limit_s=limit_s) for host in fleet.hosts]
    )

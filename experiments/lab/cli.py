"""Commands of ``overproof lab``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.training.cli import app as train
from probes.errors import ConfigError, TargetError

if TYPE_CHECKING:
    from probes.json_types import JsonObject
    from probes.kubernetes_api import Identity, KubeClient

app = typer.Typer(
    help="The rehearsal cluster: a gateway, supervised replicas of the simulated endpoint, a training job.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.add_typer(train, name="train")

Out = Annotated[Path, typer.Option(help="Folder whose lab this is about.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Kube = Annotated[bool, typer.Option("--kube", help="The service on a Kubernetes cluster instead.")]
Context = Annotated[str, typer.Option(help="With --kube: context of the kubeconfig; empty: the current one.")]
Kubeconfig = Annotated[str, typer.Option(help="With --kube: its file; empty: what kubectl takes.")]
Namespace = Annotated[str, typer.Option(help="With --kube: namespace of the service.")]
Yes = Annotated[bool, typer.Option("--yes", help="With --kube: do not ask.")]
READY_TIMEOUT_S = 30.0
GONE_TIMEOUT_S = 120.0
_KUBE_ONLY = {"context", "kubeconfig", "namespace", "yes", "image", "python", "ready_within_s"}
_KUBE_TOO = {"kube", "as_json", "replicas", "replicas_max", "seed", "load_s", "step_work_ms"}


@app.command()
def up(
    run: typer.Context,
    out: Out = Path("runs"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the gateway; 0: any free one.")] = 8400,
    replicas: Annotated[int, typer.Option(min=1, max=64, help="Replicas behind the gateway.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the replicas' random choices.")] = 1,
    no_restart: Annotated[bool, typer.Option("--no-restart", help="Do not restart what dies.")] = False,
    backoff_s: Annotated[float, typer.Option(min=0, help="Seconds from a death to the restart.")] = 1.0,
    load_s: Annotated[float, typer.Option(min=0, help="Seconds that a restarted replica loads.")] = 3.0,
    liveness_s: Annotated[
        float, typer.Option(min=0, help="Seconds of failed checks until a replica is killed; 0: never.")
    ] = 5.0,
    step_work_ms: Annotated[
        float, typer.Option(min=0, help="Processor time that each step of a replica takes, in milliseconds.")
    ] = 0.0,
    replicas_max: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Scale by load: at least --replicas, at most so many."),
    ] = None,
    in_flight_target: Annotated[
        int, typer.Option(min=1, help="Requests under way per replica that the scaling aims at.")
    ] = 6,
    scale_up_s: Annotated[
        float, typer.Option(min=0, help="Seconds of too many requests before replicas are started.")
    ] = 2.0,
    scale_down_s: Annotated[
        float, typer.Option(min=0, help="Seconds of too few requests before replicas are released.")
    ] = 10.0,
    scale_fault: Annotated[
        str, typer.Option(help="How the scaling fails: never-up, late-up, never-down or flap.")
    ] = "",
    kube: Kube = False,
    image: Annotated[str, typer.Option(help="With --kube: image with overproof in it.")] = "",
    python: Annotated[str, typer.Option(help="With --kube: the image's Python.")] = "python3",
    ready_within_s: Annotated[
        float, typer.Option(min=1, help="With --kube: seconds until every replica has to be ready.")
    ] = 180.0,
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    namespace: Namespace = "inference",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Start a lab that stays until `lab down`; its endpoint is printed once every replica serves.

    With --kube it is a Deployment with its Service and disruption budget, on the cluster of a context that is
    shown first.
    """
    _refuse_mixed(run, is_kube=kube)
    if replicas_max is not None and replicas_max < replicas:
        raise ConfigError(f"--replicas-max {replicas_max}: less than --replicas {replicas}")
    if kube:
        from experiments.kube.service.lab import put_up, show_and_ask
        from experiments.kube.service.objects import ServicePlan

        if not image:
            raise ConfigError("lab up --kube: state --image, one with overproof in it")
        wanted = ServicePlan(
            image=image, namespace=namespace, python=python, replicas=replicas, replicas_max=replicas_max,
            load_s=load_s if _is_given(run, "load_s") else 0.0, step_work_ms=step_work_ms, seed=seed,
        )  # fmt: skip
        client, identity = _cluster(context, kubeconfig)
        show_and_ask(identity, f"{replicas} replicas of {image} in namespace {namespace}", is_agreed=yes)
        _print_kube(put_up(client, wanted, within_s=ready_within_s), as_json=as_json)
        return
    from experiments.lab.autoscaler import FAULTS, ScalePlan
    from experiments.lab.control import FOLDER_NAME, ask_lab, is_lab_alive, stop_lab
    from experiments.lab.supervisor import LabPlan, start_detached

    folder = (out / FOLDER_NAME).resolve()
    if scale_fault and (scale_fault not in FAULTS or replicas_max is None):
        known = ", ".join(FAULTS)
        raise ConfigError(f"--scale-fault {scale_fault!r}: wanted one of {known}, with --replicas-max")
    if is_lab_alive(folder):
        raise ConfigError(f"lab {folder}: one runs here already; `overproof lab down` stops it")
    stop_lab(folder)  # what a crashed one may have left
    plan = LabPlan(
        folder=folder,
        port=port,
        replicas=replicas,
        seed=seed,
        is_restarting=not no_restart,
        backoff_s=backoff_s,
        load_s=load_s,
        liveness_s=liveness_s,
        step_work_ms=step_work_ms,
        scale=None
        if replicas_max is None
        else ScalePlan(
            replicas_min=replicas,
            replicas_max=replicas_max,
            in_flight_target=in_flight_target,
            up_s=scale_up_s,
            down_s=scale_down_s,
            fault=scale_fault,
        ),
    )
    start_detached(plan, timeout_s=READY_TIMEOUT_S)
    _print(ask_lab(folder, {"do": "status"}), folder, as_json=as_json)


def _refuse_mixed(run: typer.Context, *, is_kube: bool) -> None:
    """Refuse options of the one lab beside the other: they would do nothing, and nobody would know."""
    given = {name for name in run.params if _is_given(run, name)}
    wrong = given - _KUBE_TOO - _KUBE_ONLY if is_kube else given & _KUBE_ONLY
    if wrong:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(wrong))
        raise ConfigError(f"{names}: {'not for' if is_kube else 'only with'} --kube")


def _is_given(run: typer.Context, name: str) -> bool:
    source = run.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


@app.command()
def down(
    run: typer.Context,
    out: Out = Path("runs"),
    kube: Kube = False,
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    namespace: Namespace = "inference",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Stop the lab and see that every process of it is gone, also after it has crashed.

    With --kube its namespace is removed, where that is a lab of ours.
    """
    _refuse_mixed(run, is_kube=kube)
    if kube:
        from experiments.kube.service.lab import show_and_ask, take_down

        client, identity = _cluster(context, kubeconfig)
        show_and_ask(identity, f"namespace {namespace} is removed, with all that is in it", is_agreed=yes)
        was_there = take_down(client, namespace, within_s=GONE_TIMEOUT_S)
        said = "removed" if was_there else "there was none"
        document = json.dumps({"namespace": namespace, "removed": was_there})
        sys.stdout.write(f"{document if as_json else f'namespace {namespace}: {said}'}\n")
        return
    from experiments.lab.control import FOLDER_NAME, stop_lab

    folder = (out / FOLDER_NAME).resolve()
    stopped = stop_lab(folder)
    if as_json:
        sys.stdout.write(json.dumps({"lab": str(folder), "stopped": stopped}) + "\n")
    else:
        said = f"stopped {len(stopped)} processes" if stopped else "none was running"
        sys.stdout.write(f"lab {folder}: {said}\n")


@app.command()
def status(
    run: typer.Context,
    out: Out = Path("runs"),
    kube: Kube = False,
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    namespace: Namespace = "inference",
    as_json: AsJson = False,
) -> None:
    """Say what runs in the lab and what serves."""
    _refuse_mixed(run, is_kube=kube)
    if kube:
        from experiments.kube.service.lab import look

        client, identity = _cluster(context, kubeconfig)
        sys.stderr.write(f"{identity}\n")
        _print_kube(look(client, namespace), as_json=as_json)
        return
    from experiments.lab.control import FOLDER_NAME, ask_lab, is_lab_alive

    folder = (out / FOLDER_NAME).resolve()
    if not is_lab_alive(folder):
        raise TargetError(f"lab {folder}: none runs; `overproof lab up` starts one")
    _print(ask_lab(folder, {"do": "status"}), folder, as_json=as_json)


def _cluster(context: str, kubeconfig: str) -> tuple[KubeClient, Identity]:
    from probes.kubernetes_api import connect_api

    client = connect_api(kubeconfig, context)
    return client, client.identity()


def _print_kube(state: JsonObject, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(state) + "\n")
        return
    for row in state["replicas"]:
        serving = (
            "serves" if row["is_serving"] else f"does not serve{row['waits_for'] and ': '}{row['waits_for']}"
        )
        sys.stdout.write(
            f"{row['name']}: {serving}, on {row['node'] or 'no node'}, {row['restarts']} restarts\n"
        )
    if scaled := state["scaled"]:
        sys.stdout.write(f"scaled: {scaled['min']} to {scaled['max']}, {scaled['wanted']} wanted now\n")
    sys.stdout.write(f"{state['url_inside']} in the cluster\n{state['url']}\n")


def _print(state: dict[str, object], folder: Path, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"lab": str(folder)} | state) + "\n")
        return
    replicas = state["replicas"]
    assert isinstance(replicas, list)
    for row in replicas:
        serving = "serves" if row["is_serving"] else "does not serve"
        process = f"pid {row['pid']}" if row["pid"] is not None else "no process"
        sys.stdout.write(f"{row['name']}: {serving}, {process}, {row['restarts']} restarts\n")
    sys.stdout.write(f"{state['url']}\n")

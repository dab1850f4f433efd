"""The programs of a cluster: those that are there, and the others built once from their Go modules."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.cluster.plan import cache_folder

_MODULE = Path(__file__).parent / "programs"
_KWOK_MODULE = _MODULE / "kwok"  # of its own: it wants other releases of the same libraries
_DEVICE_PLUGIN_MODULE = Path(__file__).parent / "device_plugin"
_KUBERNETES = "k8s.io/kubernetes"
_ETCD = "go.etcd.io/etcd/server/v3"
_PACKAGES = {
    "etcd": _ETCD,
    "kube-apiserver": f"{_KUBERNETES}/cmd/kube-apiserver",
    "kube-controller-manager": f"{_KUBERNETES}/cmd/kube-controller-manager",
    "kube-scheduler": f"{_KUBERNETES}/cmd/kube-scheduler",
    "kube-proxy": f"{_KUBERNETES}/cmd/kube-proxy",
    "kubelet": f"{_KUBERNETES}/cmd/kubelet",
    "pause": "./pause",
}
_KWOK = {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}
# Debian's packages of what is not ours to build.
_SYSTEM = {
    "containerd": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "unshare": "util-linux",
}
_PLUGINS = Path("/usr/lib/cni")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class ProgramsMissingError(Exception):
    """Something that a cluster needs is not on this machine and cannot be made."""


def find_programs() -> dict[str, Path]:
    """Return a path for each program, building what neither KUBEBUILDER_ASSETS nor PATH has.

    Raises:
        ProgramsMissingError: a Debian package is missing, or there is no Go, or the build fails.
    """
    check_programs()
    return _found(_PACKAGES, _MODULE)


def find_kwok() -> Path:
    """Return the program that answers for nodes that are no machines.

    Raises:
        ProgramsMissingError: there is no Go, or the build fails.
    """
    return _found(_KWOK, _KWOK_MODULE)["kwok"]


def find_device_plugin() -> Path:
    """Return the program that gives out devices as a GPU vendor's does.

    Raises:
        ProgramsMissingError: there is no Go, or the build fails.
    """
    return _built({"device-plugin": "./plugin"}, _DEVICE_PLUGIN_MODULE)["device-plugin"]


def _found(packages: Mapping[str, str], module: Path) -> dict[str, Path]:
    found = {name: _find(name) for name in packages}
    missing = sorted(name for name, path in found.items() if path is None)
    built = _built({name: packages[name] for name in missing}, module) if missing else {}
    return {name: path or built[name] for name, path in found.items()}


def missing_packages() -> list[str]:
    """Return the Debian packages that a cluster needs and that are not installed."""
    missing = {package for name, package in _SYSTEM.items() if shutil.which(name, path=_PATH) is None}
    if not (_PLUGINS / "ptp").exists():
        missing.add("containernetworking-plugins")
    return sorted(missing)


def check_programs() -> None:
    """See that every program is here or can be built.

    Raises:
        ProgramsMissingError: a Debian package is missing, or there is no Go where something has to be built.
    """
    if missing := missing_packages():
        raise ProgramsMissingError(f"please install these Debian packages: {' '.join(missing)}")
    if not all(map(_find, _PACKAGES)):
        _go(_PACKAGES)


def _go(names: Iterable[str]) -> str:
    go = shutil.which("go")
    if go is None:
        raise ProgramsMissingError(f"Go is needed to build {', '.join(names)}; or set KUBEBUILDER_ASSETS")
    return go


def _find(name: str) -> Path | None:
    if name == "pause":  # a program of this name is something else
        return None
    assets = os.environ.get("KUBEBUILDER_ASSETS", "")
    place = shutil.which(name, path=f"{assets}:{_PATH}" if assets else _PATH)
    return None if place is None else Path(place)


def _built(packages: Mapping[str, str], module: Path) -> dict[str, Path]:
    go = _go(packages)
    folder = cache_folder() / "kubernetes" / _key(go, module)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, package in packages.items():
            if not (folder / name).exists():
                _build(go, package, module, folder / name)
    return {name: folder / name for name in packages}


def _key(go: str, module: Path) -> str:
    """Return what the programs depend on: a module of ours, what it names, and the compiler."""
    files = [module / "go.mod", module / "go.sum", *sorted(module.glob("*/*.go"))]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files))
    digest.update(subprocess.run([go, "version"], capture_output=True, check=True).stdout)
    return digest.hexdigest()[:16]


def _build(go: str, package: str, module: Path, target: Path) -> None:
    """Build one program beside its place and move it there, so that a half-written one is never found."""
    sys.stderr.write(f"building {target.name} (once; the first one takes many minutes)\n")
    version = _version()
    major, minor, _ = version.removeprefix("v").split(".")
    stamp = "k8s.io/component-base/version"
    stamps = f"-X {stamp}.gitVersion={version} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
    flags = f"-s -w {stamps}" if package.startswith(_KUBERNETES) else "-s -w"
    unfinished = target.with_name(f".{target.name}")
    done = subprocess.run(
        [go, "build", "-p", "2", "-trimpath", "-ldflags", flags, "-o", unfinished, package],
        cwd=module,
        env=os.environ | {"CGO_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ProgramsMissingError(f"go build {package}: {done.stderr.strip()[-2000:]}")
    unfinished.rename(target)


def _version() -> str:
    words = (_MODULE / "go.mod").read_text().split()
    return words[words.index(_KUBERNETES, words.index("require")) + 1]

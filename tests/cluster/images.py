"""Images made of local files, as archives that containerd imports: no registry is asked."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import re
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.node import PAUSE_IMAGE
from tests.cluster.plan import cache_folder

ENDPOINT_IMAGE = "overproof.test/endpoint:1"
DEVICE_PLUGIN_IMAGE = "overproof.test/device-plugin:1"
_KEPT_S = 3600  # an archive that a checkout of other files may be about to import
File = tuple[Path, str]  # a file here, and its place in the image
_PROJECT = Path(__file__).parents[2]
_PACKAGES = ("probes", "loadtests")  # what the simulated endpoint is made of
_LEFT_OUT = re.compile(
    r"/(test|tests|idlelib|tkinter|turtledemo|ensurepip|lib2to3|pydoc_data|site-packages|config-[^/]+)(/|$)"
    r"|/(distutils|unittest|sqlite3|curses|dbm)(/|$)|\.opt-[12]\.pyc$|\.a$"
    r"|/(_tkinter|_test|_ctypes_test|_xx|_curses|_dbm|_gdbm|_sqlite3|nis|readline)[^/]*\.so$"
)


def write_images(programs: Mapping[str, Path]) -> list[Path]:
    """Return the archives of all images; those whose files are as they were are not written again."""
    folder = cache_folder() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    pause = ([(programs["pause"], "/pause")], {"Entrypoint": ["/pause"]})
    endpoint = (_endpoint_files(), _endpoint_settings())
    return [_image(folder, PAUSE_IMAGE, *pause), _image(folder, ENDPOINT_IMAGE, *endpoint)]


def write_device_plugin(program: Path) -> Path:
    """Return the archive of the image of the device plugin, which only the tests of it need."""
    files = [(program, "/device-plugin")]
    return _image(cache_folder() / "images", DEVICE_PLUGIN_IMAGE, files, {"Entrypoint": ["/device-plugin"]})


def _image(folder: Path, name: str, files: Sequence[File], settings: Mapping[str, object]) -> Path:
    short = name.split("/")[-1].split(":")[0]
    path = folder / f"{short}-{_key(files, settings)}.tar"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            for older in folder.glob(f"{short}-*.tar"):
                if older.stat().st_mtime < time.time() - _KEPT_S:
                    older.unlink()
            _write_image(path, name, _layer([*files, *_libraries(files)]), settings)
        path.touch()
    return path


def _key(files: Sequence[File], settings: Mapping[str, object]) -> str:
    """Return what an image depends on, without reading its files."""
    seen = [(str(path), name, path.stat().st_size, path.stat().st_mtime_ns) for path, name in files]
    return hashlib.sha256(json.dumps([seen, settings]).encode()).hexdigest()[:16]


def _endpoint_settings() -> dict[str, object]:
    return {
        "Entrypoint": [_python()],
        "Cmd": ["-m", "loadtests.endpoint", "--host", "0.0.0.0", "--port", "8000"],
        "Env": ["PYTHONPATH=/app", f"PATH={Path(_python()).parent}:/usr/bin:/bin"],
        "WorkingDir": "/app",
    }


def _python() -> str:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return str(Path(sys.base_prefix) / "bin" / f"python{version}")


def _endpoint_files() -> list[File]:
    """Return each file of Python and of the endpoint, and its place."""
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    files = [(path, str(path)) for path in [Path(_python()), *_files(library)]]
    for folder in [*(_PROJECT / package for package in _PACKAGES), *_installed_packages()]:
        for path in _files(folder):
            if path.suffix in {".py", ".yaml"}:
                files.append((path, f"/app/{path.relative_to(folder.parent)}"))
    return files


def _installed_packages() -> list[Path]:
    """Return the folders of the packages of others that the endpoint imports; they are of pure Python."""
    lines = (
        "import sys, loadtests.endpoint.process",
        "names = {name.partition('.')[0] for name in sys.modules}",
        "files = [getattr(sys.modules[name], '__file__', None) or '' for name in names]",
        "print(*(file for file in files if 'site-packages' in file), sep='\\n')",
    )
    command = [sys.executable, "-c", "\n".join(lines)]
    shown = subprocess.run(command, cwd=_PROJECT, capture_output=True, text=True, check=True).stdout
    return [Path(line).parent for line in shown.split()]


def _files(folder: Path) -> list[Path]:
    every = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path for path in every if not _LEFT_OUT.search(str(path.relative_to(folder.parent)))]


def _libraries(files: Sequence[File]) -> list[File]:
    """Return the shared libraries that programs load, by the names under which they look for them."""
    binaries = [path for path, _ in files if path.suffix == ".so" or path.parent.name == "bin"]
    if not binaries:
        return []
    shown = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
    found = sorted(set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", shown, flags=re.MULTILINE)))
    return [(Path(path), path) for path in found]


def _layer(files: Sequence[File]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(folder)
        for path, name in files:
            entry = tar.gettarinfo(str(path.resolve()), arcname=name)
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            with path.open("rb") as file:
                tar.addfile(entry, file)
    return packed.getvalue()


def _write_image(path: Path, name: str, layer: bytes, settings: Mapping[str, object]) -> None:
    """Write an archive of one layer in the form of ``docker save``."""
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": _architecture(),
            "os": "linux",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [f"{digest}/layer.tar"]}]
    members = {
        config_name: config,
        f"{digest}/layer.tar": layer,
        "manifest.json": json.dumps(manifest).encode(),
    }
    unfinished = path.with_suffix(".part")
    with tarfile.open(unfinished, "w") as tar:
        for member, content in members.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    unfinished.rename(path)


def _architecture() -> str:
    machine = sysconfig.get_platform().rsplit("-", 1)[-1]
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)

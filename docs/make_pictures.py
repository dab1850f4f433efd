"""Make the pictures of ``docs/pictures`` from real short runs: ``make pictures``; about six minutes.

Pages are photographed by a headless Chromium, live views are taken from the screen of a tmux of 80 columns.
What cannot be made ends it with the reason. Pictures that are there already are replaced one by one.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from reports.run import load_run

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
FOLDER = ROOT / "build" / "pictures"  # of the runs
OVERPROOF = [sys.executable, "-P", "-m", "overproof"]
KILL = ROOT / "experiments" / "catalogue" / "local" / "replica-kill.yaml"
BURN = ["burnin", "run", "--device", "cpu", "--profile", "quick", "--duration-s", "24"]
LOAD = ["load", "run", str(ROOT / "loadtests" / "workloads" / "demo.yaml")]
# Six runs of one release, of which the last met a slower one: what compare and history are about.
RELEASE = """
name: release
arrivals: {kind: poisson, rate_per_s: 25}
duration_s: 10
prompt: {input_tokens: {kind: constant, value: 64}, output_tokens: {kind: constant, value: 12}}
slos: [{metric: ttft_ms, statistic: p90, bound: 500}, {metric: goodput, objective: 0.9}]
"""
TODAY, TOMORROW = ["--decode-step-ms", "8"], ["--decode-step-ms", "14"]
TRIES = 3
FLEET = ["burnin", "run", "--simulate", "64", "--profile", "quick", "--seed", "4"]
COLUMNS, LINES = 80, 28
WIDTH_PX, HEIGHT_PX_MAX = 1120, 2600
QUALITY = 72  # of WebP


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A page to photograph; ``size`` is that of the window, ``dark`` the reader's scheme."""

    name: str
    page: Path
    width_px: int = WIDTH_PX
    is_dark: bool = False


def run(folder: Path, *arguments: str) -> Path | None:
    """Run one command of ours with its runs in a folder; return the run that it made, if any."""
    print(f"overproof {shlex.join(arguments)}", flush=True)  # noqa: T201
    done = subprocess.run(
        [*OVERPROOF, *arguments], cwd=folder, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode not in (0, 1, 3):
        raise SystemExit(f"exit {done.returncode}: overproof {shlex.join(arguments)}")
    last = folder / (done.stdout.splitlines() or ["nowhere"])[-1]
    return last if (last / "run.json").exists() else None


def watch(folder: Path, name: str, arguments: list[str], *, until: str) -> Path | None:
    """Run a command in a terminal; keep the first screen that shows ``until``, let it end, return its run."""
    print(f"in a terminal: overproof {shlex.join(arguments)}", flush=True)  # noqa: T201
    socket = f"overproof-pictures-{name}"
    command = f"{shlex.join([*OVERPROOF, *arguments])} > {folder / name}.out"
    tmux = ["tmux", "-L", socket]
    size = ["-x", str(COLUMNS), "-y", str(LINES)]
    new = ["-f", "/dev/null", "new-session", "-d", *size, "-c", str(folder), command]
    subprocess.run([*tmux, *new], check=True)
    screen, deadline = "", time.monotonic() + 240
    while time.monotonic() < deadline:
        seen = subprocess.run(
            [*tmux, "capture-pane", "-e", "-p"], capture_output=True, text=True, check=False
        ).stdout
        if (
            not seen.strip()
            and subprocess.run([*tmux, "has-session"], capture_output=True, check=False).returncode
        ):
            break
        if not screen and re.search(until, re.sub(r"\x1b\[[0-9;]*m", "", seen)):
            screen = seen
            write_screen(PICTURES / f"{name}.svg", screen, title=f"overproof {shlex.join(short(arguments))}")
        time.sleep(0.3)
    subprocess.run([*tmux, "kill-server"], capture_output=True, check=False)
    if not screen:
        raise SystemExit(f"{name}: no screen that shows {until}")
    last = folder / ((folder / f"{name}.out").read_text().splitlines() or ["nowhere"])[-1]
    return last if (last / "run.json").exists() else None


def short(arguments: list[str]) -> list[str]:
    """Return the words of a command with paths as a user in the repository types them."""
    return [word.removeprefix(f"{ROOT}/") for word in arguments]


def write_screen(path: Path, screen: str, *, title: str) -> None:
    """Write a terminal's screen as SVG; fonts are those of the reader's system."""
    import io

    from rich.console import Console
    from rich.text import Text

    console = Console(
        record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(Text.from_ansi(screen.rstrip("\n"), no_wrap=True))
    svg = console.export_svg(title=title, unique_id=path.stem)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    path.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8")


def photograph(shot: Shot) -> None:
    """Take a page, from its top to at most so far down."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        scheme: Any = "dark" if shot.is_dark else "light"
        page = browser.new_page(viewport={"width": shot.width_px, "height": 900}, color_scheme=scheme)
        page.goto(shot.page.as_uri())
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")  # have everything drawn
        page.wait_for_timeout(500)
        page.evaluate("window.scrollTo(0, 0)")
        height = min(HEIGHT_PX_MAX, int(page.evaluate("document.documentElement.scrollHeight")))
        clip = {"x": 0, "y": 0, "width": shot.width_px, "height": height, "scale": 1}
        asked = {"format": "webp", "quality": QUALITY, "clip": clip, "captureBeyondViewport": True}
        taken = page.context.new_cdp_session(page).send("Page.captureScreenshot", asked)
        (PICTURES / f"{shot.name}.webp").write_bytes(base64.b64decode(taken["data"]))
        browser.close()


@contextmanager
def no_leftovers(folder: Path) -> Iterator[None]:
    """Take the lab down, whatever became of the runs."""
    try:
        yield
    finally:
        subprocess.run([*OVERPROOF, "lab", "down"], cwd=folder, capture_output=True, check=False)


@contextmanager
def endpoint(*options: str) -> Iterator[str]:
    """Serve simulated answers; yield the address."""
    command = [*OVERPROOF, "load", "endpoint", "--port", "0", "--slots", "64", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{json.loads(server.stdout.readline())['port']}"
        finally:
            server.terminate()


def has_passed(path: Path | None) -> bool:
    """Whether a run passed: one whose client was held up by other programs is no picture of anything."""
    return path is not None and load_run(path).outcome.name == "PASS"


def passing(make_run: Callable[[], Path | None]) -> Path | None:
    """Return a run that passed, or the last of a few tries; the others are thrown away."""
    for left in reversed(range(TRIES)):
        if has_passed(path := make_run()):
            break
        if left and path is not None:
            shutil.rmtree(path)
    return path


def take(name: str, page: Path | None, **options: Any) -> None:
    """Photograph a page that a command has written."""
    if page is None or not page.exists():
        raise SystemExit(f"{name}: no such page: {page}")
    photograph(Shot(name=name, page=page, **options))


def report(path: Path | None) -> Path | None:
    """Return the report of a run."""
    return None if path is None else path / "report.html"


def burnin(folder: Path) -> None:
    """A fleet that is rehearsed; a burn-in that passes, its certificate, and one that fails."""
    take("fleet", report(run(folder, *FLEET)))
    passed = passing(lambda: watch(folder, "live-burnin", BURN, until=r"cpu:0 +power +[\d.]+ TFLOPS"))
    assert passed is not None
    take("burnin", report(passed))
    run(folder, "burnin", "certify", str(passed))
    take("certificate", next(passed.glob("certificate*.html"), None))
    take("burnin-fail", report(run(folder, *BURN, "--seed-fault", "matmul:bit_flip@cpu:1")))


def load(folder: Path) -> None:
    """A load test, also in the dark and on a phone."""
    passed = passing(lambda: watch(folder, "live-load", LOAD, until=r"offered .* [6-9]\d\n"))
    take("load", report(passed))
    take("load-dark", report(passed), is_dark=True)
    take("load-phone", report(passed), width_px=400)


def gameday(folder: Path) -> None:
    """A game day on the lab."""
    day = ["gameday", "run", str(KILL)]
    take(
        "gameday", report(passing(lambda: watch(folder, "live-gameday", day, until=r"phase +(during|after)")))
    )


def several(folder: Path) -> None:
    """What is told of many runs, those of the other pictures among them."""
    for name, words in pages(make_releases(folder)).items():
        run(folder, *words, "--html", f"{name}.html")
        take(name, folder / f"{name}.html")


GROUPS = {"burnin": burnin, "load": load, "gameday": gameday, "several": several}


def make_releases(folder: Path) -> list[Path]:
    """Make the runs of one workload that are compared."""
    (folder / "release.yaml").write_text(RELEASE, encoding="utf-8")
    made = []
    for options, times in ((TODAY, 5), (TOMORROW, 1)):
        with endpoint(*options) as url:
            words = ["load", "run", "release.yaml", "--endpoint", url]
            made += [passing(lambda words=words: run(folder, *words)) for _ in range(times)]  # type: ignore[misc]
    return [path for path in made if path is not None]


def pages(releases: list[Path]) -> dict[str, list[str]]:
    """Return the commands that write a page of their own, by its name."""
    return {
        "history": ["history", "runs"],
        "compare": ["compare", *map(str, releases)],
        "coverage": ["coverage", "runs"],
    }


def main() -> None:
    """Make the pictures of the groups that are named, with the runs that there are; else all of them anew."""
    groups = sys.argv[1:] or list(GROUPS)
    if len(sys.argv) == 1 and FOLDER.exists():
        shutil.rmtree(FOLDER)
    for folder in (FOLDER, PICTURES):
        folder.mkdir(parents=True, exist_ok=True)
    with no_leftovers(FOLDER):
        for group in groups:
            GROUPS[group](FOLDER)
    sizes = {path.name: path.stat().st_size for path in sorted(PICTURES.iterdir())}
    for picture, size in sizes.items():
        print(f"{size / 1000:8.1f} kB  {picture}")  # noqa: T201
    print(f"{sum(sizes.values()) / 1000:8.1f} kB  together")  # noqa: T201


if __name__ == "__main__":
    main()

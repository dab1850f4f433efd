"""The Grafana dashboard asks for what runs really serve: their pages, evaluated by a real Prometheus."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from probes.child import end_child, start_child, wait_until
from reports.exporter import SERVED, render_page
from reports.live_metrics import METRICS, Figure
from reports.run import read_ndjson
from tests.loadtests.endpoints import endpoint
from tests.reports.results import complaints

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "docs" / "grafana" / "overproof.json"
# What these runs cannot show: they have no GPU with its sensors, no fleet and no training job.
NOT_HERE = {
    "overproof_burnin_copy_bytes_per_second",
    "overproof_burnin_power_watts",
    "overproof_burnin_temperature_celsius",
    "overproof_burnin_sm_clock_hertz",
    "overproof_burnin_held_back",
    "overproof_fleet_hosts",
    "overproof_gameday_training_steps_total",
}
WORKLOAD = """
name: short
arrivals: {{kind: constant, rate_per_s: 20}}
duration_s: 8
prompt: {{input_tokens: {{kind: constant, value: 8}}, output_tokens: {{kind: constant, value: 8}}}}
calibrate_prompts: false
calibration: {{is_skipped: true}}
endpoint: {{url: "{url}"}}
slos: [{{metric: ttft_ms, statistic: p90, bound: 2000}}, {{metric: goodput, objective: 0.5}}]
"""
PLAN = "profile: quick\ndevice: cpu\nduration_s: 6\nonly: [matmul]\n"


def expressions() -> list[str]:
    """Return every query of the dashboard, its variables filled in as Grafana does."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [e.replace("$instance", ".*").replace("$__rate_interval", "5s") for e in found]


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\boverproof_\w+", expression))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraped:
    """A Prometheus that has scraped runs."""

    url: str
    results: list[dict[str, object]]

    def ask(self, expression: str) -> list[object]:
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{query}", timeout=10) as answer:
            said = json.load(answer)
        assert said["status"] == "success", said
        return list(said["data"]["result"])

    def ever(self, expression: str) -> bool:
        """Say whether a query had a value at any time of the last minutes: the runs may be over."""
        end = time.time()
        query = {"query": expression, "start": end - 300, "end": end, "step": "1"}
        address = f"{self.url}/api/v1/query_range?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            return bool(json.load(answer)["data"]["result"])


@contextlib.contextmanager
def job(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run one job with its page on a port of its own for as long as the block."""
    command = [sys.executable, "-P", "-m", "overproof", *arguments, "--metrics-port", "0", "--json"]
    out = ["--out", str(folder / "runs"), "--seed", "1"]
    with (folder / "said.json").open("w") as said:
        child = start_child([*command, *out], stdout=said, stderr=subprocess.DEVNULL)
    try:
        yield child
    finally:
        end_child(child, grace_s=20)


def address_of(folder: Path) -> str | None:
    rows = (row for path in folder.glob("runs/2*/events.ndjson") for row in read_ndjson(path))
    return next((row["data"]["url"] for row in rows if row["kind"] == SERVED), None)


def short_day(folder: Path) -> Path:
    """Write the game day of the catalogue that kills a replica, with short phases and a guard."""
    text = (ROOT / "experiments" / "catalogue" / "local" / "replica-kill.yaml").read_text()
    workload = ROOT / "experiments" / "catalogue" / "workloads" / "steady-chat.yaml"
    text = re.sub(r"workload: \S+", f"workload: {workload}", text)
    text = text.replace("steady_s: 10", "steady_s: 4").replace("after_s: 10", "after_s: 4")
    guard = "    guards: [{kind: errors, name: errors, share_max: 0.9, window_s: 5, requests_min: 5}]\n"
    path = folder / "day.yaml"
    path.write_text(text.replace("    steady_s", guard + "    steady_s"))
    return path


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """Three real jobs at once, watched by a real Prometheus until they are over."""
    folder = tmp_path_factory.mktemp("scraped")
    folders = {name: folder / name for name in ("load", "gameday", "burnin")}
    for each in folders.values():
        each.mkdir()
    (folders["burnin"] / "plan.yaml").write_text(PLAN)
    day = short_day(folders["gameday"])
    with contextlib.ExitStack() as stack:
        failing = stack.enter_context(
            endpoint("--fault", "error:0.2")
        )  # or the panel of errors would be empty
        (folders["load"] / "w.yaml").write_text(WORKLOAD.format(url=failing.url))
        children = [
            stack.enter_context(job(folders["gameday"], "gameday", "run", str(day))),
            stack.enter_context(job(folders["load"], "load", "run", str(folders["load"] / "w.yaml"))),
            stack.enter_context(
                job(folders["burnin"], "burnin", "run", "--plan", str(folders["burnin"] / "plan.yaml"))
            ),
        ]
        assert wait_until(lambda: all(map(address_of, folders.values())), timeout_s=60)
        pages = [urllib.parse.urlsplit(str(address_of(each))).netloc for each in folders.values()]
        url = stack.enter_context(prometheus(folder, pages))
        for child in children:
            child.wait(timeout=110)
        results = [json.loads((each / "said.json").read_text()) for each in folders.values()]
        yield Scraped(url=url, results=results)


@contextlib.contextmanager
def prometheus(folder: Path, pages: list[str]) -> Iterator[str]:
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [
        {"job_name": "overproof", "static_configs": [{"targets": pages}]}]}  # fmt: skip
    (folder / "prometheus.yml").write_text(json.dumps(config))
    log = folder / "prometheus.log"
    with log.open("w") as file:
        child = start_child(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            stdout=file,
            stderr=file,
        )
    try:
        port = re.compile(r'msg="Listening on" address=127\.0\.0\.1:(\d+)')
        assert wait_until(lambda: port.search(log.read_text()) is not None, timeout_s=20), log.read_text()
        found = port.search(log.read_text())
        assert found is not None
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        end_child(child)


@pytest.mark.needs("prometheus")
def test_every_query_of_the_dashboard_finds_what_real_runs_serve(scraped: Scraped) -> None:
    wanted = [e for e in expressions() if not names_in(e) & NOT_HERE]

    assert len(wanted) > 25
    assert [e for e in wanted if not scraped.ever(e)] == []


@pytest.mark.needs("prometheus")
def test_a_name_that_no_run_serves_is_not_found(scraped: Scraped) -> None:
    assert not scraped.ever("overproof_load_nonsense_seconds")


@pytest.mark.needs("prometheus")
def test_all_that_real_runs_serve_is_declared_with_its_labels(scraped: Scraped) -> None:
    with urllib.request.urlopen(f"{scraped.url}/api/v1/label/__name__/values", timeout=10) as answer:
        names = {name for name in json.load(answer)["data"] if name.startswith("overproof_")}

    assert METRICS.keys() - names <= NOT_HERE
    assert names <= METRICS.keys()


@pytest.mark.needs("prometheus")
def test_the_results_of_these_runs_keep_the_schema(scraped: Scraped) -> None:
    assert [result["kind"] for result in scraped.results] == ["load", "gameday", "burnin"]
    assert [complaints(result) for result in scraped.results] == [[], [], []]


def test_the_dashboard_uses_the_declared_names_and_labels_and_all_of_them() -> None:
    used = {name for e in expressions() for name in names_in(e)}
    text = DASHBOARD.read_text()
    labels = {*re.findall(r"\{\{(\w+)\}\}", text), *re.findall(r'[{,](\w+)(?:=~|!=|=)\\"', text)}

    assert used == METRICS.keys()
    assert labels <= {"instance", *(label for metric in METRICS.values() for label in metric.labels)}


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    cells = [
        (x, y)
        for panel in panels
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.needs("promtool")
def test_promtool_takes_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"query:{n}", "expr": e} for n, e in enumerate(expressions())]
    good, bad = tmp_path / "good.yml", tmp_path / "bad.yml"
    good.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    bad.write_text(json.dumps({"groups": [{"name": "g", "rules": [{"record": "a", "expr": "rate(x[5s)"}]}]}))
    checks = [subprocess.run(["promtool", "check", "rules", str(f)], check=False) for f in (good, bad)]

    assert [check.returncode for check in checks] == [0, 1]


@pytest.mark.needs("promtool")
def test_promtool_has_nothing_to_say_about_the_page() -> None:
    figures = [Figure(m.name, 1.5, dict.fromkeys(m.labels, 'a"\\\n b')) for m in METRICS.values()]
    page = render_page(figures)
    check = ["promtool", "check", "metrics"]
    done = subprocess.run(check, input=page, capture_output=True, check=False)
    spoilt = subprocess.run(check, input=page + b"no{ metric\n", capture_output=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert spoilt.returncode != 0

"""What is kept of the runs that tests made: those of processes of their own, none that a test made up."""

from __future__ import annotations

import json
from pathlib import Path

from reports.record import RUN_FILE, create_run
from tests.kept_runs import keep_runs
from tests.studies.coverage import hits_a_stand_in, render


def test_a_record_of_another_process_is_kept_and_one_that_this_process_wrote_is_not(tmp_path: Path) -> None:
    made_up = create_run(tmp_path / "tests" / "one", kind="gameday", spec={}, seed=1)
    real = create_run(tmp_path / "tests" / "two", kind="gameday", spec={}, seed=1)
    inside = create_run(tmp_path, kind="load", spec={}, seed=1, is_child=True, path=real.path / "load")
    host = create_run(tmp_path, kind="burnin", spec={}, seed=1, is_child=True, path=real.path / "hosts" / "a")
    for writer in (real, inside, host):
        header = json.loads((writer.path / RUN_FILE).read_text())
        (writer.path / RUN_FILE).write_text(json.dumps(header | {"pid": 1}))
        (writer.path / "requests" / "big.parquet").write_text("")
    for writer in (made_up, real, inside, host):
        writer.close()
    (tmp_path / "tests" / "spoilt").mkdir()
    (tmp_path / "tests" / "spoilt" / RUN_FILE).write_text("{")

    kept = keep_runs(tmp_path / "tests", tmp_path / "kept")

    assert kept == [tmp_path / "kept" / real.path.name]
    assert {str(p.relative_to(kept[0])) for p in kept[0].rglob("*") if p.is_file()} == {
        "run.json",
        "hosts/a/run.json",
    }


def test_a_fault_that_hit_a_stand_in_for_a_tool_is_told_apart(tmp_path: Path) -> None:
    runs = {}
    for name in ("gpu.unbind", "service.stop", "link.down"):
        writer = create_run(tmp_path, kind="gameday", spec={}, seed=1)
        writer.event("fault", "fault.injected", fault=name)
        writer.close()
        runs[name] = hits_a_stand_in(writer.path)

    assert runs == {"gpu.unbind": True, "service.stop": True, "link.down": False}


def test_the_page_names_the_shares_the_gaps_and_the_command() -> None:
    row = {"cause": "NIC", "count": 7, "categories": ["nic"], "is_detectable": True, "fidelities": []}
    row |= {"is_detectable_in_service": False, "is_injectable": False, "is_shown": False}
    table = {"title": "T", "source": "S", "unit": "incidents", "total": 70, "shown_share": 0.0, "rows": [row]}
    table |= dict.fromkeys(
        ("detectable_share", "detectable_in_service_share", "injectable_share", "injectable_above_s_share"),
        0.1,
    )
    category = {"id": "nic", "title": "a NIC", "detectors": [], "injections": [], "shown": []}
    document = {"tables": [table], "categories": [category], "runs": ["a"]}
    document |= {"not_counted": ["b: a load run breaks nothing", "c: a load run breaks nothing"]}

    said = {"test": "tests/x.py", "day": "2026-11-21", "said": "3 passed in 1 s"}
    page = "\n".join(render(document, [said]))

    assert "| tests/x.py | 2026-11-21 | 3 passed in 1 s |" in page
    assert "1 runs count; 2 do not: 2 × a load run breaks nothing." in page
    assert "| T | **0.0%** | 10.0% | 10.0% | 10.0% | 10.0% |" in page
    assert "- Not shown of T: NIC (10.0%)." in page
    assert "| NIC | 7 | 10.0% | at acceptance | **no** | **no** | nic |" in page
    assert "| nic | a NIC | **nothing** | **nothing** | **no** |" in page

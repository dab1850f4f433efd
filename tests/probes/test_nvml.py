"""NVML sensors through the real pynvml, against a twin of the driver's library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.twins.machine import LIBRARY, build_driver
from tests.twins.nvml import Scenario, build_twin, uuid

pytestmark = pytest.mark.needs("gcc")

READ_ALL = """
import json, sys
from probes import nvml
nvml.open_nvml()
found = []
readings = nvml.IDENTITY | nvml.FAST | nvml.SAMPLED | nvml.COUNTED | {"processes": nvml.read_processes}
for index in range(nvml.count_gpus()):
    gpu, seen = nvml.open_gpu(index), {}
    for name, read in readings.items():
        try:
            seen[name] = read(gpu)
        except nvml.Unsupported:
            seen[name] = "unsupported"
        except nvml.SensorError as error:
            seen[name] = "lost" if error.is_lost else f"error: {error}"
    found.append(seen)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_twin(tmp_path_factory.mktemp("twin"))


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    return Scenario(tmp_path / "scenario")


def _run(code: str, scenario: Scenario, twin: Path | None) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: a library is loaded once and for all."""
    extra = scenario.environment(twin) if twin else {"LD_LIBRARY_PATH": "/nonexistent"}
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=os.environ | extra,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def _read(scenario: Scenario, twin: Path) -> list[dict[str, object]]:
    done = _run(READ_ALL, scenario, twin)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def test_every_reading_of_a_healthy_gpu_is_there_with_its_unit(scenario: Scenario, twin: Path) -> None:
    scenario.set(
        gpus=2, temperature_1=71, power_mw_1=650_500, ecc_corrected_1=3, thermal_ns_1=77, processes_1=4242
    )
    first, second = _read(scenario, twin)

    assert first["uuid"] == uuid(0)
    assert second["uuid"] == uuid(1)
    assert (second["temperature_c"], second["power_w"], second["ecc_corrected"]) == (71, 650.5, 3)
    assert (second["throttled_thermal_ns"], second["processes"]) == (77, [4242])
    assert (second["memory_temperature_c"], second["slowdown_c"]) == (70, 90)
    assert not [
        name for name, value in (first | second).items() if isinstance(value, str) and "error" in value
    ]


def test_a_lost_gpu_is_told_apart_from_a_silent_sensor_and_the_other_gpu_answers(
    scenario: Scenario, twin: Path
) -> None:
    scenario.set(gpus=2, lost_0=1, silent_power_1=1)
    first, second = _read(scenario, twin)

    assert first["temperature_c"] == first["ecc_uncorrected"] == "lost"
    assert second["power_w"] == "error: Unknown Error"
    assert second["temperature_c"] == 55


def test_a_call_that_the_driver_lacks_is_unsupported_and_nothing_else_suffers(
    scenario: Scenario, tmp_path: Path
) -> None:
    scenario.set(gpus=1)
    (seen,) = _read(scenario, build_driver(tmp_path, 535) / LIBRARY)

    lacking = {name for name, value in seen.items() if value == "unsupported"}
    assert lacking == {"temperature_margin_c"}
    assert seen["ecc_uncorrected"] == 0


def test_time_held_back_is_read_from_the_fields_where_the_driver_lacks_the_call(
    scenario: Scenario, tmp_path: Path
) -> None:
    scenario.set(gpus=1, thermal_ns=5, power_ns=6, board_ns=7, reliability_ns=8)
    (seen,) = _read(scenario, build_twin(tmp_path, has_violation=False))

    names = ("thermal", "power", "board", "reliability")
    assert [seen[f"throttled_{name}_ns"] for name in names] == [5, 6, 7, 8]


def test_a_field_that_a_board_lacks_is_unsupported_although_no_exception_says_so(
    scenario: Scenario, twin: Path
) -> None:
    scenario.set(gpus=1)
    code = (
        "from probes import nvml\nnvml.open_nvml()\n"
        "try: nvml.read_field(nvml.open_gpu(0), 220)\n"
        "except nvml.Unsupported as error: print('unsupported', error)\n"
    )

    assert "unsupported field 220" in _run(code, scenario, twin).stdout


def test_an_xid_arrives_with_its_gpu_and_silence_is_no_error(scenario: Scenario, twin: Path) -> None:
    scenario.set(gpus=2, xid=79, xid_gpu=1)
    code = (
        "import json\nfrom probes import nvml\nnvml.open_nvml()\n"
        "events, _ = nvml.open_events([nvml.open_gpu(0), nvml.open_gpu(1)])\n"
        "print(json.dumps([nvml.wait_for_event(events, timeout_ms=50) for _ in range(2)]))\n"
    )

    assert json.loads(_run(code, scenario, twin).stdout) == [{"gpu": uuid(1), "xid": 79}, None]


def test_a_machine_without_the_library_and_a_driver_that_fails_are_two_things(
    scenario: Scenario, twin: Path
) -> None:
    scenario.set(gpus=1, init=9)
    code = (
        "from probes import nvml\n"
        "try: nvml.open_nvml()\n"
        "except nvml.LibraryAbsent: print('absent')\n"
        "except nvml.SensorError as error: print('failed:', error)\n"
    )

    assert _run(code, scenario, twin).stdout == "failed: Driver Not Loaded\n"
    if not Path("/dev/nvidiactl").exists():
        assert _run(code, scenario, None).stdout == "absent\n"

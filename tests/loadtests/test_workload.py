"""Workload files: every example is valid, and a mistake is named with its line and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

import loadtests
from loadtests.dry_run import plan_dry
from loadtests.spec.endpoint import check_url, read_api_key, read_headers
from loadtests.spec.inputs import check_inputs
from loadtests.spec.workload import WorkloadSpec, load_workload, override
from probes.errors import ConfigError

EXAMPLES = sorted((Path(loadtests.__file__).parent / "workloads").glob("*.yaml"))
GOOD = "name: x\narrivals: {kind: poisson, rate_per_s: 2}\nduration_s: 5\n"


def load(tmp_path: Path, text: str) -> None:
    path = tmp_path / "workload.yaml"
    path.write_text(text)
    load_workload(path).to_workload()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_valid_and_promises_something(path: Path) -> None:
    spec = load_workload(path)
    promised = {slo.metric for slo in spec.to_workload().slos}
    expected = spec.expect.autoscale if spec.expect else None

    if expected is None:
        assert promised >= {"ttft_ms", "itl_ms", "goodput"}
    else:  # what came while there was too little capacity is one event, and no share of the whole run
        assert expected.scale_up is not None
        assert promised | {slo.metric for slo in expected.scale_up.slos} >= {"ttft_ms", "itl_ms"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("[1, 2", "not YAML"),
        ("- a\n- b\n", "workload.yaml:1: wanted keys with values"),
        (GOOD + "slo: []\n", "workload.yaml:4: slo: unknown key; did you mean 'slos'?"),
        (GOOD.replace("poisson", "poison"), "workload.yaml:2: arrivals: got {'kind': 'poison'"),
        (GOOD.replace("rate_per_s: 2", "rate_per_s: 0"), "workload.yaml:2: arrivals.rate_per_s: got 0"),
        (GOOD.replace("duration_s: 5", "duration_s: soon"), "workload.yaml:3: duration_s: got 'soon'"),
        ("name: x\nduration_s: 5\n", "arrivals: this key is missing"),
        (
            GOOD + "endpoint:\n  url: ftp://x\n",
            "workload.yaml:5: endpoint.url: got 'ftp://x'; wanted an address such as http",
        ),
        (GOOD.replace("rate_per_s: 2", "users: 2"), "workload.yaml:2: arrivals.users: unknown key"),
        (GOOD.replace("poisson", "gamma"), "give either cv or shape"),
        (GOOD + "hang_ups: {share: 0.1}\n", "give either after_events or patience_s"),
        (GOOD + "endpoint:\n  headers: {X-Api-Key: abc}\n", "looks like a secret; write {env: VARIABLE}"),
        (GOOD + 'endpoint:\n  headers: {X-A: "a\\r\\nb: c"}\n', "is not printable ASCII"),
        (GOOD + "endpoint:\n  headers: {Host: a}\n", "'Host' is set by the client itself"),
        (GOOD + "prompt: {file: a, pairs_file: b}\n", "give one of pairs_file and file"),
        (GOOD + "endpoint:\n  url: x:80\n", "wanted an address such as http://host:8000"),
        (GOOD + "endpoint:\n  body: {stream: false}\n", "'stream' is set by the workload itself"),
        (GOOD + "slos:\n  - {metric: ttft, statistic: p95, bound: 1}\n", "metric 'ttft' is unknown; one of"),
        (GOOD + "slos:\n  - {metric: ttft_ms, bound: 1}\n", "give either objective: 0.95 or statistic: p95"),
        (GOOD + "slos:\n  - {metric: ttft_ms, objective: 0.9}\n", "every metric but goodput needs a bound"),
        (GOOD + "slos:\n" + "  - {metric: goodput, objective: 0.9}\n" * 2, "two SLOs are named 'goodput'"),
        (
            GOOD + "prompt:\n  input_tokens: {kind: normal, mean: 3, stddev: 1, min: 9, max: 8}\n",
            "min 9 is above max 8",
        ),
        (GOOD + "prompt:\n  input_tokens: {kind: normal, mean: .inf, stddev: 1}\n", "input_tokens"),
        (GOOD + "prompt:\n  input_tokens: {kind: lognormal, mean: 1e-300, stddev: 1}\n", "input_tokens"),
        (GOOD + "prompt:\n  pairs: [{input_tokens: 3, output_tokens: 3, weight: .inf}]\n", "weight: got inf"),
        (GOOD.replace("duration_s: 5", "duration_s: .nan"), "duration_s"),
        (
            "name: x\nduration_s: 3\narrivals: {kind: diurnal, rate_per_s: 1, swing: 1, peak_at_s: .inf}\n",
            "peak_at_s: got inf",
        ),
    ],
)
def test_a_mistake_is_named_with_file_line_key_and_what_would_be_right(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)

    assert said in str(caught.value)
    assert str(tmp_path / "workload.yaml") in str(caught.value)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://h:1/v1", "http://h:1"),
        ("http://h:1/", "http://h:1"),
        ("http://h/openai/v1/", "http://h/openai"),
    ],
)
def test_an_address_may_end_with_the_apis_version(url: str, base: str) -> None:
    assert check_url(url) == base


def test_the_command_line_overrides_address_and_duration(tmp_path: Path) -> None:
    path = tmp_path / "workload.yaml"
    path.write_text(GOOD)

    spec = override(load_workload(path), url="http://h:1/v1", duration_s=9)

    assert (spec.endpoint.url, spec.duration_s) == ("http://h:1", 9)
    with pytest.raises(ConfigError, match="--endpoint 'ftp://h'"):
        override(spec, url="ftp://h", duration_s=None)


def test_a_key_comes_from_the_environment_or_a_file_and_a_missing_one_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, key_file = tmp_path / "workload.yaml", tmp_path / "key"
    path.write_text(GOOD + "endpoint: {api_key_env: OVERPROOF_TEST_KEY}\n")
    from_environment = load_workload(path).endpoint
    path.write_text(GOOD + f"endpoint: {{api_key_file: {key_file}}}\n")
    from_file = load_workload(path).endpoint

    with pytest.raises(ConfigError, match="the environment has no OVERPROOF_TEST_KEY"):
        read_api_key(from_environment)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_api_key(from_file)
    monkeypatch.setenv("OVERPROOF_TEST_KEY", "one")
    key_file.write_text("two\n")
    assert (read_api_key(from_environment), read_api_key(from_file)) == ("one", "two")


def test_a_secret_header_comes_from_the_environment_and_the_spec_holds_only_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "workload.yaml"
    path.write_text(GOOD + "endpoint: {headers: {X-Team: a, X-Api-Key: {env: OVERPROOF_TEST_KEY}}}\n")
    spec = load_workload(path)

    with pytest.raises(ConfigError, match=r"endpoint.headers.X-Api-Key: OVERPROOF_TEST_KEY"):
        read_headers(spec.endpoint)
    monkeypatch.setenv("OVERPROOF_TEST_KEY", "s3cret")

    assert read_headers(spec.endpoint) == {"X-Team": "a", "X-Api-Key": "s3cret"}
    assert "s3cret" not in spec.model_dump_json()


def test_a_workloads_files_are_found_beside_it_and_read_before_anything_is_touched(tmp_path: Path) -> None:
    path, trace = tmp_path / "workload.yaml", tmp_path / "t.jsonl"
    path.write_text("name: x\narrivals: {kind: trace, file: t.jsonl, format: mooncake}\nduration_s: 5\n")
    good = '{"timestamp": 0, "input_length": 4, "output_length": 2}\n'
    workload = load_workload(path).to_workload()

    with pytest.raises(ConfigError, match="cannot be read"):
        check_inputs(workload, seed=1)
    trace.write_text(good + "{\n")
    with pytest.raises(ConfigError, match=f"{trace}:2: "):
        check_inputs(workload, seed=1)
    trace.write_text(good * 3)

    assert check_inputs(workload, seed=1)["arrivals"] == 3


def test_several_kinds_of_prompts_survive_the_way_to_the_load_process() -> None:
    kind = {"weight": 1, "prompt": {"output_tokens": {"kind": "constant", "value": 9}}}
    document = {"name": "x", "arrivals": {"kind": "constant", "rate_per_s": 1}, "duration_s": 1}
    spec = WorkloadSpec.model_validate(document | {"classes": [kind, kind]})

    assert WorkloadSpec.model_validate(spec.model_dump(mode="json")) == spec
    with pytest.raises(ValidationError, match="prompt or classes"):
        WorkloadSpec.model_validate(document | {"classes": [kind], "prompt": kind["prompt"]})


def test_a_bare_name_means_a_workload_of_ours_unless_a_file_here_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert load_workload(Path("demo")).name == "demo"
    with pytest.raises(ConfigError, match=r"nonesuch: cannot be read: .*; those are .*\bdemo\b"):
        load_workload(Path("nonesuch"))
    with pytest.raises(ConfigError, match="folder/demo: cannot be read"):
        load_workload(Path("folder/demo"))

    (tmp_path / "demo").write_text((Path(loadtests.__file__).parent / "workloads" / "chat.yaml").read_text())
    assert load_workload(Path("demo")).name == "chat"


def test_a_dry_run_refuses_a_trace_without_a_request_as_the_run_itself_does(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n")
    path = tmp_path / "workload.yaml"
    path.write_text("name: x\narrivals: {kind: trace, file: trace.csv, format: azure}\nduration_s: 5\n")

    with pytest.raises(ConfigError, match="no request in this window"):
        plan_dry(load_workload(path), seed=1)

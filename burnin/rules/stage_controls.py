"""Seeded readings for the rules of the stages: what they must not let pass, tried on paper."""

from __future__ import annotations

from collections.abc import Callable

from burnin.node.pattern_names import PATTERN_NAMES
from burnin.rules.arithmetic import judge_digests, judge_first_product, judge_operands
from burnin.rules.collective import judge_allreduce
from burnin.rules.link_figures import judge_link_speed, judge_transport
from burnin.rules.liveness import judge_hung
from burnin.rules.memory_rule import LOAD_SHARE_MIN, judge_memory
from burnin.rules.speed import judge_speed
from burnin.rules.transfer import RATIO_MIN, judge_common_end, judge_copy_speed, judge_link
from probes.finding import Finding
from probes.json_types import JsonObject

Seeded = dict[str, Callable[[], Finding]]


def stage_faults(stage: str) -> Seeded:
    """Return the faults of a stage by name, each with the rule that has to find it; empty: it has none."""
    faults: dict[str, Seeded] = {
        "memory": {
            "memory that was not tested": _untested_memory,
            "memory checked without load": _idle_memory,
        },
        "bandwidth": {"slow copies": _slow_copies},
        "links": {
            "link tried one way only": _half_link,
            "device with broken links": _common_end,
            "NVLink that NCCL did not take": _astray_link,
            "link at half the speed of the others": _slow_link,
        },
        "allreduce": {"incomplete sweep": _incomplete_sweep, "hung collective": _hung},
        "power": {
            "corrupted operand": _corrupted_operand,
            "lone dissenter": _lone_dissenter,
            "two that disagree": _tie,
            "product beyond rounding": _beyond_rounding,
            "slow at full power": _slow_power,
        },
    }
    return faults.get(stage, {})


def _memory(*, covered_bytes: int = 98, load_share: float = 0.9) -> Finding:
    each: JsonObject = {"passes": 1, "words": 9, "miscompared_words": 0, "load": "products"}
    each |= {"load_share": load_share, "load_tflops": 500.0}
    return judge_memory(
        "GPU-1",
        patterns=PATTERN_NAMES,
        results=[each | {"pattern": name} for name in PATTERN_NAMES],
        miscompares=[],
        share={"free_bytes": 100, "covered_bytes": covered_bytes},
        is_bounded=False,
        load_share_min=LOAD_SHARE_MIN["cuda"],
    )


def _untested_memory() -> Finding:
    return _memory(covered_bytes=90)


def _idle_memory() -> Finding:
    return _memory(load_share=0.1)


def _slow_copies() -> Finding:
    siblings = {f"GPU-{index}": {"device to host": 50.0} for index in range(2, 9)}
    return judge_copy_speed("GPU-1", {"device to host": 25.0}, siblings, ratio_min=RATIO_MIN["cuda"])


def _link(one: str, other: str, *, wrong: int = 0, receivers: int = 4) -> Finding:
    ways = (
        (other, "first to second"),
        (one, "second to first"),
        (one, "both ways"),
        (other, "both ways"),
    )
    results: list[JsonObject] = [
        {
            "receiver": receiver,
            "phase": "together",
            "way": way,
            "gbps": 300.0,
            "transports": [],
            "backend": "nccl",
            "miscompared_words": wrong,
        }
        for receiver, way in ways[:receivers]
    ]
    return judge_link(
        f"{one}-{other}",
        devices=(one, other),
        results=results,
        miscompares=[],
        skipped=[],
        failures=[],
        phases=["together"],
    )


def _half_link() -> Finding:
    return _link("a", "b", receivers=1)


def _common_end() -> Finding:
    links = [_link("a", "b", wrong=1), _link("a", "c", wrong=1), _link("b", "c")]
    return next(iter(judge_common_end(links)), links[2])  # the healthy link stands for not found


def _astray_link() -> Finding:
    results: list[JsonObject] = [{"backend": "nccl", "transports": ["SHM/direct/direct"]}]
    return judge_transport("a-b", devices=("a", "b"), results=results, is_wired=True)


def _slow_link() -> Finding:
    return judge_link_speed("a-b", devices=("a", "b"), rate=180.0, others=[360.0] * 27, is_wired=True)


def _incomplete_sweep() -> Finding:
    result: JsonObject = {
        "algorithm": "auto",
        "size_bytes": 8,
        "rounds": 5,
        "elements": 10,
        "busbw_gbps": 1.0,
        "ranks": 2,
        "backend": "nccl",
        "miscompared_elements": 0,
    }
    return judge_allreduce(
        "GPU-1",
        results=[result],
        miscompares=[],
        is_done=True,
        impossible=None,
        failures=[],
        plans=[{"algorithm": "auto", "sizes_bytes": [8, 1024]}],
    )


def _hung() -> Finding:
    stalled = {"stage": "allreduce", "stall_s": 10, "is_waiting": True, "devices": ["a", "b"]}
    return judge_hung("h", [stalled])[0]


def _corrupted_operand() -> Finding:
    sound: JsonObject = {"when": "before", "differing": [], "elements": 9}
    return judge_operands("GPU-1", [sound, sound | {"when": "after", "differing": ["b"]}])


def _vote(*digests: str) -> Finding:
    """Return what the last device is found to be."""
    results: dict[str, JsonObject | None] = {
        f"GPU-{index}": {"digests": 9, "digest_every": 9, "digest": digest, "dissents": 0}
        for index, digest in enumerate(digests)
    }
    return judge_digests(results, dict.fromkeys(results, 0), dict.fromkeys(results, "alike"))[-1]


def _lone_dissenter() -> Finding:
    return _vote("aa", "aa", "bb")


def _tie() -> Finding:
    return _vote("aa", "bb")


def _beyond_rounding() -> Finding:
    return judge_first_product("GPU-1", [{"stage": "power", "elements": 9, "outside": 1}])


def _slow_power() -> Finding:
    siblings = {f"GPU-{index}": [700.0] * 9 for index in range(2, 9)}
    return judge_speed("GPU-1", [595.0] * 9, siblings, ratio_min=0.9)

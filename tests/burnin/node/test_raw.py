"""Raw readings: kept within a bound, handed over whole, and what was dropped is said."""

from __future__ import annotations

import base64
import gzip
import json

from burnin.node.raw import RAW_BLOCK, RAW_KEPT, READINGS_PER_BLOCK, RawStore
from tests.burnin.bench_fake import FakeSpeaker


def _fill(store: RawStore, count: int) -> None:
    for number in range(count):
        store.add("GPU-1", {"power_w": number})


def _read(speaker: FakeSpeaker) -> list[int]:
    blocks = [base64.b64decode(data["gzip"]) for data in speaker.told(RAW_BLOCK)]
    return [json.loads(line)["power_w"] for line in gzip.decompress(b"".join(blocks)).splitlines()]


def test_all_readings_within_the_bound_come_back_in_order_as_one_file() -> None:
    store, speaker = RawStore(bytes_max=1 << 20), FakeSpeaker()
    _fill(store, READINGS_PER_BLOCK + 10)
    store.hand_over(speaker)

    assert _read(speaker) == list(range(READINGS_PER_BLOCK + 10))
    (kept,) = speaker.told(RAW_KEPT)
    assert (kept["readings"], kept["dropped"]) == (READINGS_PER_BLOCK + 10, 0)


def test_beyond_the_bound_the_oldest_go_and_are_counted() -> None:
    store, speaker = RawStore(bytes_max=60_000), FakeSpeaker()
    _fill(store, 10 * READINGS_PER_BLOCK)
    store.hand_over(speaker)

    (kept,) = speaker.told(RAW_KEPT)
    assert kept["dropped"] > 0
    assert kept["dropped"] + kept["readings"] == 10 * READINGS_PER_BLOCK
    assert kept["kept_bytes"] <= 60_000
    assert _read(speaker)[-1] == 10 * READINGS_PER_BLOCK - 1


def test_without_room_nothing_is_kept() -> None:
    store, speaker = RawStore(bytes_max=0), FakeSpeaker()
    _fill(store, 5)
    store.hand_over(speaker)

    assert speaker.told(RAW_BLOCK) == []
    assert speaker.told(RAW_KEPT)[0]["readings"] == 0

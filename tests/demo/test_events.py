"""demo/events.jsonl: the committed file is what its generator writes, and it is what the demo says it is."""

from __future__ import annotations

import importlib.util
import ipaddress
import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DEMO = Path(__file__).parents[2] / "demo"
DOCUMENTATION = [
    ipaddress.ip_network(n) for n in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_events", DEMO / "make_events.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def committed() -> bytes:
    return (DEMO / "events.jsonl").read_bytes()


@pytest.fixture(scope="module")
def records(committed: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in committed.splitlines()]


def test_the_generator_writes_the_committed_bytes(generator: ModuleType, committed: bytes) -> None:
    written = b"".join(map(generator.as_line, generator.make_records()))
    # Not `written == committed` in the assert: pytest would explain the difference of two 3 MB strings for minutes.
    same = written == committed
    assert same, "demo/events.jsonl is not what demo/make_events.py writes: run it and commit both"


def test_another_seed_makes_other_records(generator: ModuleType, records: list[dict[str, Any]]) -> None:
    assert generator.make_records(count=10, seed=generator.SEED + 1) != records[:10]


def test_enough_records_of_every_type_in_a_file_small_enough_to_ship(
    committed: bytes, records: list[dict[str, Any]]
) -> None:
    assert len(records) >= 10_000
    assert len(committed) < 4_000_000
    assert committed.count(b"\n") == len(records), "a line separator within a record, or none at the end"
    types = Counter(record["type"] for record in records)
    assert set(types) == {"track", "identify", "page", "purchase"}
    assert min(types.values()) > 300


def test_every_record_has_the_fields_of_its_type(records: list[dict[str, Any]]) -> None:
    fields = {"track": "event", "identify": "traits", "page": "name", "purchase": "properties"}
    for record in records:
        assert len(record["messageId"]) == 20
        assert ("userId" in record) != ("anonymousId" in record)
        assert record[fields[record["type"]]]
        if record["type"] == "purchase":
            assert record["properties"]["amount"] > 0
            assert len(record["properties"]["currency"]) == 3
        else:
            ip = ipaddress.ip_address(record["context"]["ip"])
            assert any(ip in network for network in DOCUMENTATION)


def test_records_come_in_order_over_several_hours(records: list[dict[str, Any]]) -> None:
    first = datetime.fromisoformat(records[0]["timestamp"])
    last = datetime.fromisoformat(records[-1]["timestamp"])
    assert 4 < (last - first).total_seconds() / 3600 < 8
    # A record that was sent twice keeps the time at which it happened, so it is the one that comes late.
    seen: set[str] = set()
    once = [
        record["timestamp"] for record in records if not (record["messageId"] in seen or seen.add(record["messageId"]))
    ]
    assert once == sorted(once)


def test_some_were_sent_twice_and_are_the_same_then(records: list[dict[str, Any]]) -> None:
    by_id: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_id.setdefault(record["messageId"], []).append(record)
    twice = [same for same in by_id.values() if len(same) > 1]
    assert 50 < len(twice) < 300
    assert all(same == [same[0]] * len(same) for same in twice)


def test_some_text_is_not_ascii(committed: bytes) -> None:
    assert sum(not line.isascii() for line in committed.splitlines()) > 500

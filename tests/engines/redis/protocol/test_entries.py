"""Entries as messages, and the other way round; ids."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtools.attributes import TOMBSTONE, Attributes
from qtools.engines.redis.protocol.entries import (
    EntryParts,
    attributes_of,
    bodies_of,
    fields_of,
    parts_of,
    timestamp_of,
)
from qtools.engines.redis.protocol.stream_ids import FIRST, StreamId, id_before, message_id, time_of

names = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(
        ["body", "key", "null-body", "timestamp-ns", "header:", "header:x", "null-header:x", "header:body"]
    ),
)
headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=5)), max_size=5)


@given(
    st.binary(max_size=10) | st.just(TOMBSTONE), st.none() | st.binary(max_size=5), headers,
    st.none() | st.integers(0, 2**63 - 1),
)  # fmt: skip
def test_what_is_written_is_read_as_it_was(
    body: bytes, key: bytes | None, given_headers: list[tuple[str, bytes | None]], time: int | None
) -> None:
    found = parts_of(fields_of(body, key, given_headers, time))
    assert found == EntryParts(body, key, found.headers, time)
    assert list(found.headers) == given_headers
    assert (found.body is TOMBSTONE) == (body is TOMBSTONE)


FOREIGN = [
    ([b"temperature", b"20", b"place", b"north"], {"temperature": "20", "place": "north"}),
    ([b"a", b"\xff\x00"], {"a": {"base64": "/wA="}}),
    ([b"a", b"1", b"a", b"2", b"b", b"3", b"a", b"4"], {"a": ["1", "2", "4"], "b": "3"}),
    ([b"body", b"1", b"body", b"2"], {"body": ["1", "2"]}),
    ([b"body", b"1", b"null-body", b""], {"body": "1", "null-body": ""}),
    ([b"body", b"1", b"key", b"2", b"key", b"3"], {"body": "1", "key": ["2", "3"]}),
    ([b"\xff", b"x"], {"\\xff": "x"}),
    ([b"key", b"k"], {"key": "k"}),
]


@pytest.mark.parametrize(("fields", "expected"), FOREIGN, ids=repr)
def test_an_entry_without_one_body_is_json(fields: list[bytes], expected: dict[str, object]) -> None:
    found = parts_of(fields)
    assert orjson.loads(found.body) == expected
    assert (found.key, found.headers, found.timestamp) == (None, (), None)


def test_fields_of_other_programs_beside_a_body_are_headers() -> None:
    found = parts_of([b"trace", b"7", b"body", b"x", b"timestamp-ns", b"yesterday", b"\xff", b"y"])
    assert found == EntryParts(b"x", None, [("trace", b"7"), ("timestamp-ns", b"yesterday"), ("\\xff", b"y")])
    assert parts_of([b"body", b"x", b"timestamp-ns", b"9" * 30]).headers == [("timestamp-ns", b"9" * 30)]


@pytest.mark.parametrize("timestamp", [-1_000_000, 1 << 63, 1_795_962_161_000_000 * 10**9])
def test_times_that_no_message_can_have_are_not_kept(timestamp: int) -> None:
    """As Kafka has them. Written as they are, they would be read as a header."""
    fields = fields_of(b"x", b"k", (), timestamp)
    assert parts_of(fields) == EntryParts(b"x", b"k", [], None)


def test_columns() -> None:
    plain = [[b"5-1", [b"body", b"a"]], [b"6-0", [b"body", b""]]]
    assert bodies_of(plain) == [b"a", b""]
    assert attributes_of(plain) == Attributes(timestamps=[5_000_000, 6_000_000])
    assert attributes_of(plain, ("keys", "headers")) == Attributes()
    entries = [*plain, [b"7-0", [b"x", b"y"]], [b"8-0", fields_of(TOMBSTONE, b"k", [("h", None)], 9)]]
    assert bodies_of(entries) == [b"a", b"", b'{"x":"y"}', b""]
    assert bodies_of(entries)[3] is TOMBSTONE
    assert attributes_of(entries) == Attributes(
        [None, None, None, b"k"], [(), (), (), [("h", None)]], [5_000_000, 6_000_000, 7_000_000, 9]
    )
    assert list(map(timestamp_of, entries)) == [5_000_000, 6_000_000, 7_000_000, 9]
    assert attributes_of(entries, ("keys",)) == Attributes(keys=[None, None, None, b"k"])


def test_ids() -> None:
    assert StreamId.of(b"12-3") == (12, 3)
    assert StreamId.of(b"12") == (12, 0)
    assert StreamId.of(b"9-10") < StreamId.of(b"10-0") < StreamId.of(b"10-1")
    assert bytes(StreamId(1, 2)) == b"1-2"
    assert id_before(1.5) == b"1499-18446744073709551615"
    assert id_before(0) == FIRST
    assert time_of(b"1700000000123-4") == 1_700_000_000_123_000_000
    assert time_of(b"18446744073709551615-1") == 2**63 - 1


def test_ids_of_messages_are_16_digits_and_differ() -> None:
    assert message_id(b"1700000000123-4") == b"18bcfe5687b00004"
    found = {message_id(b"%d-%d" % (ms, number)) for ms in (0, 1, 2**43, 2**44, 2**64 - 1) for number in (0, 1, 2**20)}
    assert len(found) == 15
    assert all(len(ident) == 16 and int(ident, 16) >= 0 for ident in found)

"""Field tables and properties: golden bytes, every type, and what is refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtools.engines.amqp.protocol.properties import Properties, decode_properties
from qtools.engines.amqp.protocol.values import (
    Bytes,
    Timestamp,
    bytes_of,
    read_table,
    short,
    table,
    text_of,
)  # fmt: skip
from qtools.errors import ProtocolError

from .recordings import FULL, PLAIN


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        (True, "7401"), (False, "7400"), (5, "4900000005"), (-1, "49ffffffff"), (2**31, "6c0000000080000000"),
        (-(2**63), "6c8000000000000000"), (0.5, "643fe0000000000000"), (b"ab", "53000000026162"),
        ("ä", "5300000002c3a4"), (Bytes(b"\0"), "780000000100"), (Timestamp(1), "540000000000000001"), (None, "56"),
        (Decimal("1.25"), "44020000007d"), ([], "4100000000"), ([1, None], "4100000006490000000156"),
        ([("n", b"x")], "46000000080" "16e530000000178"),
    ],
)  # fmt: skip
def test_values_as_bytes(value: Any, raw: str) -> None:
    encoded = table([("k", value)])
    assert encoded[6:].hex() == raw
    found, end = read_table(encoded, 0)
    assert end == len(encoded)
    assert found == [("k", value.encode() if isinstance(value, str) else value)]


@pytest.mark.parametrize(
    ("raw", "value"),
    [("62ff", -1), ("42ff", 255), ("73ffff", -1), ("55ffff", -1), ("75ffff", 65535), ("69ffffffff", 2**32 - 1),
     ("4cffffffffffffffff", -1), ("663f000000", 0.5)],
)  # fmt: skip
def test_types_that_are_only_read(raw: str, value: Any) -> None:
    data = bytes.fromhex(raw)
    assert read_table((2 + len(data)).to_bytes(4, "big") + b"\1k" + data, 0)[0] == [("k", value)]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("00000005016b49", "a table ends behind its frame"),
        ("00000003016b3f", "a value of the unknown type 63"),
        ("00000004016b5300", "ends behind|unpack"),
        ("0000000800000000000000", "ends behind"),
        ("00000007016b5300000005", "a string ends behind its frame"),
    ],
)
def test_a_broken_table(raw: str, why: str) -> None:
    with pytest.raises(ProtocolError):
        decode_properties(b"\x20\0" + bytes.fromhex(raw))


def test_tables_are_not_nested_without_end() -> None:
    value: Any = [("n", 1)]
    for _ in range(40):
        value = [("n", value)]
    with pytest.raises(ProtocolError, match="tables are nested more than 32 deep"):
        read_table(table(value), 0)


def test_a_name_has_at_most_255_bytes() -> None:
    assert short("x" * 255)[0] == 255
    with pytest.raises(ValueError, match="256 bytes are too many"):
        short("x" * 256)


def test_names_that_are_not_utf_8() -> None:
    assert bytes_of(text_of(b"\xff\xfe")) == b"\xff\xfe"


def test_all_properties() -> None:
    assert decode_properties(FULL.encode()) == FULL
    assert decode_properties(PLAIN.encode()) == PLAIN
    assert PLAIN.encode().hex() == "10c002" + "10" + "30" * 16 + "000000006553f100"
    assert decode_properties(b"\0\0") == Properties()


@pytest.mark.parametrize("length", range(len(FULL.encode())))
def test_properties_that_end_early(length: int) -> None:
    with pytest.raises(ProtocolError):
        decode_properties(FULL.encode()[:length])


def test_properties_that_go_on() -> None:
    with pytest.raises(ProtocolError, match="goes on behind its last property"):
        decode_properties(PLAIN.encode() + b"\0")
    with pytest.raises(ProtocolError, match="flags of properties that AMQP 0-9-1 does not have"):
        decode_properties(b"\0\1\0\0")


names = st.text(max_size=10)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=20) | st.floats(allow_nan=False)
    | st.integers(0, 2**64 - 1).map(Timestamp) | st.binary(max_size=5).map(Bytes),
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(names, inner), min_size=1, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(st.lists(st.tuples(names, values), max_size=5))
def test_tables_come_back(pairs: list[tuple[str, Any]]) -> None:
    encoded = table(pairs)
    assert read_table(encoded, 0) == (pairs, len(encoded))

"""Field tables (AMQP 0-9-1, 4.2.5.5) with the types that RabbitMQ sends. In: bytes. Out: values of Python, and back.

    table    ├ size 4 ┼ name: length 1, bytes ┼ type 1 ┼ value ┤…        array    ├ size 4 ┼ type 1 ┼ value ┤…

A table is a list of pairs, so that its order is kept. RabbitMQ's types differ from those of the specification: 's' is
an int16, 'l' an int64, and 'x' bytes (RabbitMQ's page "AMQP 0-9-1 Errata", 3).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from qtools.errors import ProtocolError

Table = list[tuple[str, Any]]

MOST_NESTED = 32  # tables in tables; real ones have two or three levels

_NUMBERS = {
    ord(kind): struct.Struct(">" + form)
    for kind, form in (
        ("b", "b"), ("B", "B"), ("s", "h"), ("U", "h"), ("u", "H"), ("I", "i"), ("i", "I"), ("l", "q"), ("L", "q"),
        ("f", "f"), ("d", "d"),
    )
}  # fmt: skip
_SIZE = struct.Struct(">I")
_LONG = struct.Struct(">Q")
_DECIMAL = struct.Struct(">Bi")


class Timestamp(int):
    """A value of type 'T': s since 1970."""


class Bytes(bytes):
    """A value of type 'x'; a plain `bytes` is a long string, type 'S'."""


def text_of(raw: bytes) -> str:
    """A name as text; bytes that are not UTF-8 as surrogates, so that they can be encoded again."""
    return raw.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# ── reading ──


def read_short(data: bytes, at: int) -> tuple[bytes, int]:
    """A short string, and where it ends. IndexError or ProtocolError if it is not whole."""
    stop = at + 1 + data[at]
    if stop > len(data):
        raise ProtocolError("a string ends behind its frame")
    return data[at + 1 : stop], stop


def read_long(data: bytes, at: int) -> tuple[bytes, int]:
    """A long string, and where it ends."""
    stop = at + 4 + int(_SIZE.unpack_from(data, at)[0])
    if stop > len(data):
        raise ProtocolError("a string ends behind its frame")
    return data[at + 4 : stop], stop


def read_table(data: bytes, at: int, depth: int = 0) -> tuple[Table, int]:
    """The table at `at`, and where it ends. ProtocolError, struct.error or IndexError if it is malformed."""
    stop = _end_of(data, at, depth)
    at += 4
    found: Table = []
    while at < stop:
        name, at = read_short(data, at)
        value, at = _read_value(data, at, depth)
        found.append((text_of(name), value))
    if at != stop:
        raise ProtocolError("a table's last value ends behind the table")
    return found, at


def _end_of(data: bytes, at: int, depth: int) -> int:
    if depth > MOST_NESTED:
        raise ProtocolError(f"tables are nested more than {MOST_NESTED} deep")
    stop = at + 4 + int(_SIZE.unpack_from(data, at)[0])
    if stop > len(data):
        raise ProtocolError("a table ends behind its frame")
    return stop


def _read_array(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    stop = _end_of(data, at, depth)
    at += 4
    found = []
    while at < stop:
        value, at = _read_value(data, at, depth)
        found.append(value)
    if at != stop:
        raise ProtocolError("an array's last value ends behind the array")
    return found, at


def _read_value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    kind, at = data[at], at + 1
    if kind == 83:  # S
        return read_long(data, at)
    if (number := _NUMBERS.get(kind)) is not None:
        return number.unpack_from(data, at)[0], at + number.size
    if kind == 70:  # F
        return read_table(data, at, depth + 1)
    if kind == 65:  # A
        return _read_array(data, at, depth + 1)
    if kind == 116:  # t
        return bool(data[at]), at + 1
    if kind == 86:  # V
        return None, at
    if kind == 84:  # T
        return Timestamp(_LONG.unpack_from(data, at)[0]), at + 8
    if kind == 120:  # x
        raw, at = read_long(data, at)
        return Bytes(raw), at
    if kind == 68:  # D
        scale, digits = _DECIMAL.unpack_from(data, at)
        return Decimal(digits).scaleb(-scale), at + 5
    raise ProtocolError(f"a table has a value of the unknown type {kind}")


# ── writing ──


def short(text: str | bytes) -> bytes:
    """A short string; ValueError if it has more than 255 bytes."""
    raw = text if isinstance(text, bytes) else bytes_of(text)
    if len(raw) > 255:
        raise ValueError(f"{len(raw)} bytes are too many for a short string, which has at most 255")
    return b"%c%b" % (len(raw), raw)


def long(raw: bytes) -> bytes:
    return _SIZE.pack(len(raw)) + raw


def table(pairs: Table) -> bytes:
    """A table. ValueError if a name has more than 255 bytes; TypeError for a value that has no type of AMQP."""
    return long(b"".join([short(name) + value_bytes(value) for name, value in pairs]))


def value_bytes(value: Any) -> bytes:
    """A value with its type."""
    for kind, write in _WRITERS:
        if isinstance(value, kind):
            return write(value)
    if value is None:
        return b"V"
    raise TypeError(f"{value!r} has no type of AMQP")


def _integer(value: int) -> bytes:
    return b"I" + struct.pack(">i", value) if -(2**31) <= value < 2**31 else b"l" + struct.pack(">q", value)


def _decimal(value: Decimal) -> bytes:
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    return b"D" + _DECIMAL.pack(max(0, -exponent), int(value.scaleb(max(0, -exponent))))


# By class; the order matters: bool and Timestamp are ints, Bytes is bytes.
_WRITERS: tuple[tuple[type, Callable[[Any], bytes]], ...] = (
    (Bytes, lambda value: b"x" + long(value)),
    (bytes, lambda value: b"S" + long(value)),
    (str, lambda value: b"S" + long(bytes_of(value))),
    (bool, lambda value: b"t\1" if value else b"t\0"),
    (Timestamp, lambda value: b"T" + _LONG.pack(value)),
    (int, _integer),
    (float, lambda value: b"d" + struct.pack(">d", value)),
    (Decimal, _decimal),
    (list, lambda value: b"F" + table(value) if _is_table(value) else b"A" + _array(value)),
)


def _is_table(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(each, tuple) for each in value)


def _array(values: list[Any]) -> bytes:
    return long(b"".join(map(value_bytes, values)))

"""Decodes Avro with schemas for which fastavro is not safe (avro_schema.py). In: a schema, a body. Out: the value.

It is several times slower, and counts: types within types, and values. Avro 1.12, "Binary encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from qtools.schemas.plain_values import Convert, to_plain

MOST_NESTED = 200  # types within types in one body
# Values in one body: so many, and so many for each byte. Null, and a record of nulls, take no bytes, and an array may
# have any number of them.
MOST_VALUES, VALUES_PER_BYTE = 10_000, 10

_FLOAT, _DOUBLE = struct.Struct("<f"), struct.Struct("<d")


class AvroReader:
    """Decodes bodies of one schema, as parse_avro returns it."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._types: dict[str, Any] = {}
        self._plain: dict[int, Convert | None] = {}
        self._note(schema)

    def read(self, body: bytes, start: int) -> tuple[Any, int]:
        """The value at `start`, and where it ends. ValueError, EOFError for bytes that are no value."""
        run = _Run(body, start, self._types, self._plain)
        return run.value(self._schema, 0), run.at

    def _note(self, node: Any) -> None:
        if isinstance(node, list):
            for each in node:
                self._note(each)
        elif isinstance(node, dict):
            if "name" in node:
                self._types[node["name"]] = node
            if "plain" in node:
                self._plain[id(node)] = to_plain(node["type"], node["plain"])
            for part in (*(each["type"] for each in node.get("fields", ())), node.get("items"), node.get("values")):
                self._note(part)


class _Run:
    """The decoding of one body."""

    def __init__(self, body: bytes, at: int, types: Mapping[str, Any], plain: Mapping[int, Convert | None]) -> None:
        self.at = at
        self._body = body
        self._types = types
        self._plain = plain
        self._left = MOST_VALUES + VALUES_PER_BYTE * len(body)

    def value(self, node: Any, depth: int) -> Any:
        if depth > MOST_NESTED:
            raise ValueError(f"it is nested more than {MOST_NESTED} levels deep")
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"it has more than {MOST_VALUES:,} values, and {VALUES_PER_BYTE} for each of its bytes")
        if isinstance(node, list):
            index = self._long()
            if not 0 <= index < len(node):
                raise ValueError(f"{index} is no branch of a union of {len(node)}")
            return self.value(node[index], depth + 1)
        if isinstance(node, str):
            return self.value(self._types[node], depth) if node in self._types else self._primitive(node)
        kind = node["type"]
        if kind == "record":
            return {field["name"]: self.value(field["type"], depth + 1) for field in node["fields"]}
        if kind == "array":
            return self._array(node["items"], depth + 1)
        if kind == "map":
            return self._map(node["values"], depth + 1)
        if kind == "enum":
            index = self._long()
            if not 0 <= index < len(node["symbols"]):
                raise ValueError(f"{index} is no symbol of an enum of {len(node['symbols'])}")
            return node["symbols"][index]
        made = self._take(node["size"]) if kind == "fixed" else self._primitive(kind)
        convert = self._plain.get(id(node))
        return made if convert is None else convert(made)

    def _primitive(self, kind: str) -> Any:
        if kind == "null":
            return None
        if kind in ("int", "long"):
            return self._long()
        if kind == "string":
            return self._take(self._long()).decode("utf-8")
        if kind == "bytes":
            return self._take(self._long())
        if kind == "boolean":
            return self._take(1) != b"\0"
        if kind == "float":
            return _FLOAT.unpack(self._take(4))[0]
        return _DOUBLE.unpack(self._take(8))[0]

    def _array(self, items: Any, depth: int) -> list[Any]:
        made: list[Any] = []
        while count := self._block():
            made.extend(self.value(items, depth) for _ in range(count))
        return made

    def _map(self, values: Any, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        while count := self._block():
            for _ in range(count):
                key = self._take(self._long()).decode("utf-8")
                made[key] = self.value(values, depth)
        return made

    def _block(self) -> int:
        """The number of items in the next block; 0 at the end. A negative number has the block's size behind it."""
        count = self._long()
        if count < 0:
            self._long()
        return abs(count)

    def _long(self) -> int:
        number = shift = 0
        body, at = self._body, self.at
        while shift < 70:
            if at >= len(body):
                raise EOFError
            byte = body[at]
            at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                self.at = at
                return number >> 1 ^ -(number & 1)
            shift += 7
        raise ValueError("a number has more than 64 bits")

    def _take(self, size: int) -> bytes:
        end = self.at + size
        if size < 0:
            raise ValueError(f"a length of {size}")
        if end > len(self._body):
            raise EOFError
        taken = self._body[self.at : end]
        self.at = end
        return taken

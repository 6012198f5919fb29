"""Decodes Avro where fastavro is not safe or not strict. In: a schema, a body. Out: the value. Avro 1.12, "Binary
encoding".

AvroReader decodes by itself, at half of fastavro's speed, and counts: records within records, and values. It takes the
schemas for which fastavro is not safe (avro_schema.py).

fastavro takes invalid numbers for others: the index -1 of a union or an enum for the last branch or symbol, an int of
more than 32 bits as it is, and a number of more than 64 bits modulo that. StrictSchema makes a schema with which it
does not, and says which bodies it may still have misread. These are few, and AvroReader decodes them again. What is
left: a number of ten bytes or more that begins with nine bytes that are text in UTF-8.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from operator import itemgetter
from typing import Any

from qtools.schemas.plain_values import Convert, to_plain

MOST_NESTED = 200  # records within records in one body
# Values in one body: so many, and so many for each byte. Null, and a record of nulls, take no bytes, and an array may
# have any number of them.
MOST_VALUES, VALUES_PER_BYTE = 1000, 10

_FLOAT, _DOUBLE = struct.Struct("<f"), struct.Struct("<d")


class AvroReader:
    """Decodes bodies of one schema, as parse_avro returns it.

    style: "plain", or "avro-json" for Avro's own JSON encoding (Avro 1.12, "JSON Encoding"): a value of a union is an
    object with the name of its type, except null; bytes are a string of the characters 0 to 255; there are no logical
    types.
    """

    def __init__(self, schema: Any, style: str = "plain") -> None:
        self._schema = schema
        self._is_avro_json = style == "avro-json"
        self._types: dict[str, Any] = {}
        self._plain: dict[int, Convert | None] = {}
        self._note(schema)

    def read(self, body: bytes, start: int) -> tuple[Any, int]:
        """The value at `start`, and where it ends. ValueError, EOFError for bytes that are no value."""
        run = _Run(body, start, self._types, self._plain, self._is_avro_json)
        try:
            return run.value(self._schema, 0), run.at
        except RecursionError:  # arrays within arrays, as many as the schema has
            raise ValueError("it is nested too deeply") from None

    def _note(self, node: Any) -> None:
        if isinstance(node, list):
            for each in node:
                self._note(each)
        elif isinstance(node, dict):
            if "name" in node:
                self._types[node["name"]] = node
            if "plain" in node:
                self._plain[id(node)] = None if self._is_avro_json else to_plain(node["type"], node["plain"])
            for part in (*(each["type"] for each in node.get("fields", ())), node.get("items"), node.get("values")):
                self._note(part)


class _Run:
    """The decoding of one body."""

    def __init__(
        self, body: bytes, at: int, types: Mapping[str, Any], plain: Mapping[int, Convert | None], is_avro_json: bool
    ) -> None:
        self.at = at
        self._is_avro_json = is_avro_json
        self._body = body
        self._types = types
        self._plain = plain
        self._left = MOST_VALUES + VALUES_PER_BYTE * len(body)

    def value(self, node: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"it has more than {MOST_VALUES:,} values, and {VALUES_PER_BYTE} for each of its bytes")
        if isinstance(node, list):
            index = self._long()
            if not 0 <= index < len(node):
                raise ValueError(f"{index} is no branch of a union of {len(node)}")
            value = self.value(node[index], depth)
            return {_name_of(node[index]): value} if self._is_avro_json and node[index] != "null" else value
        if isinstance(node, str):
            return self.value(self._types[node], depth) if node in self._types else self._primitive(node)
        kind = node["type"]
        if kind == "record":
            if depth >= MOST_NESTED:
                raise ValueError(f"it has more than {MOST_NESTED} records within each other")
            made = {}  # filled in a loop, as a comprehension has a call of its own, and calls are limited
            for field in node["fields"]:
                made[field["name"]] = self.value(field["type"], depth + 1)
            return made
        if kind == "array":
            return self._array(node["items"], depth)
        if kind == "map":
            return self._map(node["values"], depth)
        if kind == "enum":
            index = self._long()
            if not 0 <= index < len(node["symbols"]):
                raise ValueError(f"{index} is no symbol of an enum of {len(node['symbols'])}")
            return node["symbols"][index]
        stored = self._take(node["size"]) if kind == "fixed" else self._primitive(kind)
        convert = self._plain.get(id(node))
        if convert is None:
            return stored.decode("latin-1") if self._is_avro_json and isinstance(stored, bytes) else stored
        return convert(stored)

    def _primitive(self, kind: str) -> Any:
        if kind == "null":
            return None
        if kind == "long":
            return self._long()
        if kind == "int":
            return check_int(self._long())
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
            for _ in range(count):
                made.append(self.value(items, depth))  # noqa: PERF401 - as above
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
                if number >> 64:
                    break
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


def _name_of(node: Any) -> str:
    """The name of a branch of a union: of a named type its full name."""
    return node if isinstance(node, str) else str(node.get("name") or node["type"])


def check_int(number: int) -> int:
    """`number`; ValueError if it is no int."""
    if -0x80000000 <= number <= 0x7FFFFFFF:
        return number
    raise ValueError(f"an int of {number}, which has more than 32 bits")


# ── fastavro, made strict ──

Check = Callable[[Any], object]  # of a decoded value; raises ValueError

# A varint with nine bytes above 7f may have more than 64 bits.
_HIGH = bytes(byte >> 7 for byte in range(256))
_LONG_VARINT = b"\1" * 9
_HIGH_BYTES = re.compile(rb"[\x80-\xff]{9,}")


class StrictSchema:
    """parsed: what fastavro's parse_schema returned for a record that is not hazardous (avro_schema.py). read_int: the
    attributes that make fastavro call check_int for an int."""

    def __init__(self, parsed: Any, read_int: dict[str, Any]) -> None:
        self.schema = deepcopy(parsed)
        self._read_int = {"type": "int", **read_int}
        self._types: dict[str, Any] = {}
        self._checks: dict[str, Check | None] = {}
        self._done: set[int] = set()
        self._note(self.schema)
        self.check = self._check_of(self.schema)  # what has to be done with each value; None for nothing
        self._index(self.schema)

    def suspects(self, bodies: Sequence[bytes]) -> list[int]:
        """The places of bodies that fastavro may have misread."""
        if _LONG_VARINT not in b"\0".join(bodies).translate(_HIGH):
            return []
        return [place for place, body in enumerate(bodies) if _may_have_long_number(body)]

    def _note(self, node: Any) -> None:
        """Remember the definitions."""
        for each in node if isinstance(node, list) else _parts(node):
            self._note(each)
        if isinstance(node, dict) and "name" in node:
            self._types[node["name"]] = node

    def _index(self, node: Any) -> Any:
        """`node` with dicts, which know no negative index, in the place of lists of branches and symbols."""
        if isinstance(node, list):
            return {"type": "union", **{nth: self._index(each) for nth, each in enumerate(node)}}
        if isinstance(node, dict) and id(node) not in self._done:
            self._done.add(id(node))
            if node["type"] == "enum":
                node["symbols"] = dict(enumerate(node["symbols"]))
            for each in node.get("fields", ()):
                each["type"] = self._index(each["type"])
            for part in ("items", "values"):
                if part in node:
                    node[part] = self._index(node[part])
        return node

    # ── ints ──
    #
    # A function called for each int would take more time than fastavro itself. So the ints of a decoded record or array
    # are checked together. Where a value does not tell which branch of a union it has, fastavro calls check_int.

    def _check_of(self, node: Any) -> Check | None:
        if isinstance(node, list):
            branches = [each for each in node if each != "null"]
            if len(branches) != 1:
                self._read_ints(node)
                return None
            check = self._check_of(branches[0])
            return None if check is None else lambda value: value is None or check(value)
        if isinstance(node, str):
            if node not in self._types:
                return check_int if node == "int" else None
            return self._check_of(self._types[node])
        kind = node["type"]
        if kind == "array":
            return _check_of_items(node["items"] == "int", self._check_of(node["items"]))
        if kind == "map":
            of_values = _check_of_items(node["values"] == "int", self._check_of(node["values"]))
            return None if of_values is None else lambda value: of_values(value.values())
        if kind == "record":
            name = node["name"]
            if name not in self._checks:
                self._checks[name] = self._check_of_record(node)
            return self._checks[name]
        return None

    def _check_of_record(self, node: Any) -> Check | None:
        ints = [each["name"] for each in node["fields"] if each["type"] == "int"]
        others = [
            (each["name"], check)
            for each in node["fields"]
            if each["type"] != "int" and (check := self._check_of(each["type"])) is not None
        ]
        take = itemgetter(*(ints * 2 if len(ints) == 1 else ints or ("", "")))  # of at least two, it returns a tuple

        def check_ints(value: Any) -> None:
            found = take(value)
            if min(found) < -0x80000000 or max(found) > 0x7FFFFFFF:
                _check_ints(found)

        def check_record(value: Any) -> None:
            if ints:
                check_ints(value)
            for name, check in others:
                check(value[name])

        return check_record if others else check_ints if ints else None

    def _read_ints(self, node: Any) -> None:
        """Let fastavro call check_int for each int in `node`."""
        if isinstance(node, list):
            node[:] = [self._replaced(each) for each in node]
        elif isinstance(node, dict):
            for each in node.get("fields", ()):
                each["type"] = self._replaced(each["type"])
            for part in ("items", "values"):
                if part in node:
                    node[part] = self._replaced(node[part])

    def _replaced(self, node: Any) -> Any:
        if node == "int":
            return self._read_int
        self._read_ints(self._types.get(node, node) if isinstance(node, str) else node)
        return node


def _may_have_long_number(body: bytes) -> bool:
    """Whether `body` may have a number of ten bytes or more. Greek or Chinese text has many bytes above 7f, too: it
    begins behind a byte that is none, and at most eight bytes of what follows are left behind it."""
    for found in _HIGH_BYTES.finditer(body):
        try:
            found[0].decode("utf-8")
        except UnicodeDecodeError as error:
            if len(found[0]) - error.start >= len(_LONG_VARINT):
                return True
    return False


def _parts(node: Any) -> list[Any]:
    """The types that a type is made of."""
    if not isinstance(node, dict):
        return []
    return [
        *(each["type"] for each in node.get("fields", ())),
        *(node[part] for part in ("items", "values") if part in node),
    ]


def _check_of_items(is_int: bool, check: Check | None) -> Check | None:
    if is_int or check is None:
        return _check_ints if is_int else None

    def check_items(values: Any) -> None:
        for value in values:
            check(value)

    return check_items


def _check_ints(values: Any) -> None:
    if values and not (min(values) >= -0x80000000 and max(values) <= 0x7FFFFFFF):
        for value in values:
            check_int(value)

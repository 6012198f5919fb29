"""An Avro schema as JSON → the schema that fastavro gets, and what could harm the decoder. In: text. Out: plain data.

The schema is made self-contained: names are full names, and a type that another schema defines is put where it is used
first. A logical type, and bytes, get a logical type of ours ("qtools"), for which fastavro calls a function that makes
plain JSON (plain_values.py); what it needs is under "plain". An unknown or invalid logical type counts as none, as
Avro's specification says.

fastavro's decoder is C that calls itself: a body of some thousand bytes that nests a recursive type ends the process.
And a value without bytes (null, an empty record) can be repeated in an array as often as a number in the body says. So
`is_hazardous` tells which schemas need the decoder of avro_reader.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from qtools.schemas.contract import SchemaInvalid
from qtools.schemas.plain_values import to_plain

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
NAMED = frozenset({"record", "error", "enum", "fixed"})
PLAIN = "qtools"  # our logical type
MOST_DEPTH = 100  # of types within types
MOST_VALUES = 100_000  # in the smallest value of a schema: records in records double it with each level
MOST_PER_BYTE = 10  # values in the smallest record of a type, for each of its bytes, for fastavro to decode it

# The types that may store each logical type.
_STORED = {
    "decimal": ("bytes", "fixed"), "date": ("int",), "duration": ("fixed",), "uuid": ("string", "fixed"),
    "time-millis": ("int",), "time-micros": ("long",), "timestamp-millis": ("long",), "timestamp-micros": ("long",),
    "timestamp-nanos": ("long",), "local-timestamp-millis": ("long",), "local-timestamp-micros": ("long",),
    "local-timestamp-nanos": ("long",),
}  # fmt: skip
_FIXED_SIZES = {"duration": 12, "uuid": 16}
_MOST_PRECISION = 2000


def parse_avro(text: str, references: Iterable[tuple[str, str]] = ()) -> Any:
    """The schema `text`, self-contained. references: the schemas that define types it uses, by any name. Raises
    SchemaInvalid."""
    try:
        definitions: dict[str, tuple[Any, str]] = {}
        for _, referred in references:
            _collect(_load(referred), "", definitions)
        return _Rewriter(definitions).rewrite(_load(text), "")
    except RecursionError:
        raise SchemaInvalid("its types are nested too deeply") from None


def _load(text: str) -> Any:
    if text.strip() in PRIMITIVES:  # registries take a bare name, too
        return text.strip()
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise SchemaInvalid(f"it is not JSON ({error})") from error


def _full_name(node: Mapping[str, Any], space: str) -> tuple[str, str]:
    """The full name of a definition, and the namespace of the names in it."""
    name, own = node.get("name"), node.get("namespace")
    if not isinstance(name, str) or not name:
        raise SchemaInvalid(f"a type of the kind {str(node.get('type'))[:40]!r} has no name")
    if "." in name:
        return name, name.rpartition(".")[0]
    space = own if isinstance(own, str) else space
    return (f"{space}.{name}" if space else name), space


def _collect(node: Any, space: str, found: dict[str, tuple[Any, str]]) -> None:
    """Add the definitions in `node` to `found`: full name → the definition, and its namespace."""
    if isinstance(node, list):
        for each in node:
            _collect(each, space, found)
    elif isinstance(node, dict):
        kind = node.get("type")
        if isinstance(kind, str) and kind in NAMED:
            full, inner = _full_name(node, space)
            found.setdefault(full, (node, space))
            for each in node.get("fields") or ():
                if isinstance(each, dict):
                    _collect(each.get("type"), inner, found)
        else:
            for part in ("type", "items", "values"):
                _collect(node.get(part), space, found)


class _Rewriter:
    def __init__(self, definitions: Mapping[str, tuple[Any, str]]) -> None:
        self._definitions = definitions
        self._defined: set[str] = set()

    def rewrite(self, node: Any, space: str) -> Any:
        if isinstance(node, str):
            return self._name(node, space)
        if isinstance(node, list):
            return [self.rewrite(each, space) for each in node]
        if not isinstance(node, dict):
            raise SchemaInvalid(f"{str(node)[:40]!r} stands where a type is expected")
        kind = node.get("type")
        if isinstance(kind, (dict, list)):
            return self.rewrite(kind, space)
        if kind == "array":
            return {"type": "array", "items": self.rewrite(node.get("items"), space)}
        if kind == "map":
            return {"type": "map", "values": self.rewrite(node.get("values"), space)}
        if isinstance(kind, str) and kind in NAMED:
            return self._definition(node, kind, space)
        if isinstance(kind, str) and kind in PRIMITIVES:
            return _primitive(kind, node)
        return self._name(kind, space)

    def _name(self, name: Any, space: str) -> Any:
        if not isinstance(name, str):
            raise SchemaInvalid(f"{str(name)[:40]!r} stands where a type is expected")
        if name in PRIMITIVES:
            return _primitive(name, {})
        full = name if "." in name or not space else f"{space}.{name}"
        for each in (full, name):  # a name without dots may be in the namespace "", which other libraries allow
            if each in self._defined:
                return each
            if each in self._definitions:
                return self.rewrite(*self._definitions[each])
        raise SchemaInvalid(f"the type {name[:200]!r} is not defined")

    def _definition(self, node: Mapping[str, Any], kind: str, space: str) -> Any:
        full, inner = _full_name(node, space)
        if full in self._defined:
            raise SchemaInvalid(f"the type {full[:200]!r} is defined twice")
        self._defined.add(full)
        if kind == "enum":
            symbols = node.get("symbols")
            if not isinstance(symbols, list) or not all(isinstance(each, str) for each in symbols):
                raise SchemaInvalid(f"the enum {full[:200]!r} has no list of symbols")
            return {"type": "enum", "name": full, "symbols": symbols}
        if kind == "fixed":
            size = node.get("size")
            if size.__class__ is not int or size < 0:
                raise SchemaInvalid(f"the fixed {full[:200]!r} has no size")
            return {"type": "fixed", "name": full, "size": size, **_plain("fixed", node)}
        fields = node.get("fields")
        if not isinstance(fields, list) or not all(isinstance(each, dict) and "type" in each for each in fields):
            raise SchemaInvalid(f"the record {full[:200]!r} has no list of fields, each with a type")
        return {"type": "record", "name": full, "fields": [self._field(each, inner) for each in fields]}

    def _field(self, field: Mapping[str, Any], space: str) -> Any:
        made = {"name": field.get("name"), "type": self.rewrite(field["type"], space)}
        if "default" in field:
            made["default"] = _default(field["default"], made["type"])
        return made


def _default(value: Any, made: Any) -> Any:
    """The default of a field in plain JSON: Avro has bytes in it as text in Latin-1."""
    if isinstance(value, str) and isinstance(made, dict) and made.get("type") in ("bytes", "fixed"):
        convert = to_plain(made["type"], made["plain"])
        try:
            return value if convert is None else convert(value.encode("latin-1"))
        except ValueError as error:
            raise SchemaInvalid(f"the default {value[:40]!r} of a field is no bytes: {error}") from error
    return value


def _primitive(kind: str, node: Mapping[str, Any]) -> Any:
    plain = _plain(kind, node)
    return {"type": kind, **plain} if plain else kind


def _plain(kind: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes for a type that is made plain JSON of; none for a type that is plain JSON."""
    logical = node.get("logicalType")
    known: dict[str, Any] = {}
    if isinstance(logical, str) and kind in _STORED.get(logical, ()) and _is_valid(logical, kind, node):
        known = {name: node[name] for name in ("logicalType", "precision", "scale") if name in node}
    if kind in ("bytes", "fixed") or (known and logical != "uuid"):
        return {"logicalType": PLAIN, "plain": known}
    return {}


def _is_valid(logical: str, kind: str, node: Mapping[str, Any]) -> bool:
    if logical == "decimal":
        precision, scale = node.get("precision"), node.get("scale", 0)
        if precision.__class__ is not int or scale.__class__ is not int:
            return False
        return 0 <= scale <= precision <= _MOST_PRECISION and precision > 0
    return kind != "fixed" or node.get("size") == _FIXED_SIZES.get(logical)


# ── what could harm the decoder ──


def is_hazardous(schema: Any) -> bool:
    """Whether fastavro may not decode bodies of `schema`, as parse_avro returned it. Raises SchemaInvalid for a schema
    with values that never end, or are too many."""
    return _Hazards(schema).found


class _Hazards:
    def __init__(self, schema: Any) -> None:
        self.found = False
        self._types: dict[str, Any] = {}
        self._open: set[str] = set()
        self._measured: dict[str, tuple[int, int]] = {}
        self._note(schema)
        self._measure(schema, 0)

    def _note(self, node: Any) -> None:
        """Remember the definitions."""
        if isinstance(node, list):
            for each in node:
                self._note(each)
        elif isinstance(node, dict):
            if "name" in node:
                self._types[node["name"]] = node
            for part in (*(each["type"] for each in node.get("fields", ())), node.get("items"), node.get("values")):
                self._note(part)

    def _measure(self, node: Any, depth: int, *, must: bool = True) -> tuple[int, int]:
        """The bytes of the smallest value of `node`, and the values in it. must: whether each value of the schema has
        a value of `node` in it."""
        if depth > MOST_DEPTH:
            self.found = True
        if isinstance(node, list):
            for each in node:
                self._measure(each, depth + 1, must=False)
            return 1, 1
        if isinstance(node, str):
            return self._measure_type(self._types[node], depth, must) if node in self._types else (node != "null", 1)
        kind = node["type"]
        if kind in ("array", "map"):
            size, _ = self._measure(node["items" if kind == "array" else "values"], depth + 1, must=False)
            self.found = self.found or (kind == "array" and not size)
            return 1, 1
        if kind == "fixed":
            return node["size"], 1
        if kind == "record":
            return self._measure_type(node, depth, must)
        return int(kind != "null"), 1

    def _measure_type(self, node: Any, depth: int, must: bool) -> tuple[int, int]:
        name = node["name"]
        if node["type"] != "record":
            return (node["size"] if node["type"] == "fixed" else 1), 1
        if name in self._open:
            self.found = True
            if must:
                raise SchemaInvalid(f"the record {name[:200]!r} contains itself, in every value: no value ends")
            return 1, 1
        if name not in self._measured:
            self._open.add(name)
            try:
                parts = [self._measure(each["type"], depth + 1, must=must) for each in node["fields"]]
            finally:
                self._open.discard(name)
            size, values = sum(size for size, _ in parts), 1 + sum(values for _, values in parts)
            if values > MOST_VALUES:
                raise SchemaInvalid(f"one {name[:200]!r} has more than {MOST_VALUES:,} values")
            self.found = self.found or values > MOST_PER_BYTE * (size + 1)
            self._measured[name] = size, values
        return self._measured[name]

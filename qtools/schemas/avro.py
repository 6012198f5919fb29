"""Avro: bodies ↔ plain JSON values, by fastavro. In: a schema's text, bodies or values. Out: values or bodies.

docs/schemas.md has the table of types. A body has to end where its value ends: otherwise it has another schema.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from io import BytesIO
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer, validate
from fastavro.read import LOGICAL_READERS
from fastavro.schema import SchemaParseException, UnknownType
from fastavro.validation import ValidationError
from fastavro.write import LOGICAL_WRITERS

from qtools.attributes import DecodedBody, UndecodableBody
from qtools.schemas.avro_reader import AvroReader, StrictSchema, check_int
from qtools.schemas.avro_schema import PLAIN, is_hazardous, parse_avro
from qtools.schemas.contract import SchemaInvalid, SchemaText, ValueMisfit
from qtools.schemas.plain_values import from_plain, to_plain

# The types that PLAIN is a logical type of. fastavro looks up the function by both names.
_KINDS = ("bytes", "fixed", "int", "long", "string", "float", "double")
_READERS, _WRITERS = "qtools readers", "qtools writers"  # attributes of a type, with the functions for it


def _register() -> None:
    """Tell fastavro of our logical type. Its table is one for the process; the name is only ours."""

    def read(data: Any, schema: Any = None, _: Any = None) -> Any:
        return schema[_READERS](data)

    def write(data: Any, schema: Any) -> Any:
        return schema[_WRITERS](data)

    for kind in _KINDS:
        LOGICAL_READERS[f"{kind}-{PLAIN}"] = read
        LOGICAL_WRITERS[f"{kind}-{PLAIN}"] = write


_register()


_READ_INT = {"logicalType": PLAIN, _READERS: check_int}
_WRAPPER = "qtools_value"


class AvroCodec:
    """The schema `text` with the schemas that it refers to. SchemaInvalid if it cannot be used. style: of decoded
    values, as for AvroReader, which decodes all that is not plain."""

    head = b""

    def __init__(self, text: SchemaText, style: str = "plain") -> None:
        try:
            self._compile(text, style)
        except RecursionError:
            raise SchemaInvalid("its types are nested too deeply") from None

    def _compile(self, text: SchemaText, style: str) -> None:
        schema = parse_avro(text.text, text.references)
        self._name = f"Avro of {_shown_name(text.name, schema)}"
        self._reader = AvroReader(schema, style)
        is_slow = style != "plain" or is_hazardous(schema)
        for node in _plain_nodes(schema):
            convert = to_plain(node["type"], node["plain"]) or _same
            node[_READERS] = _checked(convert) if node["type"] == "int" else convert
            node[_WRITERS] = from_plain(node["type"], node["plain"] | {"size": node.get("size")}) or _same
        try:
            self._schema = parse_schema(schema)
        except UnknownType as error:
            raise SchemaInvalid(f"the type {error.name!r} is not defined") from error
        except (SchemaParseException, ValueError, KeyError, TypeError) as error:
            raise SchemaInvalid(f"fastavro refuses it: {error}") from error
        self._writing: Any = None  # made when it is needed
        self._is_wrapped = not (isinstance(schema, dict) and schema["type"] == "record")
        self._strict = None if is_slow else StrictSchema(self._wrapped(schema), _READ_INT)

    def _wrapped(self, schema: Any) -> Any:
        """What fastavro decodes with. fastavro would parse the schema again for each body, unless it is a record.
        So another type is put into a record, which has the same bytes."""
        if not self._is_wrapped:
            return self._schema
        return parse_schema({"type": "record", "name": _WRAPPER, "fields": [{"name": _WRAPPER, "type": schema}]})

    def decode_all(self, bodies: Sequence[bytes], start: int, indexes: bytes | None) -> list[bytes]:
        if self._strict is None:
            return [self._decode_slowly(body, start) for body in bodies]
        schema, check = self._strict.schema, self._strict.check
        read, made = schemaless_reader, DecodedBody
        is_wrapped = self._is_wrapped
        decoded: list[bytes] = []
        for body in bodies:
            stream = BytesIO(body)
            if start:
                stream.seek(start)
            try:
                value: Any = read(stream, schema, None)
                if check is not None:
                    check(value)
                if is_wrapped:
                    value = value[_WRAPPER]
            except Exception as error:  # what fastavro raises for bytes that are no value is not documented
                decoded.append(self._undecodable(body, error))
                continue
            if stream.tell() != len(body):
                decoded.append(self._undecodable(body, _left_over(len(body) - stream.tell())))
                continue
            one = made(body)
            one.value = value
            decoded.append(one)
        for place in self._strict.suspects(bodies):
            decoded[place] = self._decode_slowly(bodies[place], start)
        return decoded

    def _decode_slowly(self, body: bytes, start: int) -> bytes:
        try:
            value, end = self._reader.read(body, start)
        except (ValueError, EOFError) as error:
            return self._undecodable(body, error)
        return DecodedBody.of(body, value) if end == len(body) else self._undecodable(body, _left_over(len(body) - end))

    def _undecodable(self, body: bytes, error: Exception) -> bytes:
        return UndecodableBody.of(body, f"it is not {self._name}: {_why(error)}")

    def encode(self, value: Any) -> bytes:
        stream = BytesIO()
        try:
            if self._writing is None:
                self._writing = _with_exact_numbers(deepcopy(self._schema))
            validate(value, self._writing, raise_errors=True, strict=False)
            schemaless_writer(stream, self._writing, value, strict_allow_default=True)
        except ValidationError as error:
            raise ValueMisfit(_misfit(error, value, self._writing)) from error
        except RecursionError:
            raise ValueMisfit("it is nested too deeply") from None
        except Exception as error:  # as above
            raise ValueMisfit(" ".join(str(error).split()) or error.__class__.__name__) from error
        return stream.getvalue()

    def __repr__(self) -> str:
        return f"<AvroCodec {self._name}>"


def _same(value: Any) -> Any:
    return value


def _checked(convert: Any) -> Any:
    return lambda number: convert(check_int(number))


def _plain_nodes(node: Any) -> Iterable[dict[str, Any]]:
    if isinstance(node, list):
        for each in node:
            yield from _plain_nodes(each)
    elif isinstance(node, dict):
        if "plain" in node:
            yield node
        for part in (*(each["type"] for each in node.get("fields", ())), node.get("items"), node.get("values")):
            yield from _plain_nodes(part)


def _shown_name(name: str, schema: Any) -> str:
    of = schema.get("name") if isinstance(schema, Mapping) else None
    return f"{name} ({of})" if of else name


def _left_over(count: int) -> ValueError:
    return ValueError(f"{count:,} byte{' is' if count == 1 else 's are'} left over behind the value")


def _why(error: Exception) -> str:
    """What is wrong with a body, from the error of the decoder."""
    if isinstance(error, UnicodeDecodeError):
        return "a string in it is not UTF-8"
    if isinstance(error, EOFError) or (isinstance(error, IndexError) and "string" in str(error)):
        return "it ends too early"
    if isinstance(error, (IndexError, KeyError)):
        return "it has a number that is no branch of a union, or no symbol of an enum"
    return " ".join(str(error).split())[:200] or error.__class__.__name__


def _misfit(error: ValidationError, value: Any, schema: Any) -> str:
    """The first of fastavro's reasons, without its way to write a schema. It takes a missing field for None."""
    first = error.errors[0]
    if first.datum is None and first.field and _lacks(value, schema, *first.field.rpartition(".")[::2]):
        return f"field {first.field} is missing, and has no default"
    field = f"field {first.field}: " if getattr(first, "field", "") else ""
    value = repr(first.datum)
    return f"{field}{value if len(value) < 60 else f'{value[:57]}...'} is not {_type_name(first.schema)}"


def _lacks(value: Any, node: Any, record: str, field: str) -> bool:
    """Whether a value of the type `record` in `value` has no `field`. A type that contains itself is not followed."""
    if isinstance(node, list):
        return any(_lacks(value, each, record, field) for each in node)
    if not isinstance(node, dict):
        return False
    if node["type"] == "record" and isinstance(value, dict):
        if node["name"] == record and field not in value:
            return True
        return any(
            _lacks(value[each["name"]], each["type"], record, field) for each in node["fields"] if each["name"] in value
        )
    if node["type"] == "array" and isinstance(value, list):
        return any(_lacks(each, node["items"], record, field) for each in value)
    if node["type"] == "map" and isinstance(value, dict):
        return any(_lacks(each, node["values"], record, field) for each in value.values())
    return False


def _type_name(schema: Any) -> str:
    """A type as a few words."""
    if isinstance(schema, list):
        return " or ".join(map(_type_name, schema))[:200]
    if not isinstance(schema, Mapping):
        return str(schema)
    logical = schema.get("plain", {}).get("logicalType")
    if logical == "decimal":
        return f"a decimal of scale {schema['plain'].get('scale', 0)}"
    if schema["type"] == "enum":
        return f"one of {', '.join(schema['symbols'])}"[:200]
    kind = schema["type"] if isinstance(schema["type"], str) else _type_name(schema["type"])
    if logical or "name" not in schema:
        return logical or (f"{kind} in base64" if kind == "bytes" else kind)
    return f"{kind} {schema['name']}"


# ── numbers that are encoded ──
#
# fastavro takes the first branch of a union that fits, and any number fits a float. So floats and doubles get a
# function that refuses what another branch has more exactly, and integers whose digits would be lost.

_FLOAT = struct.Struct("<f")


class _Refused:
    """Stands for a number that a type does not take."""

    def __init__(self, number: Any) -> None:
        self._number = number

    def __repr__(self) -> str:
        return repr(self._number)


def _with_exact_numbers(node: Any, among: Sequence[Any] = ()) -> Any:
    """A schema for encoding: `node`, changed. among: the branches of the union that it is in."""
    if isinstance(node, list):
        branches = [each["type"] if isinstance(each, dict) and "plain" not in each else each for each in node]
        return [_with_exact_numbers(each, branches) for each in node]
    if node in ("float", "double"):
        return {"type": node, "logicalType": PLAIN, _WRITERS: _exact(node, among)}
    if isinstance(node, dict):
        for field in node.get("fields", ()):
            field["type"] = _with_exact_numbers(field["type"])
        for part in ("items", "values"):
            if part in node:
                node[part] = _with_exact_numbers(node[part])
    return node


def _exact(kind: str, among: Sequence[Any]) -> Callable[[Any], Any]:
    bits = 63 if "long" in among else 31 if "int" in among else -1

    def write(value: Any) -> Any:
        is_integer = value.__class__ is int
        if is_integer and bits > 0 and -(1 << bits) <= value < 1 << bits:
            return _Refused(value)
        if is_integer:
            try:
                stored = _FLOAT.unpack(_FLOAT.pack(value))[0] if kind == "float" else float(value)
            except OverflowError:
                return _Refused(value)
            return value if stored == value else _Refused(value)
        return value

    return write

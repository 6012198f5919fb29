"""Protobuf: bodies ↔ plain JSON values. In: a schema's text or descriptor set, bodies or values. Out: values or bodies.

docs/schemas.md has the table of types. Names of fields are as in the .proto file. A field without presence is always
there, with its default; one with presence (a message, `optional`, a oneof) only if it is set.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from qtools.attributes import DecodedBody, UndecodableBody
from qtools.schemas.contract import SchemaInvalid, SchemaText, ValueMisfit
from qtools.schemas.plain_values import iso_of_seconds
from qtools.schemas.proto_file import parse_proto
from qtools.schemas.wire_format import read_indexes, write_indexes

MAIN = "the schema.proto"  # the name of a file that a registry does not name
# Files that each program with Protobuf has. Confluent's registries know the last two as well.
_WELL_KNOWN = ("any", "api", "descriptor", "duration", "empty", "field_mask", "source_context", "struct", "timestamp",
               "type", "wrappers")  # fmt: skip
_BUILT_IN = {
    "confluent/meta.proto": 'syntax = "proto3"; package confluent;',  # options only
    "confluent/type/decimal.proto": 'syntax = "proto3"; package confluent.type;'
    " message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }",
}
_GOOGLE = "google/protobuf/"
_WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_BY_LIBRARY = frozenset(f"google.protobuf.{name}" for name in ("Duration", "FieldMask", "Struct", "Value", "ListValue"))

# Values in one body: so many, and so many for each byte. An empty message takes two bytes, and has all its defaults.
MOST_VALUES, VALUES_PER_BYTE = 10_000, 10
_URL_SAFE = str.maketrans("-_", "+/")  # Protobuf's JSON may have this alphabet, too

Convert = Callable[[Any], Any]


class ProtobufCodec:
    """The schema `text` with the schemas that it refers to. type_name: the message type of bodies that do not name one;
    "" for the only one, or the first one where bodies name it. SchemaInvalid if it cannot be used."""

    def __init__(self, text: SchemaText, type_name: str = "") -> None:
        self._name = text.name
        self._pool = DescriptorPool()
        self._converters: dict[str, Convert] = {}
        self._left = [0]
        self._types: dict[bytes, tuple[Any, Convert, str]] = {}  # message indexes → class, converter, name
        for name, referred in text.references:
            self._add(_file_of(referred, name))
        main = _file_of(text.text, MAIN)
        self._add(main)
        self._file = self._pool.FindFileByName(main.name)
        self._default = self._find(type_name) if type_name else next(iter(self._top_level()), None)
        if self._default is None:
            raise SchemaInvalid("it has no message type")

    @classmethod
    def of_descriptor_set(cls, data: bytes, name: str, type_name: str = "") -> ProtobufCodec:
        """The codec for a file as `protoc --include_imports --descriptor_set_out` writes it; its last file counts."""
        try:
            files = list(FileDescriptorSet.FromString(data).file)
        except DecodeError as error:
            raise SchemaInvalid("it is neither a .proto file nor a descriptor set of protoc") from error
        if not files:
            raise SchemaInvalid("it is a descriptor set without a file")
        texts = [(file.name, b64encode(file.SerializeToString()).decode("ascii")) for file in files]
        return cls(SchemaText("PROTOBUF", texts[-1][1], name, tuple(texts[:-1])), type_name)

    @property
    def type_names(self) -> list[str]:
        """The names of the message types of the file that are not within another."""
        return [each.full_name for each in self._top_level()]

    def _top_level(self) -> list[Descriptor]:
        # In the order of the file, which message indexes count by.
        found = FileDescriptorProto()
        self._file.CopyToProto(found)
        return [self._file.message_types_by_name[each.name] for each in found.message_type]

    def _find(self, name: str) -> Descriptor:
        package = self._file.package
        for each in (name, f"{package}.{name}" if package else name):
            try:
                return self._pool.FindMessageTypeByName(each)
            except KeyError:
                continue
        raise SchemaInvalid(f"it has no message type {name!r}; it has {', '.join(self.type_names)[:300]}")

    # ── the files ──

    def _add(self, file: FileDescriptorProto) -> None:
        """Add a file to the pool, with the well-known files that it imports."""
        for name in file.dependency:
            self._add_known(name)
        try:
            self._pool.AddSerializedFile(file.SerializeToString())
            self._pool.FindFileByName(file.name)
        except (TypeError, KeyError) as error:
            raise SchemaInvalid(f"protobuf refuses it: {' '.join(str(error).split())[:300]}") from error

    def _add_known(self, name: str) -> None:
        try:
            self._pool.FindFileByName(name)
            return
        except KeyError:
            pass
        made = FileDescriptorProto()
        if name.startswith(_GOOGLE) and (word := name.removeprefix(_GOOGLE).removesuffix(".proto")) in _WELL_KNOWN:
            import_module(f"google.protobuf.{word}_pb2").DESCRIPTOR.CopyToProto(made)
        elif name in _BUILT_IN:
            made = parse_proto(_BUILT_IN[name], name)
        else:
            raise SchemaInvalid(f"it imports {name[:200]!r}, which is no reference of it")
        self._add(made)

    # ── bodies ──

    def _type(self, indexes: bytes) -> tuple[Any, Convert, str]:
        """The class for bodies with these message indexes, and what makes plain JSON of its objects. ValueError."""
        if (known := self._types.get(indexes)) is not None:
            return known
        descriptor = self._default
        if indexes:
            path, end = read_indexes(indexes, 0)
            if end != len(indexes):
                raise ValueError("it has more than message indexes before its value")
            among: Sequence[Descriptor] = self._top_level()
            for nth, index in enumerate(path):
                if not 0 <= index < len(among):
                    raise ValueError(f"the message indexes {list(path)} name no type of it")
                descriptor = among[index]
                among = _nested(descriptor) if nth + 1 < len(path) else ()
        assert descriptor is not None
        made = GetMessageClass(descriptor), self._converter(descriptor), descriptor.full_name
        if len(self._types) < 1000:
            self._types[indexes] = made
        return made

    def decode_all(self, bodies: Sequence[bytes], start: int, indexes: bytes | None) -> list[bytes]:
        decoded: list[bytes] = []
        left = self._left
        for body in bodies:
            shown = self._name
            try:
                if indexes is None:
                    if body[start : start + 1] == b"\0":  # the first type, as nearly always
                        end = start + 1
                    else:
                        _, end = read_indexes(body, start)
                    made, convert, name = self._type(body[start:end])
                else:
                    end = start
                    made, convert, name = self._type(indexes)
                shown = f"{self._name} ({name})"
                left[0] = MOST_VALUES + VALUES_PER_BYTE * len(body)
                decoded.append(DecodedBody.of(body, convert(made.FromString(body[end:] if end else body))))
            except DecodeError:  # the library does not say more
                why = "it ends too early, is nested too deeply, or is something else"
                decoded.append(UndecodableBody.of(body, f"it is not Protobuf of {shown}: {why}"))
            except (ValueError, TypeError, OverflowError, RecursionError) as error:
                why = " ".join(str(error).split())[:200]
                decoded.append(UndecodableBody.of(body, f"it is not Protobuf of {shown}: {why}"))
        return decoded

    def encode(self, value: Any) -> bytes:
        made, _, _ = self._type(b"")
        message = made()
        try:
            json_format.ParseDict(value, message, descriptor_pool=self._pool)
            _check_base64(made.DESCRIPTOR, value)
            return bytes(message.SerializeToString())
        except Exception as error:  # ParseError, EncodeError, and what else the library raises for odd values
            raise ValueMisfit(" ".join(str(error).split())[:300] or type(error).__name__) from error

    @property
    def head(self) -> bytes:
        assert self._default is not None
        path: list[int] = []
        descriptor: Descriptor | None = self._default
        while descriptor is not None:
            outer = descriptor.containing_type
            among = self._top_level() if outer is None else _nested(outer)
            path.insert(0, [each.full_name for each in among].index(descriptor.full_name))
            descriptor = outer
        return write_indexes(tuple(path))

    # ── to plain JSON ──

    def _converter(self, descriptor: Descriptor) -> Convert:
        """What makes plain JSON of a message of this type."""
        name = descriptor.full_name
        if (known := self._converters.get(name)) is not None:
            return known
        if name == "google.protobuf.Timestamp":
            convert: Convert = lambda message: iso_of_seconds(message.seconds, message.nanos)  # noqa: E731
        elif name == "google.protobuf.Any":
            convert = lambda message: {"@type": message.type_url, "value": _base64(message.value)}  # noqa: E731
        elif name in _WRAPPERS:
            wrapped = self._value_converter(descriptor.fields_by_name["value"])
            convert = lambda message: message.value if wrapped is None else wrapped(message.value)  # noqa: E731
        elif name in _BY_LIBRARY:
            convert = json_format.MessageToDict
        else:
            convert = _MessageConverter(descriptor, self._value_converter, self._left)
        self._converters[name] = convert
        if isinstance(convert, _MessageConverter):
            convert.compile()  # a type may contain itself
        return convert

    def _value_converter(self, field: FieldDescriptor) -> Convert | None:
        """What makes plain JSON of one value of a field; None if it is plain JSON."""
        if field.message_type is not None:
            return self._converter(field.message_type)
        if field.enum_type is not None:
            return _enum_converter(field.enum_type)
        return _base64 if field.type == FieldDescriptor.TYPE_BYTES else None

    def __repr__(self) -> str:
        return f"<ProtobufCodec {self._name}>"


class _MessageConverter:
    """Makes plain JSON of the messages of one type. left: one number, of the values that the body may still have."""

    def __init__(
        self, descriptor: Descriptor, of_value: Callable[[FieldDescriptor], Convert | None], left: list[int]
    ) -> None:
        self._descriptor = descriptor
        self._of_value = of_value
        self._left = left
        self._defaults: dict[str, Any] = {}
        self._fields: dict[int, tuple[str, Convert | None]] = {}

    def compile(self) -> None:
        for field in self._descriptor.fields:
            convert = self._of_field(field)
            self._fields[field.number] = field.name, convert
            if _is_repeated(field):
                self._defaults[field.name] = {} if _is_map(field) else []
            elif not field.has_presence:
                default = field.default_value
                self._defaults[field.name] = default if convert is None else convert(default)

    def _of_field(self, field: FieldDescriptor) -> Convert | None:
        if _is_map(field):
            key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
            one = self._of_value(value)
            is_bool = key.type == FieldDescriptor.TYPE_BOOL
            return lambda values: {
                (str(each).lower() if is_bool else str(each)): (found if one is None else one(found))
                for each, found in values.items()
            }
        single = self._of_value(field)
        if not _is_repeated(field):
            return single
        return list if single is None else lambda values: [single(each) for each in values]

    def __call__(self, message: Message) -> dict[str, Any]:
        self._left[0] -= len(self._defaults) + 1
        if self._left[0] < 0:
            raise ValueError(f"it has more than {MOST_VALUES:,} values, and {VALUES_PER_BYTE} for each of its bytes")
        made = self._defaults.copy()
        fields = self._fields
        for field, value in message.ListFields():
            known = fields.get(field.number)
            if known is None or field.is_extension:
                known = f"[{field.full_name}]", self._of_field(field)
            name, convert = known
            made[name] = value if convert is None else convert(value)
        return made


def _is_repeated(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated)


def _is_map(field: FieldDescriptor) -> bool:
    return _is_repeated(field) and field.message_type is not None and field.message_type.GetOptions().map_entry


def _enum_converter(enum: EnumDescriptor) -> Convert:
    names: dict[int, str] = {}
    for value in enum.values:
        names.setdefault(value.number, value.name)
    return lambda number: names.get(number, number)  # one that the schema does not know stays a number


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _check_base64(descriptor: Descriptor, value: Any) -> None:
    """Raise ValueError if a field of bytes in `value` is not base64: the library leaves out what it does not know."""
    for field in descriptor.fields:
        found = value.get(field.name, value.get(field.json_name)) if isinstance(value, dict) else None
        if found is None:
            continue
        if _is_map(field):
            field, found = field.message_type.fields_by_name["value"], list(found.values())
        for each in found if isinstance(found, list) else [found]:
            if field.type == FieldDescriptor.TYPE_BYTES:
                try:
                    b64decode(each.translate(_URL_SAFE) + "=" * (-len(each) % 4), validate=True)
                except binascii.Error:
                    raise ValueError(f"field {field.full_name}: {each[:60]!r} is not bytes in base64") from None
            elif field.message_type is not None:
                _check_base64(field.message_type, each)


def _nested(descriptor: Descriptor) -> list[Descriptor]:
    """The types within a type, in the order of the file. Entries of maps count among them."""
    return list(descriptor.nested_types)


def _file_of(text: str, name: str) -> FileDescriptorProto:
    """A .proto file, as text, or as the descriptor in base64 that some registries hand out."""
    if "{" not in text and ";" not in text:
        try:
            made = FileDescriptorProto.FromString(b64decode(text, validate=True))
        except (binascii.Error, ValueError, DecodeError) as error:
            raise SchemaInvalid("it is neither a .proto file nor a descriptor in base64") from error
        if name != MAIN or not made.name:
            made.name = name
        return made
    return parse_proto(text, name)

"""Schemas → codecs, for each format; a schema in a file. In: a schema's text, or a path. Out: a codec.

The libraries are in the extra "schemas", and imported only here, for the format that is used.
"""

from __future__ import annotations

from importlib.util import find_spec

from qtools.errors import StartError, UsageError
from qtools.schemas.contract import FORMATS, SchemaCodec, SchemaInvalid, SchemaText

MISSING = "--decode and --encode need the extra schemas: see qtools help install"
_LIBRARIES = {"AVRO": "fastavro", "PROTOBUF": "google.protobuf", "JSON": "jsonschema_rs"}
MOST_BYTES = 16 * 1024 * 1024  # of a file with a schema


def check_installed(kind: str) -> None:
    """UsageError if the library for schemas of this kind is not installed."""
    name = _LIBRARIES[kind]
    try:
        found = find_spec(name)
    except ModuleNotFoundError:  # a package above it
        found = None
    if found is None:
        raise UsageError(MISSING)


def make_codec(text: SchemaText, type_name: str = "", style: str = "plain") -> SchemaCodec:
    """The codec of a schema. type_name: the message type of a Protobuf schema, where messages do not say it; "" for the
    first one. style: of decoded values, for Avro (avro_reader.AvroReader). Raises SchemaInvalid."""
    if text.kind == "AVRO":
        from qtools.schemas.avro import AvroCodec

        return AvroCodec(text, style)
    if text.kind == "PROTOBUF":
        from qtools.schemas.protobuf import ProtobufCodec

        return ProtobufCodec(text, type_name)
    if text.kind == "JSON":
        from qtools.schemas.json_schema import JsonSchemaCodec

        return JsonSchemaCodec(text)
    raise SchemaInvalid(f"it is {text.kind[:40]}, which is none of {', '.join(FORMATS.values())}")


def read_codec(
    path: str, kind: str, type_name: str = "", *, flag: str = "--schema", style: str = "plain"
) -> SchemaCodec:
    """The codec of the schema in the file at `path`. StartError if it cannot be used, UsageError for a Protobuf schema
    with several types if none is named. A Protobuf schema may also be a descriptor set. flag: that names the file.
    style: as for make_codec."""
    data = _read(path, flag)
    try:
        if kind == "PROTOBUF":
            return _protobuf_codec(data, path, type_name, flag)
        return make_codec(SchemaText(kind, _text(data, path, flag), path), style=style)
    except SchemaInvalid as error:
        raise StartError(f"{flag} {path} cannot be used: {error}") from error


def read_schema(path: str, kind: str) -> SchemaText:
    """The schema in the file at `path`, as it is written. StartError if it is no text."""
    return SchemaText(kind, _text(_read(path, "--schema"), path, "--schema"), path)


def _read(path: str, flag: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise StartError(f"cannot read {flag} {path}: {error.strerror or error}") from error
    if len(data) > MOST_BYTES:
        raise StartError(f"{flag} {path} is larger than {MOST_BYTES:,} bytes")
    return data


def _text(data: bytes, path: str, flag: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StartError(f"{flag} {path} is not UTF-8") from error


def _protobuf_codec(data: bytes, path: str, type_name: str, flag: str) -> SchemaCodec:
    from qtools.schemas.protobuf import ProtobufCodec

    if b"\0" in data or data[:1] == b"\n":  # a descriptor set begins with the field 1, which is the byte of a newline
        try:
            codec = ProtobufCodec.of_descriptor_set(data, path, type_name)
        except SchemaInvalid:
            if b"\0" in data:
                raise
            codec = ProtobufCodec(SchemaText("PROTOBUF", _text(data, path, flag), path), type_name)
    else:
        codec = ProtobufCodec(SchemaText("PROTOBUF", _text(data, path, flag), path), type_name)
    if not type_name and len(codec.type_names) > 1:
        advice = "name one with --schema-type" if flag == "--schema" else "leave one"
        raise UsageError(f"{flag} {path} has several types: {advice}: {', '.join(codec.type_names)}")
    return codec

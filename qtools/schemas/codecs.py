"""Schemas → codecs, for each format; a schema in a file. In: a schema's text, or a path. Out: a codec.

The libraries are in the extra "schemas", and imported only here, for the format that is used.
"""

from __future__ import annotations

from importlib.util import find_spec

from qtools.errors import StartError, UsageError
from qtools.schemas.contract import FORMATS, SchemaCodec, SchemaInvalid, SchemaText

MISSING = "--decode and --encode need the extra schemas: pip install 'qtools-cli[schemas]'"
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


def make_codec(text: SchemaText, type_name: str = "") -> SchemaCodec:
    """The codec of a schema. type_name: the message type of a Protobuf schema, where messages do not say it; "" for the
    first one. Raises SchemaInvalid."""
    if text.kind == "AVRO":
        from qtools.schemas.avro import AvroCodec

        return AvroCodec(text)
    raise SchemaInvalid(f"it is {text.kind[:40]}, which is none of {', '.join(FORMATS.values())}")


def read_schema(path: str, kind: str) -> SchemaText:
    """The schema in the file at `path`. StartError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise StartError(f"cannot read --schema {path}: {error.strerror or error}") from error
    if len(data) > MOST_BYTES:
        raise StartError(f"--schema {path} is larger than {MOST_BYTES:,} bytes")
    try:
        return SchemaText(kind, data.decode("utf-8"), path)
    except UnicodeDecodeError as error:
        raise StartError(f"--schema {path} is not UTF-8") from error

"""The flags for schemas: --decode, --encode and what goes with them. In: click's values. Out: a decoder or an encoder,
which asks for no schema before the run starts it. Imported only if one of the flags is given.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from qtools.errors import UsageError
from qtools.schemas.codecs import check_installed, read_codec
from qtools.schemas.contract import FORMATS
from qtools.schemas.decoding import BatchDecoder, BodyDecoder, FileDecoder, RegistryDecoder, SchemaCache
from qtools.schemas.encoding import BodyEncoder, EncodingOptions
from qtools.schemas.registry import Registry, RegistrySettings, registry_settings
from qtools.schemas.wire_format import KEY_HEADER, VALUE_HEADER


class SchemaFlags(NamedTuple):
    """Where the schemas are. registry: None if they are in the file `path`. type_name: of --schema-type, or ""."""

    registry: RegistrySettings | None
    path: str
    type_name: str


def decoder_of(given: dict[str, Any], *, shows_keys: bool = False) -> BatchDecoder:
    """Remove the flags of `decode_options` from `given`, and make the decoder. UsageError, StartError. shows_keys: as
    for BatchDecoder."""
    body, key, key_path = given.pop("decode"), given.pop("decode_key"), given.pop("key_schema")
    style = given.pop("decode_style") or "plain"
    if style != "plain" and "avro" not in (body, key):
        raise UsageError(f"--decode-style {style} goes with --decode avro or --decode-key avro only")
    if key_path and key is None:
        raise UsageError("--key-schema goes with --decode-key only")
    if key is not None:
        check_installed(FORMATS[key])
    key_codec = read_codec(key_path, FORMATS[key], flag="--key-schema", style=style) if key_path else None
    if body is None and key_codec is not None:
        return BatchDecoder(None, FileDecoder(key_codec), shows_keys=shows_keys)
    asks_for_keys = key is not None and key_codec is None
    flags = schemas_of(given, FORMATS[body or key], "--decode" if body else "--decode-key", both=asks_for_keys)
    registry = None if flags.registry is None else Registry(flags.registry)
    bodies: BodyDecoder | None = None
    keys: BodyDecoder | None = None if key_codec is None else FileDecoder(key_codec)
    if asks_for_keys:
        if registry is None:
            raise UsageError("--decode-key needs the schemas: give --schema-registry URL or --key-schema FILE")
        keys = RegistryDecoder(SchemaCache(registry, FORMATS[key], style), KEY_HEADER)
    if body is not None and flags.path:
        bodies = FileDecoder(read_codec(flags.path, FORMATS[body], flags.type_name, style=style))
    elif body is not None and registry is not None:
        bodies = RegistryDecoder(SchemaCache(registry, FORMATS[body], style), VALUE_HEADER)
    elif flags.path:
        raise UsageError("--schema goes with --decode only; --key-schema is for keys")
    return BatchDecoder(bodies, keys, shows_keys=shows_keys)


def encoders_of(given: dict[str, Any], topic: str) -> tuple[BodyEncoder | None, BodyEncoder | None]:
    """Remove the flags of `encode_options` from `given`, and make the encoders of the bodies and of the keys, those
    that are asked for. UsageError, StartError."""
    body, key, key_path = given.pop("encode"), given.pop("encode_key"), given.pop("key_schema")
    subject, register = given.pop("schema_subject"), given.pop("register_schema")
    if key_path and key is None:
        raise UsageError("--key-schema goes with --encode-key only")
    if body is None and (subject or register):
        raise UsageError("--schema-subject and --register-schema go with --encode only")
    keys = None
    if key_path:
        check_installed(FORMATS[key])
        keys = BodyEncoder(EncodingOptions(FORMATS[key], None, "", key_path))
        if body is None:
            return None, keys
    asks_for_keys = key is not None and keys is None
    flag = "--encode" if body else "--encode-key"
    flags = schemas_of(given, FORMATS[body or key], flag, both=register or asks_for_keys)
    if register and (flags.registry is None or not flags.path):
        raise UsageError("--register-schema needs --schema-registry URL and --schema FILE")
    if subject and flags.registry is None:
        raise UsageError("--schema-subject goes with --schema-registry only")
    if subject and not subject.isprintable():
        raise UsageError(f"--schema-subject {subject!r} has characters that are not printable, or are not UTF-8")
    if asks_for_keys:
        if flags.registry is None:
            raise UsageError("--encode-key needs the schemas: give --schema-registry URL or --key-schema FILE")
        check_installed(FORMATS[key])
        keys = BodyEncoder(EncodingOptions(FORMATS[key], flags.registry, f"{topic}-key"))
    if body is None:
        if flags.path:
            raise UsageError("--schema goes with --encode only; --key-schema is for keys")
        return None, keys
    registry = flags.registry if register or not flags.path else None  # it may be that of the keys alone
    options = EncodingOptions(
        FORMATS[body], registry, subject or f"{topic}-value", flags.path, register, flags.type_name
    )
    return BodyEncoder(options), keys


def schemas_of(given: dict[str, Any], kind: str, flag: str, *, both: bool = False) -> SchemaFlags:
    """Remove the flags that say where schemas of this kind are from `given`. UsageError if they do not go together, or
    the library is missing; StartError. flag: what they belong to. both: a registry and a file may be given."""
    url, auth_file, ca, path, type_name = (
        given.pop(name) for name in ("schema_registry", "registry_auth_file", "registry_ca", "schema", "schema_type")
    )
    if url is not None and path and not both:
        more = "; or --register-schema, to register the file's" if flag == "--encode" else ""
        raise UsageError(f"give --schema-registry or --schema, not both{more}")
    if url is None and not path:
        raise UsageError(f"{flag} needs the schemas: give --schema-registry URL or --schema FILE")
    if type_name and (kind != "PROTOBUF" or not (path or flag == "--encode")):
        raise UsageError("--schema-type goes with protobuf only, and with --decode only where there is a --schema")
    check_installed(kind)
    if url is not None:
        return SchemaFlags(registry_settings(url, auth_file, ca), path, type_name)
    if auth_file or ca:
        raise UsageError("--registry-auth-file and --registry-ca go with --schema-registry only")
    return SchemaFlags(None, path, type_name)

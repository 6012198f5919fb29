"""The flags for schemas: --decode and what goes with it. In: click's values. Out: a decoder, which asks for no schema
before the run starts it. Imported only if one of the flags is given.
"""

from __future__ import annotations

from typing import Any

from qtools.errors import StartError, UsageError
from qtools.schemas.codecs import check_installed, make_codec, read_schema
from qtools.schemas.contract import FORMATS, SchemaInvalid
from qtools.schemas.decoding import BodyDecoder, FileDecoder, RegistryDecoder, SchemaCache
from qtools.schemas.registry import Registry, registry_settings


def decoder_of(given: dict[str, Any]) -> BodyDecoder:
    """Remove the flags of `decode_options` from `given`, and make the decoder. UsageError, StartError."""
    kind = FORMATS[given.pop("decode")]
    url, auth_file, ca, path = (
        given.pop(name) for name in ("schema_registry", "registry_auth_file", "registry_ca", "schema")
    )
    if url is not None and path:
        raise UsageError("give --schema-registry or --schema, not both")
    if url is None and not path:
        raise UsageError("--decode needs the schemas: give --schema-registry URL or --schema FILE")
    check_installed(kind)
    if url is not None:
        return RegistryDecoder(SchemaCache(Registry(registry_settings(url, auth_file, ca)), kind))
    if auth_file or ca:
        raise UsageError("--registry-auth-file and --registry-ca go with --schema-registry only")
    try:
        return FileDecoder(make_codec(read_schema(path, kind)))
    except SchemaInvalid as error:
        raise StartError(f"--schema {path} cannot be used: {error}") from error

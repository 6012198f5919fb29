"""The flags for schemas, as click decorators. flags.py reads them, and is imported only where one is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from qtools.cli.flag_rules import remove_unused
from qtools.cli.options import all_of

FORMATS = ("avro", "protobuf", "json-schema")  # schemas/contract.py

STYLES = ("plain", "avro-json")

REGISTRY = (
    click.option(
        "--schema-registry", default=None, metavar="URL",
        help="The schema registry (with Confluent's API) that knows the schemas: http://HOST:8081.",
    ),
    click.option(
        "--registry-auth-file", default="", metavar="FILE",
        help="File with USER:PASSWORD for the schema registry.  [default: $QTOOLS_SCHEMA_REGISTRY_AUTH]",
    ),
    click.option(
        "--registry-ca", default="", metavar="FILE",
        help="Trust the CA certificates in FILE (PEM) for the schema registry.  [default: the system's]",
    ),
    click.option(
        "--schema", default="", metavar="FILE",
        help="The schema itself, instead of a registry (an Avro schema, a .proto file or what protoc "
        "--descriptor_set_out writes, a JSON Schema); bodies then have no magic byte and id before them.",
    ),
    click.option(
        "--schema-type", default="", metavar="NAME",
        help="The message type of the bodies, if a .proto file has several.",
    ),
)  # fmt: skip


SCHEMA_FLAGS = ("schema_registry", "registry_auth_file", "registry_ca", "schema", "schema_type")  # those of REGISTRY


def decode_options(seen: str) -> Callable[[Any], Any]:
    """--decode and what says where the schemas are. seen: what the decoded values are for."""
    decode = click.option(
        "--decode", type=click.Choice(FORMATS), default=None, metavar="|".join(FORMATS),
        help=f"Decode each body to JSON, {seen}. Needs --schema-registry or --schema, and the extra schemas.",
    )  # fmt: skip

    decode_key = click.option(
        "--decode-key", type=click.Choice(FORMATS), default=None, metavar="|".join(FORMATS),
        help="Decode each message's key, which expressions see as $key; needs --schema-registry or --key-schema.",
    )  # fmt: skip
    key_schema = click.option(
        "--key-schema", default="", metavar="FILE", help="The schema of the keys itself, as --schema is of the bodies."
    )
    style = click.option(
        "--decode-style", type=click.Choice(STYLES), default=None, metavar="|".join(STYLES),
        help="The JSON of decoded Avro: plain values, or Avro's own JSON encoding, with the types of unions.  "
        "[default: plain]",
    )  # fmt: skip

    return all_of(decode, decode_key, key_schema, style, *REGISTRY)


# --encode, and which schema it takes.
encode_options = all_of(
    click.option(
        "--encode", type=click.Choice(FORMATS), default=None, metavar="|".join(FORMATS),
        help="Encode each message, which is JSON, with the latest schema of the topic's subject or with --schema; "
        "needs the extra schemas.",
    ),
    click.option(
        "--encode-key", type=click.Choice(FORMATS), default=None, metavar="|".join(FORMATS),
        help="Encode the result of --key with the latest schema of the subject TOPIC-key, or with --key-schema.",
    ),
    click.option(
        "--key-schema", default="", metavar="FILE",
        help="The schema of the keys itself, as --schema is of the bodies.",
    ),
    *REGISTRY,
    click.option(
        "--schema-subject", default="", metavar="SUBJECT",
        help="The subject of the schema in the registry.  [default: TOPIC-value]",
    ),
    click.option(
        "--register-schema", is_flag=True,
        help="Register the schema in --schema under the subject; without this flag nothing is registered.",
    ),
)  # fmt: skip


def decoder_if_given(given: dict[str, Any], readers: Iterable[object], advice: str, *, shows_keys: bool = False) -> Any:
    """Remove the flags of `decode_options` from `given`, and make the decoder; None without --decode. UsageError,
    StartError. readers: the values of the flags that read what is decoded, of which one has to be given. advice: their
    names. shows_keys: whether decoded keys are printed."""
    if given["decode"] is None and given["decode_key"] is None:
        remove_unused(given, (*SCHEMA_FLAGS, "key_schema", "decode_style"), "--decode")
        del given["decode"], given["decode_key"]
        return None
    if not any(readers):
        from qtools.errors import UsageError

        raise UsageError(f"--decode has no effect without a flag that reads what is decoded: {advice}")
    if given["decode"] is None and given["key_schema"]:
        remove_unused(given, SCHEMA_FLAGS, "--decode")
    from qtools.cli.schemas.flags import decoder_of

    return decoder_of(given, shows_keys=shows_keys)


def encoders_if_given(given: dict[str, Any], topic: str) -> Any:
    """Remove the flags of `encode_options` from `given`, and make the encoders of the bodies and of the keys; None for
    one that is not asked for. UsageError, StartError."""
    if given["encode"] is None and given["encode_key"] is None:
        remove_unused(given, (*SCHEMA_FLAGS, "key_schema", "schema_subject", "register_schema"), "--encode")
        del given["encode"], given["encode_key"]
        return None, None
    if given["encode"] is None and given["encode_key"] and given["key_schema"]:
        remove_unused(given, SCHEMA_FLAGS, "--encode")
    from qtools.cli.schemas.flags import encoders_of

    return encoders_of(given, topic)

"""The flags for schemas, as click decorators. flags.py reads them, and is imported only where one is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

FORMATS = ("avro", "protobuf", "json-schema")  # schemas/contract.py

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
        "--descriptor_set_out writes, a JSON Schema); bodies then begin without a magic byte and an id.",
    ),
    click.option(
        "--schema-type", default="", metavar="NAME",
        help="The message type of the bodies, if the .proto file of --schema has several.",
    ),
)  # fmt: skip


def decode_options(seen: str) -> Callable[[Any], Any]:
    """--decode and what says where the schemas are. seen: what the decoded values are for."""
    decode = click.option(
        "--decode", type=click.Choice(FORMATS), default=None, metavar="|".join(FORMATS),
        help=f"Decode each body to JSON, {seen}. Needs --schema-registry or --schema, and qtools-cli[schemas].",
    )  # fmt: skip

    def decorate(function: Any) -> Any:
        for option in reversed((decode, *REGISTRY)):
            function = option(function)
        return function

    return decorate


def refuse_without(given: dict[str, Any], flag: str) -> None:
    """Remove the flags about schemas from `given`; UsageError if one of them is there. flag: what they go with."""
    for name in ("schema_registry", "registry_auth_file", "registry_ca", "schema", "schema_type"):
        if given.pop(name):
            from qtools.errors import UsageError

            raise UsageError(f"--{name.replace('_', '-')} goes with {flag} only")

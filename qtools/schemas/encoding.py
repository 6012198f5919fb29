"""Encodes JSON with a schema before it is published. In: bodies of JSON. Out: bodies with a magic byte and an id, or
without.

    --schema-registry URL                                    the latest schema of the subject
    --schema-registry URL --schema FILE --register-schema    the schema in FILE, which is registered first
    --schema FILE                                            the schema in FILE; bodies without a magic byte and an id

The schema is found before the first message is read. An encoded body keeps its JSON value (attributes.py), so --key and
--header see it. A message without a body (a tombstone) keeps having none.
"""

from __future__ import annotations

from typing import NamedTuple

from qtools.attributes import TOMBSTONE, DecodedBody
from qtools.errors import EvaluationError, NetworkError, QtoolsError, StartError
from qtools.flow.json_values import parser_for
from qtools.flow.steps import Passed
from qtools.message import Batch
from qtools.schemas.codecs import make_codec, read_codec, read_schema
from qtools.schemas.contract import FORMATS, SchemaCodec, SchemaInvalid, SchemaText, ValueMisfit
from qtools.schemas.registry import Registry, RegistrySettings, SchemaUnknown
from qtools.schemas.wire_format import framed


class EncodingOptions(NamedTuple):
    """kind: "AVRO" …. registry: None for a schema in the file `path` alone. type_name: a message type of Protobuf."""

    kind: str
    registry: RegistrySettings | None
    subject: str
    path: str = ""
    register: bool = False
    type_name: str = ""


class BodyEncoder:
    """A step that encodes bodies, which are JSON, with one schema; or what encodes keys."""

    def __init__(self, options: EncodingOptions) -> None:
        self._options = options
        self._codec: SchemaCodec | None = None
        self._before = b""  # what stands before each encoded value
        self.name = options.path or f"the schema of {options.subject!r}"

    async def start(self) -> None:
        """Find the schema, and register it if that was asked for. StartError, UsageError."""
        options = self._options
        if options.registry is None:
            self._codec = read_codec(options.path, options.kind, options.type_name)
            return
        registry = Registry(options.registry)
        await registry.start()
        try:
            number, text = await self._found(registry)
            self._codec = make_codec(text, options.type_name)
        except SchemaInvalid as error:
            name = f"--schema {options.path}" if options.path else self.name
            raise StartError(f"{name} cannot be used: {error}") from error
        except SchemaUnknown as error:
            raise StartError(f"{error}; --schema FILE with --register-schema registers one") from error
        except StartError:
            raise
        except (NetworkError, QtoolsError) as error:
            raise StartError(str(error)) from error
        finally:
            await registry.close()
        self._before = framed(number, self._codec.head)

    async def _found(self, registry: Registry) -> tuple[int, SchemaText]:
        """The id and the schema."""
        options = self._options
        if options.register:
            text = read_schema(options.path, options.kind)
            make_codec(text, options.type_name)  # what cannot be used is not registered
            return await registry.register(options.subject, text), text
        number, text = await registry.latest(options.subject)
        if text.kind != options.kind:
            flags = {kind: name for name, kind in FORMATS.items()}
            needs = f": --encode {flags[text.kind]}" if text.kind in flags else ""
            raise SchemaInvalid(f"it is {text.kind[:40]}, not {options.kind}{needs}")
        return number, text

    async def apply(self, batch: Batch) -> Passed:
        """The encoded messages; it fails on one whose body is not JSON, or does not fit the schema."""
        encode, loads = self.encode_fitting, parser_for(batch.bodies)
        places: list[int] = []
        bodies: list[bytes] = []
        failed: dict[int, EvaluationError] = {}
        for place, body in enumerate(batch.bodies):
            if body is not TOMBSTONE:
                try:
                    value = loads(body)
                    body = DecodedBody.of(encode(value), value)
                except EvaluationError as error:
                    failed[place] = error
                    continue
            places.append(place)
            bodies.append(body)
        if failed:
            batch = batch.pick(places)
        return Passed(batch.with_bodies(bodies), places, failed)

    async def close(self) -> None:
        """There is nothing to do: a registry is closed once the schema is found."""

    def encode_fitting(self, value: object) -> bytes:
        """The body, or the key, for `value`. EvaluationError if it does not fit the schema."""
        try:
            return self.encode(value)
        except ValueMisfit as error:
            raise EvaluationError(f"it does not fit {self.name}: {error}") from error

    def encode(self, value: object) -> bytes:
        """The body for `value`. Raises ValueMisfit."""
        assert self._codec is not None
        return self._before + self._codec.encode(value)

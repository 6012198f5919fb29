"""JSON Schema: bodies of JSON, checked against a schema. In: a schema's text, bodies or values. Out: values or bodies.

The checks are jsonschema-rs's, which knows all drafts and reads nothing from the network: a schema that another refers
to is a reference of the registry, or part of the same file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jsonschema_rs
import orjson

from qtools.attributes import DecodedBody, UndecodableBody
from qtools.errors import EvaluationError
from qtools.flow.json_values import encode, parser_for
from qtools.schemas.contract import SchemaInvalid, SchemaText, ValueMisfit

_BASE = "json-schema:///"  # what jsonschema-rs puts before a relative reference


class JsonSchemaCodec:
    """The schema `text` with the schemas that it refers to. SchemaInvalid if it cannot be used."""

    head = b""

    def __init__(self, text: SchemaText) -> None:
        self._name = text.name
        known = {name: _load(referred) for name, referred in text.references}

        def retrieve(uri: str) -> Any:
            name = uri.removeprefix(_BASE)
            if name not in known:
                raise ValueError(f"it refers to {name[:200]!r}, which is no reference of it")
            return known[name]

        try:
            self._validator = jsonschema_rs.validator_for(_load(text.text), retriever=retrieve)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError, TypeError) as error:
            raise SchemaInvalid(_first_line(error)) from error

    def decode_all(self, bodies: Sequence[bytes], start: int, indexes: bytes | None) -> list[bytes]:
        texts = [body[start:] for body in bodies] if start else bodies
        loads, is_valid = parser_for(texts), self._validator.is_valid
        decoded: list[bytes] = []
        for body, text in zip(bodies, texts, strict=True):
            try:
                value = loads(text)
                if is_valid(value):
                    decoded.append(DecodedBody.of(body, value))
                else:
                    decoded.append(UndecodableBody.of(body, f"it does not match {self._name}: {self._why(value)}"))
            except EvaluationError as error:
                decoded.append(UndecodableBody.of(body, str(error)))
            except ValueError as error:
                decoded.append(
                    UndecodableBody.of(body, f"it cannot be checked with {self._name}: {_first_line(error)}")
                )
        return decoded

    def encode(self, value: Any) -> bytes:
        try:
            if not self._validator.is_valid(value):
                raise ValueMisfit(self._why(value))
            return encode(value)
        except (EvaluationError, ValueError) as error:
            raise ValueMisfit(_first_line(error)) from error

    def _why(self, value: Any) -> str:
        """The first reason, with the place in the value."""
        error = next(self._validator.iter_errors(value))
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
        message = " ".join(error.message.split())
        message = message if len(message) <= 200 else f"{message[:120]} … {message[-79:]}"
        return f"{path[:200]}: {message}" if path else message

    def __repr__(self) -> str:
        return f"<JsonSchemaCodec {self._name}>"


def _load(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise SchemaInvalid(f"it is not JSON ({error})") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300] or error.__class__.__name__

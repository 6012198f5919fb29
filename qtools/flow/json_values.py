"""JSON values of bodies. In: bodies, or values. Out: values, or compact JSON.

Integers keep every digit: orjson returns integers beyond 64 bits as doubles, so a batch that contains a run of that
many digits is parsed more slowly. A body that was decoded with a schema has a value already (attributes.py); one that
is missing (TOMBSTONE) has the value null.
"""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from qtools.attributes import TOMBSTONE, DecodedBody, UndecodableBody
from qtools.errors import EvaluationError
from qtools.expressions.values import dump

# The shortest integer that orjson returns as a double has 19 digits: -9223372036854775809.
_ALL_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_MANY_DIGITS = b"0" * 19
_BETWEEN = os.urandom(16).hex()
_SEPARATOR = f',"{_BETWEEN}",'.encode()


def parse(body: bytes) -> Any:
    """The JSON value of `body`, None for TOMBSTONE; an integer beyond 64 bits becomes a double. EvaluationError if
    `body` is not JSON, and has no value of its own (attributes.py)."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if body.__class__ is not bytes:  # orjson takes no bytes of a derived class
            return value_of(body)
        if not body:
            raise EvaluationError("it is not JSON (the body is empty)") from error
        if body.startswith(BOM_UTF8):  # RFC 8259, 8.1: a parser may ignore it
            return parse(body.removeprefix(BOM_UTF8))
        raise EvaluationError(f"it is not JSON ({error})") from error


def value_of(body: bytes) -> Any:
    """The value of a body of any class: its own, None for TOMBSTONE, or that of its JSON. EvaluationError if it has
    none."""
    if isinstance(body, DecodedBody):
        return body.value
    if isinstance(body, UndecodableBody):
        raise EvaluationError(body.reason)
    if body is TOMBSTONE:
        return None
    return parse_exactly(bytes(body))


def parse_exactly(body: bytes) -> Any:
    """The JSON value of `body`, every integer exact. EvaluationError if `body` is not JSON."""
    value = parse(body)  # orjson alone decides what is valid JSON
    if body.__class__ is not bytes or _MANY_DIGITS not in body.translate(_ALL_ZEROS):
        return value
    import json

    try:
        return json.loads(body)
    except RecursionError:
        raise EvaluationError("it is not JSON that could be read (nested too deeply)") from None


def parser_for(bodies: Sequence[bytes]) -> Callable[[bytes], Any]:
    """The fastest function that parses each of `bodies` with every integer exact. The bodies are searched once."""
    if bodies and bodies[0].__class__ is DecodedBody:
        return value_of
    return parse_exactly if _MANY_DIGITS in b"\n".join(bodies).translate(_ALL_ZEROS) else parse


def encode(value: Any) -> bytes:
    """A value as compact JSON, with all digits of integers. EvaluationError if it is nested too deeply."""
    try:
        return dump(value).encode("utf-8", "replace")
    except RecursionError:
        raise EvaluationError("the result is nested too deeply") from None


def encode_all(values: list[Any]) -> list[bytes] | None:
    """Each of `values` as compact JSON; None if they have to be encoded one by one.

    All values are encoded in one call, with a random text between them, and split again. A thousand calls of orjson
    cost twenty times as much, as each result begins with an allocation of its own.
    """
    if not values:
        return []
    mixed = [_BETWEEN] * (2 * len(values) - 1)
    mixed[::2] = values
    try:
        made = orjson.dumps(mixed)[1:-1].split(_SEPARATOR)
    except TypeError:  # an integer of more than 64 bits, or a value nested too deeply for orjson
        return None
    return made if len(made) == len(values) else None

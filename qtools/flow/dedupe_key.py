"""The key of a message for --dedupe. In: the value of an expression, and the body of the message. Out: bytes, or None.

Two values have the same key only if they are the same in JSON, digit for digit: if two different messages shared a key,
the second would count as a duplicate, which is finished and never sent. Integers are exact from the parser on
(filter.py). An expression gets a decimal number as a double; if a double cannot represent all of its digits, the digits
are added to the key.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any

from qtools.attributes import DecodedBody
from qtools.expressions.values import NOTHING, number_text
from qtools.flow.json_values import encode

# Decimals of up to 15 significant digits have distinct doubles (IEEE 754, DBL_DIG).
_SAFE_DIGITS = 15
_LONG_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def make_key(value: Any, body: bytes) -> bytes | None:
    """The key for `value`, which an expression returned for `body`; None for null and for no value at all.

    EvaluationError for a value that cannot be written as JSON.
    """
    if value is None or value is NOTHING:
        return None
    key = encode(value)
    if body.__class__ is DecodedBody:  # its numbers are exact: no text was parsed
        return key
    if value.__class__ is int or len(body) <= _SAFE_DIGITS or (b"." not in body and b"e" not in body.lower()):
        return key
    return b"\0".join([key, *_lost_digits(key, body)])


def _lost_digits(key: bytes, body: bytes) -> list[bytes]:
    """The numbers in `body` that a double cannot represent exactly and whose nearest double appears in `key`."""
    lost: list[bytes] = []
    for number in _LONG_NUMBER.findall(body):
        if len(number) <= _SAFE_DIGITS or number.lstrip(b"-").isdigit():
            continue
        shortest = number_text(float(number))
        if shortest.encode() in key and not _is_same(number.decode(), shortest):
            lost.append(number)
    return lost


def _is_same(number: str, shortest: str) -> bool:
    """Whether two decimal numbers are equal; False if Decimal cannot represent one of them."""
    try:
        return Decimal(number) == Decimal(shortest)
    except InvalidOperation:  # the exponent is beyond the limits of Decimal
        return False

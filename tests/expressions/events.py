"""The message that the tests of expressions read."""

from __future__ import annotations

from typing import Any

from qtools.expressions.expression import compile_expression

EVENT = {
    "type": "purchase", "amount": 150, "user": {"name": "Ada", "tags": ["new", "vip"]}, "odd key": 1, "off": False,
    "items": [{"id": 1, "price": 5}, {"id": 2, "price": 20.5}], "messageId": "m-1", "none": None,
}  # fmt: skip


def run(text: str, value: Any = EVENT) -> Any:
    return compile_expression(text)(value)

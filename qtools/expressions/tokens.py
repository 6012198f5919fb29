"""The filter language's words: what one token looks like, as in jq, and what a literal stands for.

In: text. Out: matches, Python values. Never here: which token may follow which (parser.py), but for
which operator binds how tightly.
"""

from __future__ import annotations

import json
import math
import re

# Operators of two sides, from loose to tight, below // and |.
LEVELS = (("or",), ("and",), ("==", "!=", "<", "<=", ">", ">="), ("+", "-"), ("*", "/", "%"))
COMPARE = 2  # the level of which only one stands in a row

SPACE = re.compile(r"(?:[ \r\n\t]+|#(?:\\(?:\\|\r?\n)|[^\n])*)*")
TOKEN = re.compile(
    r"""(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<field>\.[a-zA-Z_][a-zA-Z_0-9]*)
      | (?P<word>(?:[a-zA-Z_][a-zA-Z_0-9]*::)*[a-zA-Z_][a-zA-Z_0-9]*)
      | (?P<strange>[$@][a-zA-Z_0-9:]*|\?//|//=|[|+*/%-]=|=(?!=)|\.\.)
      | (?P<sign>==|!=|<=|>=|//|[][{}().,:;|+*/%<>?"-])""",
    re.X,
)
STRING = re.compile(r'[^"\\]+|\\u[0-9a-fA-F]{4}|\\["\\/bfnrt]')


def unescaped(pieces: list[str]) -> str:
    """What a string's pieces, as STRING matched them, stand for; ValueError for half a surrogate pair."""
    raw = "".join(piece if piece[0] == "\\" else json.dumps(piece)[1:-1] for piece in pieces)
    value: str = json.loads(f'"{raw}"')
    return value.encode("utf-16", "surrogatepass").decode("utf-16")


def number(token: str) -> int | float:
    """A literal's value: exact when it is whole."""
    if token.rstrip(".").isdigit() and len(token) <= 308:
        return int(token.rstrip("."))
    value = float(token)
    return value if math.isfinite(value) else 1.7976931348623157e308

"""The tokens of the filter language, as in jq, and the values of literals.

In: text. Out: matches, Python values. The grammar is in parser.py; only the precedence of operators is here.
"""

from __future__ import annotations

import json
import math
import re

# Binary operators in ascending precedence. The operators // and | come before them.
LEVELS = (("or",), ("and",), ("==", "!=", "<", "<=", ">", ">="), ("+", "-"), ("*", "/", "%"))
COMPARE = 2  # the level whose operators cannot be chained

SPACE = re.compile(r"(?:[ \r\n\t]+|#(?:\\(?:\\|\r?\n)|[^\n])*)*")
TOKEN = re.compile(
    r"""(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<field>\.[a-zA-Z_][a-zA-Z_0-9]*)
      | (?P<word>(?:[a-zA-Z_][a-zA-Z_0-9]*::)*[a-zA-Z_][a-zA-Z_0-9]*)
      | (?P<variable>\$[a-zA-Z_][a-zA-Z_0-9]*)
      | (?P<strange>[$@][a-zA-Z_0-9:]*|\?//|//=|[|+*/%-]=|=(?!=)|\.\.)
      | (?P<sign>==|!=|<=|>=|//|[][{}().,:;|+*/%<>?"-])""",
    re.X,
)
STRING = re.compile(r'[^"\\]+|\\u[0-9a-fA-F]{4}|\\["\\/bfnrt]')


def unescaped(pieces: list[str]) -> str:
    """The text of a string. pieces: matches of STRING. ValueError for half of a surrogate pair."""
    raw = "".join(piece if piece[0] == "\\" else json.dumps(piece)[1:-1] for piece in pieces)
    value: str = json.loads(f'"{raw}"')
    return value.encode("utf-16", "surrogatepass").decode("utf-16")


def number(token: str) -> int | float:
    """The value of a number; an integer is exact."""
    if token.rstrip(".").isdigit() and len(token) <= 308:
        return int(token.rstrip("."))
    value = float(token)
    return value if math.isfinite(value) else 1.7976931348623157e308

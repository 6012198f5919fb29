"""Hints for syntax of other languages: signs, words, names. In: an expression, the place of its error. Out: a hint.

A hint quotes what was typed and says what to write instead. The parser calls this only after it has found an error, so
no valid expression is ever refused.
"""

from __future__ import annotations

import re

_TEXT = 'text is written in double quotes, as in .a == "x"'
_NOT = "'not' is written behind the value, as in .a | not, or .b and (.a | not)"
_AND = "write 'and', as in .a and .b"
_OR = "write 'or', as in .a or .b"
_EQUAL = "write ==, as in .a == 1"
_TEST = 'write test(…) to search a pattern, as in .a | test("^b")'
_EITHER = "write //, as in .a // 0"
_IF = "write if .a then 1 else 2 end"
_NULL = "write null"

# A longer sign comes before shorter signs with the same beginning.
_SIGNS: dict[str, str] = {
    "===": _EQUAL,
    "!==": "write !=, as in .a != 1",
    "&&": _AND,
    "&": _AND,
    "||": _OR,
    "<>": "write !=, as in .a != 1",
    "=>": "write >=, as in .a >= 1",
    "=<": "write <=, as in .a <= 1",
    "=~": _TEST,
    "!~": 'write test(…) and not, as in .a | test("^b") | not',
    "~": _TEST,
    "??": _EITHER,
    "?:": _EITHER,
    "**": "there are no powers",
    "++": "nothing is assigned here; one more is written .a + 1",
    "--": "nothing is assigned here; one less is written .a - 1",
    "->": "a field of a field is written .a.b",
    "<<": "there are no shifts of bits",
    ">>": "there are no shifts of bits",
    "$.": "the message itself is written as a dot, as in .a",
    "$[": "the message itself is written as a dot, as in .[0]",
    "@.": "the message itself is written as a dot, as in .a",
    "[*]": "any(…) and all(…) look at each item, as in .a | any(. > 1)",
    "!": _NOT,
    ";": "conditions are joined by and, as in .a and .b",
    "\\": "a backslash is only written within text; the shell needs none within single quotes",
    **dict.fromkeys("'`“”„‘’«»", _TEXT),
}
_LONGEST = max(map(len, _SIGNS))

# Operators that are words, constants, and functions, in lower case.
_WORDS: dict[str, str] = {
    "and": _AND,
    "or": _OR,
    "not": _NOT,
    "xor": "write !=, as in (.a == 1) != (.b == 1)",
    "is": "write ==, as in .a == null, or != for is not",
    "in": "write .a == 1 or .a == 2; for text, .a | inside(…)",
    "like": _TEST,
    "ilike": 'write test(…; "i") to search a pattern, as in .a | test("^b"; "i")',
    **dict.fromkeys(("rlike", "regexp", "matches", "similar"), _TEST),
    "between": "write .a >= 1 and .a <= 2",
    **dict.fromkeys(("isnull", "notnull", "exists"), "write .a != null, or .a == null"),
    **dict.fromkeys(("eq", "equals", "equal"), _EQUAL),
    **dict.fromkeys(("ne", "neq"), "write !=, as in .a != 1"),
    "gt": "write >, as in .a > 1",
    "ge": "write >=, as in .a >= 1",
    "gte": "write >=, as in .a >= 1",
    "lt": "write <, as in .a < 1",
    "le": "write <=, as in .a <= 1",
    "lte": "write <=, as in .a <= 1",
    **dict.fromkeys(("none", "nil", "null", "undefined"), _NULL),
    "true": "write true",
    "false": "write false",
    **dict.fromkeys(("lower", "lowercase", "tolower"), "write .a | ascii_downcase"),
    **dict.fromkeys(("upper", "uppercase", "toupper"), "write .a | ascii_upcase"),
    **dict.fromkeys(("len", "size", "count"), "write .a | length"),
}
# Functions that other languages write as operators between two values.
_INFIX = ("startswith", "endswith", "contains", "inside", "has", "test", "split", "join")

_WORD = re.compile(r"[A-Za-z_]\w*")
# A field that may need quotes: .user-id, .2fa, .café
_NAME = re.compile(r"(?<![0-9])\.(\w+(?:-\w+)*)")
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*", re.ASCII)
_METHOD = re.compile(r"\.([A-Za-z_]\w*)\Z")


def find_foreign(text: str, place: int) -> tuple[int, str] | None:
    """Find syntax of another language at or around index `place`: (index where it begins in `text`, hint), or None."""
    return _name(text, place) or _sign(text, place) or _word(text, place) or _construct(text, place)


def _name(text: str, place: int) -> tuple[int, str] | None:
    for found in _NAME.finditer(text):
        name = found[1]
        if found.start() <= place < found.end() and not _PLAIN_NAME.fullmatch(name):
            other = ""
            if name.isdecimal():
                other = f"; an item of an array is written .[{name}]"
            elif "-" in name:
                other = "; a difference is written .a - .b"
            return found.start(), f'{found[0]} is not a plain name: such a field is written ."{name}"{other}'
    return None


def _sign(text: str, place: int) -> tuple[int, str] | None:
    for start in range(max(0, place - _LONGEST + 1), place + 1):
        for sign, hint in _SIGNS.items():
            if text.startswith(sign, start) and start + len(sign) > place:
                return start, f"{sign!r} is not in this language: {hint}"
    return None


def _word(text: str, place: int) -> tuple[int, str] | None:
    found = _WORD.match(text, place)
    if found is None:
        return None
    word = found[0]
    if word in _INFIX:
        return place, f"{word!r} is a function here: write it behind a pipe, as in .a | {word}(…)"
    if word in ("and", "or", "true", "false", "null"):
        return None
    hint = _WORDS.get(word.lower())
    if hint is None:
        return None
    why = "cannot stand here" if word in ("not", "in") else "is not in this language"
    return place, f"{word!r} {why}: {hint}"


def _construct(text: str, place: int) -> tuple[int, str] | None:
    before = text[:place].rstrip()
    if text.startswith("(", place) and (found := _METHOD.search(before)):
        return place, f"{found[0]}(…) is a method in other languages: a function is written behind a pipe, .a | f(…)"
    if text.startswith("/", place):
        return place, f"a pattern is written as text: {_TEST}"
    if before.endswith("??"):
        return len(before) - 2, f"'??' is not in this language: {_EITHER}"
    if before.endswith("?"):
        return place, f"'?' and ':' do not choose here: {_IF}"
    return None

r"""Patterns of `test(…)`: the regular expressions of jq that can be searched in linear time, run by RE2.

In: a pattern in jq's syntax (Oniguruma, Perl's syntax) and jq's flags. Out: a function that tells whether a text
contains a match. ValueError with the reason for a pattern that needs backtracking, or that RE2 would interpret in
another way than jq: look-around, back references, possessive quantifiers, atomic groups.

\d, \w and \s are those of Unicode, as in jq; \b is that of ASCII, and the flag i maps one character to one ("ß" is not
"SS"). No other engine is used. RE2 comes with the extra `regex`, which not every installation has.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

MISSING = "test(…) needs one more package: pip install 'qtools-cli[regex]'"
# g and l change only where a match ends, or how many there are, not whether there is one; s is always on in jq.
FLAGS = "gilpsx"
# Letters, marks, digits and connectors, and also circled letters and the numbers of Latin-1, as in jq's engine.
WORD = r"\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189}"
WORD += r"\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE}"
SPACE = r"\t-\r \x{85}\p{Z}"
CLASSES = {"d": r"\p{Nd}", "D": r"\P{Nd}", "w": f"[{WORD}]", "W": f"[^{WORD}]", "s": f"[{SPACE}]", "S": f"[^{SPACE}]"}
IN_SET = {"d": r"\p{Nd}", "D": r"\P{Nd}", "w": WORD, "s": SPACE}
# $ as in jq and Perl: the end of the text, or before a line feed there.
END = r"(?:\n?\z)"
SAME = frozenset("tnrfa")  # escapes with the same meaning in both engines

_PIECE = re.compile(
    r"""\\Q(?P<literal>.*?)(?:\\E|\Z)
      | \\x\{[0-9A-Fa-f]{1,6}\} | \\x[0-9A-Fa-f]{2} | \\[pP]\{\^?[A-Za-z_]+\}
      | \\(?P<escaped>.)
      | \(\?(?P<flags>[a-z]*(?:-[a-z]+)?)(?P<close>[:)])
      | \(\?<[A-Za-z_][A-Za-z0-9_]*>
      | (?P<group>\(\?.?.?)
      | (?P<set>\[\^?)
      | (?P<repeat>[*+?]|\{[0-9]+(?:,[0-9]*)?\})
      | (?P<anchor>[\^$])
      | (?P<plain>.)""",
    re.S | re.X | re.A,
)
_SET_PIECE = re.compile(
    r"\\x\{[0-9A-Fa-f]{1,6}\}|\\x[0-9A-Fa-f]{2}|\\[pP]\{\^?[A-Za-z_]+\}|\\(?P<escaped>.)|(?P<plain>.)", re.S
)


def _escape(char: str, inside: bool) -> str:
    """The pattern of RE2 for `\\char`."""
    known = IN_SET if inside else CLASSES
    if char in known:
        return known[char]
    if char in SAME:
        return "\\" + char
    if char == "e":
        return r"\x1b"
    if not inside and char in "AzbB":
        return "\\" + char
    if not inside and char == "Z":
        return END
    if char in "WS":
        raise ValueError(f"\\{char} inside […] is not possible here: write the set the other way round")
    if char in "123456789" and not inside:
        raise ValueError(f"a back reference (\\{char}) needs a search without a bound on its time")
    if char.isascii() and char.isalnum():
        raise ValueError(f"\\{char} is not known here")
    return "\\" + char if char.isascii() else char


def _set(pattern: str, place: int) -> tuple[str, int]:
    """Translate the set whose content starts at `place`; returns it, and the index behind it."""
    out: list[str] = []
    first = place
    while piece := _SET_PIECE.match(pattern, place):
        place = piece.end()
        plain, escaped = piece["plain"], piece["escaped"]
        if plain == "]" and piece.start() > first:
            return "".join(out) + "]", place
        if plain == "[":
            what = "a named class such as [:alpha:]" if pattern.startswith(":", place) else "a set inside a set"
            raise ValueError(f"{what} is not known here: write \\p{{L}} for letters, \\d for digits, \\[ for a bracket")
        out.append(_escape(escaped, inside=True) if escaped else "\\" + plain if plain == "]" else piece[0])
    raise ValueError("a [ is never closed")


def check_flags(flags: str) -> None:
    """Raises ValueError for a flag that jq does not have, or that RE2 does not support."""
    for flag in flags:
        if flag == "n":
            raise ValueError('flag "n" is not possible here: write a pattern that cannot match nothing, a+ for a*')
        if flag not in FLAGS:
            raise ValueError(f'"{flag}" is no flag; there are {", ".join(FLAGS)}')


def translate(pattern: str, flags: str = "") -> str:
    """Translate `pattern` for RE2. Raises ValueError if RE2 would not give the same result as jq."""
    out = ["(?i)" if "i" in flags else "", "(?s)" if "p" in flags else ""]
    place = 0
    may_repeat = False  # whether the last piece can be repeated
    while place < len(pattern):
        piece = _PIECE.match(pattern, place)
        assert piece is not None  # the last branch matches any character
        place = piece.end()
        plain = piece["plain"]
        if plain == "\\":
            raise ValueError("it ends with a single \\")
        if "x" in flags and plain is not None and (plain == "#" or plain in " \t\n\r\f\v"):
            if plain == "#":
                place = pattern.find("\n", place) + 1 or len(pattern)
            continue
        if piece["repeat"]:
            if not may_repeat:
                raise ValueError(f"nothing stands before {piece[0]} that it could repeat")
            lazy = pattern.startswith("?", place)
            place += lazy
            if pattern.startswith("+", place):
                raise ValueError(f"a possessive quantifier ({piece[0]}+) needs a search that goes back")
            out.append(piece[0] + "?" * lazy)
            may_repeat = False
            continue
        may_repeat = piece["anchor"] is None and plain not in ("(", "|")
        if piece["literal"] is not None:
            out += [re.escape(char) if char.isascii() else char for char in piece["literal"]]
            may_repeat = bool(piece["literal"])
        elif piece["escaped"]:
            out.append(_escape(piece["escaped"], inside=False))
            may_repeat = piece["escaped"] not in "AzZbB"
        elif piece["close"]:
            if strange := set(piece["flags"]) - set("is-"):
                raise ValueError(f'(?{strange.pop()}) is not known here: give x as a flag, test(…; "x")')
            out.append(piece[0])
            may_repeat = False
        elif piece["group"]:
            raise ValueError(_why(piece["group"]))
        elif piece["set"]:
            inside, place = _set(pattern, place)
            out.append(piece["set"] + inside)
        elif piece["anchor"]:
            out.append("^" if piece["anchor"] == "^" else END)
        else:
            out.append(piece[0])
            may_repeat = may_repeat and not piece[0].startswith("(?<")
    return "".join(out)


def _why(group: str) -> str:
    if group.startswith(("(?=", "(?!")):
        return f"look-ahead ({group[:3]}…)) needs a search that goes back"
    if group.startswith(("(?<=", "(?<!")):
        return f"look-behind ({group[:4]}…)) needs a search that goes back"
    if group.startswith("(?>"):
        return "an atomic group ((?>…)) needs a search that goes back"
    return f"{group[:3]} is not known here"


def compile_pattern(pattern: str, flags: str = "") -> Callable[[str], Any]:
    """A function that searches a text for `pattern`, and returns None if there is no match. ValueError with the
    reason; ImportError with what to install if RE2 is not there."""
    try:
        import re2  # imported late, as few expressions have patterns
    except ImportError as error:
        raise ImportError(MISSING) from error

    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    try:
        search = re2.compile(translate(pattern, flags).encode(), options).search
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        raise ValueError(reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)) from None
    return lambda text: search(text.encode("utf-8", "replace"))

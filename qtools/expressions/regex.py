r"""Patterns of `test(…)`: those of jq's regular expressions whose search takes a time linear in the text, run by RE2.

In: a pattern as jq would read it (Oniguruma, Perl's syntax) and jq's flags. Out: a function that says whether a text
holds a match. A pattern that would need backtracking, or that RE2 would read in another way than jq, is refused with
a reason (ValueError), never guessed at: look-around, back references, possessive quantifiers, atomic groups.

\d, \w and \s are Unicode's here as in jq; \b is ASCII's alone, and i folds one character to one ("ß" is not "SS").
Never here: a search by any other engine.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

FLAGS = "gilpsx"
# Flags that change where a match ends or how many there are, not whether there is one: g, l; s is always on in jq.
# Letters, marks, digits, connectors; and the circled letters and Latin-1's numbers, which jq's engine counts in.
WORD = r"\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189}"
WORD += r"\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE}"
SPACE = r"\t-\r \x{85}\p{Z}"
CLASSES = {"d": r"\p{Nd}", "D": r"\P{Nd}", "w": f"[{WORD}]", "W": f"[^{WORD}]", "s": f"[{SPACE}]", "S": f"[^{SPACE}]"}
IN_SET = {"d": r"\p{Nd}", "D": r"\P{Nd}", "w": WORD, "s": SPACE}
# jq's $ is Perl's: the end, or before the line feed there.
END = r"(?:\n?\z)"
SAME = frozenset("tnrfa")  # escapes that mean the same in both

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
    """What RE2 has to be given for `\\char`."""
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
    """The set whose content starts at `place`, and where it ends."""
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
    """Raises ValueError for a flag that is none of jq's, or that RE2 cannot serve."""
    for flag in flags:
        if flag == "n":
            raise ValueError('flag "n" is not possible here: write a pattern that cannot match nothing, a+ for a*')
        if flag not in FLAGS:
            raise ValueError(f'"{flag}" is no flag; there are {", ".join(FLAGS)}')


def translate(pattern: str, flags: str = "") -> str:
    """`pattern` for RE2. Raises ValueError for what it cannot do as jq does."""
    out = ["(?i)" if "i" in flags else "", "(?s)" if "p" in flags else ""]
    place = 0
    may_repeat = False  # whether what stands before can be repeated
    while place < len(pattern):
        piece = _PIECE.match(pattern, place)
        assert piece is not None  # the last branch takes any character
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
    """A search for `pattern`: give it a text, and it is None or not. Raises ValueError with one line of reason."""
    import re2  # late: few expressions have patterns

    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    try:
        search = re2.compile(translate(pattern, flags).encode(), options).search
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        raise ValueError(reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)) from None
    return lambda text: search(text.encode("utf-8", "replace"))

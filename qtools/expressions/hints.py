"""Hints for constructs of jq that the filter language lacks.

In: the word or sign. Out: one clause that says what is missing, and what to use instead.
"""

from __future__ import annotations

from collections.abc import Sequence

_PIPE = "q-tail … | jq … | q-pipe … does that"
_ONE = "an expression yields one result here"


def _no(what: str) -> str:
    return f"{what} is jq's, not this language's: {_PIPE}"


OPERATORS: dict[str, str] = {
    "..": _no("'..', which visits all values,"),
    "[]": f".[] yields many results, and {_ONE}: any(…) and all(…) look at each item; for more, {_PIPE}",
    ",": f"',' yields many results, and {_ONE}: [.a, .b] makes an array of them; for more, {_PIPE}",
    "=": "'=' assigns in jq, and nothing is assigned here: equality is written ==",
    "$": "a variable has a name, as in $key",
    "@": _no("a format (@name)"),
    "?//": _no("'?//'"),
    **{sign: _no(f"assignment ({sign})") for sign in ("|=", "+=", "-=", "*=", "/=", "%=", "//=")},
}

# Words of jq; name/count is a call with that number of arguments.
WORDS: dict[str, str] = {
    **{
        word: _no(f"'{word}'") for word in ("def", "reduce", "foreach", "label", "break", "import", "include", "module")
    },
    **{word: _no(f"'{word}'") for word in ("recurse", "walk", "paths", "getpath", "setpath", "limit", "first", "last")},
    **{word: _no(f"'{word}'") for word in ("range", "repeat", "while", "until", "env", "input", "inputs", "debug")},
    **{
        word: _no(f"'{word}'")
        for word in ("map_values", "to_entries", "from_entries", "with_entries", "add", "flatten")
    },
    **{
        word: _no(f"'{word}'")
        for word in ("sort", "sort_by", "group_by", "unique", "unique_by", "min_by", "max_by", "del")
    },
    **{
        word: _no(f"'{word}'")
        for word in ("min", "max", "reverse", "path", "error", "now", "input_line_number", "halt")
    },
    **{word: _no(f"'{word}'") for word in ("match", "capture", "scan", "sub", "gsub", "splits", "tojson", "fromjson")},
    **{
        word: _no(f"'{word}'")
        for word in ("floor", "ceil", "round", "sqrt", "pow", "log", "abs", "ltrimstr", "rtrimstr")
    },
    **{
        word: _no(f"'{word}'")
        for word in ("trim", "ltrim", "rtrim", "index", "rindex", "indices", "explode", "implode")
    },
    **{word: _no(f"'{word}'") for word in ("fromdate", "todate", "strptime", "strftime", "mktime", "gmtime", "splits")},
    "map": f"'map' looks at many values: any(…) and all(…) test each item of an array; for more, {_PIPE}",
    "as": _no("a variable of one's own (… as $name)"),
    "try": "'try' is not in this language: .a? yields nothing where .a fails, .a? // \"else\" something else",
    "catch": "'catch' is not in this language: .a? // \"else\" yields something else where .a fails",
    "any/2": "any(condition) looks at each item of its input, as in .items | any(.price > 10)",
    "all/2": "all(condition) looks at each item of its input, as in .items | all(.price > 10)",
    "split/2": "a split by a pattern is jq's alone",
    "select/0": 'as in select(.type == "purchase")',
    "select/2": "conditions are joined by and",
    "test/0": 'as in .name | test("^a"; "i")',
}

_VARIABLES_OF_JQ = {
    "ENV": _no("$ENV, the environment,"),
    "__loc__": _no("$__loc__"),
}


def arguments(name: str, wanted: Sequence[int], count: int) -> str:
    """The error for a function that was called with `count` arguments."""
    counts = " or ".join({0: "no argument", 1: "one argument", 2: "two"}[each] for each in wanted)
    hint = WORDS.get(f"{name}/{count}") or (
        f"its input stands before it, as in .a | {name}" if wanted == (0,) else f"as in .a | {name}(…)"
    )
    return f"{name} takes {counts}, not {count}: {hint}"


def unknown_variable(name: str, known: Sequence[str]) -> str:
    """The error for a variable that this language lacks. name: without its dollar sign."""
    if name in _VARIABLES_OF_JQ:
        return _VARIABLES_OF_JQ[name]
    import difflib  # imported late, as only errors need it

    close = difflib.get_close_matches(name, known, 1)
    own = f"variables of one's own are jq's, and a field of the body is written .{name}"
    hint = f"did you mean ${close[0]}?" if close else own
    return f"there is no variable ${name} (known are {', '.join(f'${each}' for each in known)}): {hint}"


def unknown(name: str, known: Sequence[str], instead: str) -> str:
    """The error for a word that neither language has."""
    if name in ("then", "else", "elif", "end", "and", "or"):
        return f"a value was expected, {instead}"
    import difflib  # imported late, as only errors need it

    close = difflib.get_close_matches(name, known, 1)
    guess = f"did you mean {close[0]}?" if close else f'a field is written .{name}, text "{name}"'
    return f"there is no function {name!r}: {guess}"

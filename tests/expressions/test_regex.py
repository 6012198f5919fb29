"""Patterns: what is accepted finds what jq's engine finds; the rest is refused with a reason."""

from __future__ import annotations

import json
import re
import sys
import time
import timeit

import jq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtools.expressions.regex import check_flags, compile_pattern, translate

TEXTS = [
    "", "a", "b", "ab", "aab", "abc", "A", "a\n", "a\nb", "\na", "a b", "é", "É", "1", "٣", "_", "-", "]", "[", ".",
    "x.y",
    "\t", "\u00a0", "\u2028", "\r", "\x0b", "{", "a{2}", "aa", "^", "$", "\\", "#", "ß", "日本", "😀",
]  # fmt: skip


def found(pattern: str, flags: str, texts: list[str]) -> list[bool]:
    search = compile_pattern(pattern, flags)
    return [search(text) is not None for text in texts]


def jqs(pattern: str, flags: str, texts: list[str]) -> list[bool]:
    program = f"[.[] | test({json.dumps(pattern)}; {json.dumps(flags)})]"
    result: list[bool] = jq.compile(program).input_text(json.dumps(texts)).first()
    return result


@pytest.mark.parametrize("flags", ["", "i", "x", "s", "p", "gl", "ix"])
@pytest.mark.parametrize(
    "pattern",
    [
        "", "a", "^a", "a$", "^$", "a.b", "a|b", "(a)(b)", "(?:ab)+", "(?<name>a)b", "[abc]", "[^abc]", "[a-c]+",
        "a*b", "a+?b",
        "a{2}", "a{2,}", "a{1,2}?b", "a{,2}", "{", "[]a]", "[^]a]", "[a-]", "[-a]", "]", r"\d", r"\D", r"\w", r"\W",
        r"\s", r"\S",
        r"[\d_]", r"[\w-]", r"[^\w]", r"[^\s]", r"[\D]", r"\Aa", r"b\z", r"a\Z", r"\.", r"\[", r"\]", r"\\", r"\{",
        r"\$", r"\^",
        r"\t", r"\n", r"\r", r"\x41", r"\x{e9}", r"\x{1F600}", r"\p{L}", r"\P{L}", r"\p{Nd}", r"\p{Greek}", r"\p{^L}",
        "é", "日",
        "(?i)A", "(?i:A)b", "(?s)a.b", "(?-i)A", r"\Qa.\E", "a b", "a #c\nb", r"a\ b", "[ ]", r"\#", "(a|b)*$",
        "(^a|b$)", "[a&&b]",
        r"\/", r"\-", r"[\]\\^-]", r"\é", "a$$", "($|b)", r"[\n]", "[$^.]", r"\e", r"\f", r"\a",
    ],
)  # fmt: skip
def test_it_finds_what_jq_finds(pattern: str, flags: str) -> None:
    assert found(pattern, flags, TEXTS) == jqs(pattern, flags, TEXTS)


@pytest.mark.parametrize("name", ["d", "D", "s", "S", "w", "W"])
def test_a_class_holds_the_characters_that_jqs_holds(name: str) -> None:
    """But for the few hundred letters of scripts that one engine's tables know and the other's do not yet."""
    texts = [chr(code) for code in range(1, 0x3100) if not 0xD800 <= code < 0xE000]
    ours, theirs = found(rf"\{name}", "", texts), jqs(rf"\{name}", "", texts)
    differ = [text for text, one, other in zip(texts, ours, theirs, strict=True) if one != other]
    assert len(differ) < len(texts) / 100, differ
    assert not [text for text in differ if ord(text) < 0x100], differ


ATOMS = ["a", "b", ".", "[ab]", "[^a]", r"\d", r"\w", r"\s", "^", "$", "(a|b)", "(?:ab)", "é", r"\.", "1"]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(ATOMS), st.sampled_from(["", "", "", "*", "+", "?", "*?", "{2}", "{1,3}"])),
        max_size=6,
    ),
    st.sampled_from(["", "i", "p", "x"]),
    st.lists(st.text(st.sampled_from("abA1 .é\n"), max_size=6), min_size=1, max_size=20),
)
def test_random_patterns_find_what_jqs_find(parts: list[tuple[str, str]], flags: str, texts: list[str]) -> None:
    # $ before a line feed that is then matched itself is a documented difference.
    pattern = "".join(atom + ("" if atom in "^$" else repeat) for atom, repeat in parts)
    pattern = re.sub(r"\$(?!$)", "", pattern)
    assert found(pattern, flags, texts) == jqs(pattern, flags, texts)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(?=a)", "look-ahead"), ("(?!a)", "look-ahead"), ("(?<=a)b", "look-behind"), ("(?<!a)b", "look-behind"),
        (r"(a)\1", "back reference"), (r"\k<a>", r"\k"), ("a*+", "possessive"), ("a{2}+", "possessive"), ("(?>a)",
        "atomic"),
        ("(?#c)a", "(?#"), ("(?P<n>a)", "(?P"), ("(?'n'a)", "(?'"), ("(?m)a", "(?m"), ("(?x)a", "(?x"), ("(",
        "missing )"),
        (")", "unexpected )"), ("*", "nothing stands before"), ("a**", "nothing stands before"), ("^*",
        "nothing stands before"),
        ("(*a)", "nothing stands before"), ("a|*", "nothing stands before"), ("[a", "never closed"), ("[[:alpha:]]",
        r"\p{L}"),
        ("[[a]b]", "set inside a set"), (r"[\W]", "other way round"), (r"[\b]", r"\b"), (r"\K", r"\K"), (r"\G", r"\G"),
        (r"\R", r"\R"), (r"\X", r"\X"), (r"\h", r"\h"), (r"\v", r"\v"), (r"\u00e9", r"\u"), (r"\cA", r"\c"), ("a\\",
        "single"),
        ("[z-a]", "range"), ("a{1001}", "repetition"), ("((a{100}){100}){100}", "repetition"), (r"\p{Nonsense}",
        "class"),
    ],
)  # fmt: skip
def test_what_is_refused(pattern: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        compile_pattern(pattern)


@given(st.text(st.sampled_from("ab()[]{}?*+|^$\\.<>=!:#-0 1dwsWbpPQEx&,é\n")), st.sampled_from(["", "x", "i"]))
def test_garbage_is_a_pattern_or_a_reason(pattern: str, flags: str) -> None:
    try:
        search = compile_pattern(pattern, flags)
    except ValueError:
        return
    search("ab\n")


def test_flags() -> None:
    check_flags("gixspl")
    for flags in ("n", "q", "m", "I"):
        with pytest.raises(ValueError, match=flags):
            check_flags(flags)
    assert translate("a b", "ix") == "(?i)ab"


@pytest.mark.parametrize(
    "pattern", ["(a*)*b", "(a|aa)+b", "(a|a)*b", "(.*)(.*)(.*)(.*)b", "a*a*a*a*a*a*b", "(x+x+)+y|(a+a+)+b"]
)
def test_a_pattern_that_explodes_elsewhere_takes_a_time_in_proportion_to_the_text(pattern: str) -> None:
    search = compile_pattern(pattern)

    def cost(size: int) -> float:
        text = "a" * size
        return min(timeit.repeat(lambda: search(text), time.process_time, number=3, repeat=5))

    cost(1000)
    # 40 times the text: the square would be 1600 times the time, and caches that are shared with others cost some, too.
    assert cost(800_000) < 600 * cost(20_000)


def test_the_engine_is_loaded_when_a_pattern_asks_for_it() -> None:
    import subprocess

    program = (
        "import sys; from qtools.expressions.expression import compile_expression as c; c('.a == 1');"
        "before = 're2' in sys.modules;"
        "c('test(\"a\")'); print(before, 're2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"

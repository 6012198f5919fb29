"""Messages for people: the layout of JSON, its digits, and what a terminal must not get."""

from __future__ import annotations

import json
import re
import time

import pytest

from qtools.attributes import TOMBSTONE
from qtools.tail.pretty import LONGEST, pretty_format, wants_colours
from tests.tail.messages import STAMP, batch_of

HEAD = time.strftime("%H:%M:%S", time.localtime(STAMP // 10**9)).encode()


def plain(body: bytes, width: int = 80, *, shows_topic: bool = False, attempts: int = 1) -> bytes:
    form = pretty_format(shows_topic=shows_topic, colours=False, width=width)
    return b"".join(form.pieces(batch_of(body, attempts=attempts)))


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"a":1,"b":[true,null,"x:y,z"]}', b'{"a": 1, "b": [true, null, "x:y,z"]}'),
        (b' {"a":1}', b' {"a":1}'),
        (b'{"a":1', b'{"a":1'),
        (b"[]", b"[]"),
        (b"12", b"12"),
        (b"text \x1b[31m", b"text ^[[31m"),
        (b'{"a":"\xc2\x9b","b":"\\u001b"}', b'{"a": "<U+009B>", "b": "\\u001b"}'),
        (b'{"n":123456789012345678901234567890}', b'{"n": 123456789012345678901234567890}'),
        (b'{"n":0.12345678901234567}', b'{"n": 0.12345678901234566}'),
        (b'{"null":"null","a":"\\"null\\""}', b'{"null": "null", "a": "\\"null\\""}'),
    ],
)
def test_on_one_line(body: bytes, shown: bytes) -> None:
    assert plain(body) == HEAD + b" " + shown + b"\n"


def test_indented_where_it_does_not_fit() -> None:
    value = {"id": 1, "items": [{"name": "a" * 30}, {"name": "b" * 30}], "none": None}
    shown = plain(json.dumps(value).encode(), 60)
    assert shown == HEAD + b"\n" + json.dumps(value, indent=2).encode() + b"\n"
    large = {**value, "n": 10**40}
    assert plain(json.dumps(large).encode(), 60) == HEAD + b"\n" + json.dumps(large, indent=2).encode() + b"\n"


def test_heads() -> None:
    assert plain(b"x", attempts=3) == HEAD + b" attempt 3 x\n"
    assert plain(b"x", shows_topic=True) == HEAD + b" orders x\n"
    assert plain(TOMBSTONE) == HEAD + b" (no body)\n"


def test_colours_do_not_change_the_text() -> None:
    value = {"id": 1, "text": 'a "quoted" \\ text: null', "none": None, "t": [True, False, {"x": "y"}], "": ""}
    coloured = b"".join(
        pretty_format(shows_topic=True, colours=True, width=20).pieces(batch_of(json.dumps(value).encode()))
    )
    head, _, text = re.sub(rb"\x1b\[[0-9;]*m", b"", coloured).partition(b"\n")
    assert head == HEAD + b" orders"
    assert text == json.dumps(value, indent=2).encode() + b"\n"
    assert b'\x1b[34;1m"id"\x1b[0m: 1' in coloured
    assert b"\x1b[90mnull\x1b[0m" in coloured


def test_what_cannot_be_parsed_is_printed_as_it_is() -> None:
    deep = b"[" * 100_000
    assert plain(deep) == HEAD + b" " + deep + b"\n"
    deep = b"[" * 5000 + b"12345678901234567890" + b"]" * 5000
    assert plain(deep) == HEAD + b" " + deep + b"\n"
    long = b'["' + b"x" * LONGEST + b'"]'
    assert plain(long) == HEAD + b" " + long + b"\n"


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({}, False), ({"TERM": "xterm", "NO_COLOR": "1"}, False)],
)
def test_terminals_with_colours(environ: dict[str, str], wanted: bool) -> None:
    assert wants_colours(environ) is wanted


@pytest.mark.parametrize("body", [b'{"a":' * 500 + b"1" + b"}" * 500, b"[" * 100_000 + b"]" * 100_000])
def test_json_that_is_nested_deeply_is_printed_as_it_is(body: bytes) -> None:
    assert plain(body).endswith(b" " + body + b"\n")

"""What people write on a command line, and what it means."""

from __future__ import annotations

import math
import time
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtools.cli.types import (
    Delimiter,
    Duration,
    Endpoint,
    Integer,
    Number,
    Since,
    Size,
    TopicType,
    format_duration,
    format_size,
    parse_delimiter,
    parse_listen,
    parse_peer,
    parse_size,
    plural,
)
from qtools.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("10", 10), ("1.5", 1.5), ("250ms", 0.25), ("10s", 10), ("1m30s", 90), ("2h", 7200), ("1.5h", 5400),
        (".5", 0.5), (".5s", 0.5),
        ("2d", 172_800), ("100us", 1e-4), ("100µs", 1e-4), ("5ns", 5e-9), (" 3s ", 3), ("1h1m1s1ms", 3661.001),
    ],
)  # fmt: skip
def test_a_duration_is_numbers_with_units_or_bare_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "s", "-1s", "+1s", "1 s", "1s 2s", "1m30", "10x", "1.s", ".s", "1e3", "inf", "nan", "1,5s", "1h-1m"],
)
def test_what_is_no_duration_says_what_one_looks_like(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration such as 250ms, 10s, 1m30s or 2h"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("65536", 65536), ("64KiB", 65536), ("64Ki", 65536), ("64k", 64_000), ("64kB", 64_000),
        ("1.5MB", 1_500_000), ("2M", 2_000_000), ("1MiB", 1 << 20), ("3GiB", 3 << 30), ("1 GB", 10**9), ("7b", 7),
        (".5MB", 500_000), ("9007199254740993", 9007199254740993), ("9007199254740993k", 9007199254740993000),
    ],
)  # fmt: skip
def test_a_size_is_a_number_with_a_unit_or_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "-1", "1x", "1KiBs", "0x10", "1e3", "1..5k", "inf", "1 2"])
def test_what_is_no_size_says_what_one_looks_like(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a size such as 65536, 64KiB or 1MB"):
        parse_size(text)


@given(st.text(max_size=12))
def test_any_text_is_a_value_or_a_sentence(text: str) -> None:
    for parse in (parse_duration, parse_size, parse_delimiter):
        try:
            parse(text)
        except ValueError as error:
            told = str(error)
            assert "\n" not in told


@pytest.mark.parametrize("parse", [parse_duration, parse_size])
def test_a_number_beyond_all_measure_is_refused_like_any_other_nonsense(parse: Any) -> None:
    with pytest.raises(ValueError, match="is not a"):
        parse("9" * 400 + ".0")


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("\n", b"\n"), (r"\n", b"\n"),
        (r"\r\n", b"\r\n"), (r"\t", b"\t"), (r"\0", b"\0"), (r"\x1e", b"\x1e"), (r"\xFF\x00", b"\xff\0"),
        ("--", b"--"), (r"\\", b"\\"), (r"\\n", b"\\n"), (r"a\x41b", b"aAb"), ("ü", "ü".encode()), ("\udcff", b"\xff"),
        (r"\a\f\v\e", b"\a\f\v\x1b"),
    ],
)  # fmt: skip
def test_a_delimiter_is_text_with_escapes(text: str, delimiter: bytes) -> None:
    assert parse_delimiter(text) == delimiter


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "cannot be empty"),
        (r"\x1", "two hex digits"),
        (r"\xg0", "two hex digits"),
        (r"\x", "two hex digits"),
        (r"\q", "unknown escape"),
        ("a\\", "unknown escape"),
    ],
)
def test_what_is_no_delimiter_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_delimiter(text)


def converted(kind: click.ParamType[Any], value: Any) -> Any:
    return kind.convert(value, None, None)


def test_where_a_new_channel_begins() -> None:
    assert abs(converted(Since(), "10m") - (time.time() - 600)) < 5
    assert converted(Since(), "all") == converted(Since(), "1000000h") == 0.0
    assert converted(Since(), "2026-11-23T08:00") == converted(Since(), "2026-11-23T09:00+01:00") == 1_795_420_800.0
    assert converted(Since(), "2026-11-23") == 1_795_392_000.0
    for text in ("soon", "", "2026-13-01", "-5m"):
        with pytest.raises(click.BadParameter, match="is no duration such as 10m or 24h, and no time such as 2026-11"):
            converted(Since(), text)


def test_a_duration_has_its_bounds() -> None:
    kind = Duration(1.0, 900.0)
    assert converted(kind, "1s") == 1.0
    assert converted(kind, "15m") == 900.0
    for text in ("999ms", "901s"):
        with pytest.raises(click.BadParameter, match=f"{text} is not 1s to 15m"):
            converted(kind, text)
    with pytest.raises(click.BadParameter, match="0 is not at least 1s"):
        converted(Duration(1.0), "0")
    assert converted(Duration(), 2) == 2.0
    with pytest.raises(click.BadParameter, match="is not a duration"):
        converted(Duration(), "soon")


def test_a_size_has_its_least() -> None:
    assert converted(Size(1), "1k") == 1000
    assert converted(Size(1), 5) == 5
    with pytest.raises(click.BadParameter, match="0 is less than 1 bytes"):
        converted(Size(1), "0")
    with pytest.raises(click.BadParameter, match="is not a size"):
        converted(Size(), "big")


def test_delimiters_and_topics_are_checked() -> None:
    assert converted(Delimiter(), r"\0") == b"\0"
    assert converted(Delimiter(), b"x") == b"x"
    with pytest.raises(click.BadParameter, match="unknown escape"):
        converted(Delimiter(), r"\z")
    assert converted(TopicType(), "events") == "events"
    with pytest.raises(click.BadParameter, match="topic name 'bad topic' has ' '"):
        converted(TopicType(), "bad topic")


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.0, "0s"), (0.25, "250ms"), (1.0, "1s"), (90.0, "90s"), (120.0, "2m"), (900, "15m"), (7200, "2h"),
     (9000, "2.5h"), (math.inf, "inf")],
)  # fmt: skip
def test_a_duration_as_a_person_says_it(seconds: float, told: str) -> None:
    assert format_duration(seconds) == told


@pytest.mark.parametrize(
    ("size", "told"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_345_678, "2.3 MB"), (999_949, "999.9 kB"), (5 * 10**9, "5.0 GB"),
     (5 * 10**12, "5000.0 GB"), (999_950, "1.0 MB"), (999_999, "1.0 MB"), (999_999_999, "1.0 GB")],
)  # fmt: skip
def test_bytes_as_a_person_says_them(size: int, told: str) -> None:
    assert format_size(size) == told


def test_a_count_with_its_noun() -> None:
    assert [plural(count, "message") for count in (0, 1, 2, 1204)] == [
        "0 messages",
        "1 message",
        "2 messages",
        "1,204 messages",
    ]


@pytest.mark.parametrize(
    ("text", "endpoint", "shown"),
    [
        ("9402", Endpoint("127.0.0.1", 9402), "127.0.0.1:9402"),
        (":9402", Endpoint("127.0.0.1", 9402), "127.0.0.1:9402"),
        (" 0 ", Endpoint("127.0.0.1", 0), "127.0.0.1:0"),
        ("0.0.0.0:65535", Endpoint("0.0.0.0", 65535), "0.0.0.0:65535"),
        ("[::1]:80", Endpoint("::1", 80), "[::1]:80"),
        ("some-host.example:1", Endpoint("some-host.example", 1), "some-host.example:1"),
        ("unix:/run/m.sock", Endpoint(path="/run/m.sock"), "unix:/run/m.sock"),
    ],
)
def test_where_to_listen(text: str, endpoint: Endpoint, shown: str) -> None:
    assert parse_listen(text) == endpoint
    assert str(endpoint) == shown


@pytest.mark.parametrize(
    "text",
    ["", ":", "host", "host:", "a b:1", "::1:80", "[::1]", "h:65536", "h:-1", "h:1x", "h:1:2", "a..b:1",
     "a" * 64 + ":1", "unix:", "unix:m.sock", "http://h:1", "123456"],
)  # fmt: skip
def test_where_nobody_can_listen(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not HOST:PORT|needs an absolute path"):
        parse_listen(text)


def test_whom_to_send_to() -> None:
    assert parse_peer("statsd", 8125) == Endpoint("statsd", 8125)
    assert parse_peer("statsd:9", 8125) == Endpoint("statsd", 9)
    assert parse_peer("[fe80::1]", 8125) == Endpoint("fe80::1", 8125)
    for text in ("", ":8125", "statsd:", "h:0", "unix:/x", "9125:"):
        with pytest.raises(ValueError, match=r"is not HOST:PORT|has the port 0"):
            parse_peer(text, 8125)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x", "'x' is not a whole number"), ("1.5", "'1.5' is not a whole number"), ("1_0", "'1_0' is not a whole"),
        ("", "'' is not a whole number"), ("0", "0 is too small: at least 1"), ("-3", "-3 is too small: at least 1"),
        ("10", "10 is too large: at most 9"), ("9" * 5000, "more than 18 digits"), ("nan", "is not a whole number"),
    ],
)  # fmt: skip
def test_what_is_no_whole_number_within_its_bounds_says_so_in_plain_words(text: str, why: str) -> None:
    with pytest.raises(click.BadParameter) as raised:
        Integer(1, 9).convert(text, None, None)
    assert why in str(raised.value)
    assert [Integer(1, 9).convert(good, None, None) for good in ("1", " 9", "+5", 7)] == [1, 9, 5, 7]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x", "'x' is not a number"), ("0", "0 is too small: more than 0"), ("1.1", "1.1 is too large: at most 1"),
        ("nan", "nan is not a finite number"), ("inf", "inf is not a finite number"), ("", "'' is not a number"),
    ],
)  # fmt: skip
def test_what_is_no_number_within_its_bounds_says_so_in_plain_words(text: str, why: str) -> None:
    with pytest.raises(click.BadParameter) as raised:
        Number(0, 1).convert(text, None, None)
    assert why in str(raised.value)
    assert [Number(0, 1).convert(good, None, None) for good in (".5", "1", "1e-3")] == [0.5, 1.0, 0.001]

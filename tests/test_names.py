"""What a topic, a channel and a source may be called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtools.errors import NameInvalid
from qtools.names import Subscription, check_channel, check_topic, is_ephemeral, is_valid_name, parse_source

GOOD = ["a", "A.b-c_9", ".", "-", "_", "1", "x" * 64, "x#ephemeral", "x" * 54 + "#ephemeral"]
BAD = {
    "": "is empty",
    "x" * 65: "has 65 characters, at most 64 are allowed",
    "x" * 55 + "#ephemeral": "has 65 characters, at most 64 are allowed",
    "#ephemeral": "has nothing before #ephemeral",
    "a b": "has ' '",
    "a/b": "has '/'",
    "a\n": "has '\\n'",
    "a\x00": "has '\\x00'",
    "é": "has 'é'",
    "٣": "has '٣'",
    "a#other": "has a '#', which may only begin the suffix #ephemeral",
    "a#": "has a '#'",
    "a#ephemeral#ephemeral": "has a '#'",
    "a#ephemeralx": "has a '#'",
    "a$b": "has '$'; allowed are letters, digits and . _ -",
}


@pytest.mark.parametrize("name", GOOD)
def test_a_name_that_nsqd_takes_is_given_back(name: str) -> None:
    assert is_valid_name(name)
    assert check_topic(name) == check_channel(name) == name


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_nsqd_would_not_take_is_refused_with_the_reason(name: str) -> None:
    assert not is_valid_name(name)
    for kind, check in (("topic", check_topic), ("channel", check_channel)):
        with pytest.raises(NameInvalid) as caught:
            check(name)
        assert (caught.value.kind, caught.value.name) == (kind, name)
        assert caught.value.reason.startswith(BAD[name])
        assert str(caught.value).isprintable()


@given(st.one_of(st.text(), st.from_regex(r"[.a-zA-Z0-9_#-]{0,70}(#ephemeral)?\n?", fullmatch=True)))
def test_any_text_is_a_name_or_is_refused_with_a_reason(text: str) -> None:
    if is_valid_name(text):
        assert check_topic(text) == text
        assert 1 <= len(text.encode("ascii")) <= 64
        assert not set(text) & set(" \n\r\t/")
    else:
        with pytest.raises(NameInvalid):
            check_topic(text)


def test_a_name_is_ephemeral_by_its_suffix() -> None:
    assert is_ephemeral("t#ephemeral")
    assert not is_ephemeral("ephemeral")


def test_a_source_is_a_topic_and_perhaps_a_channel() -> None:
    assert parse_source("events/archive", "tail") == Subscription("events", "archive")
    assert parse_source("events", "tail#ephemeral") == Subscription("events", "tail#ephemeral")
    assert str(Subscription("events", "archive")) == "events/archive"


@pytest.mark.parametrize(
    ("text", "kind"), [("", "topic"), ("/c", "topic"), ("t/", "channel"), ("t/c/d", "channel"), ("t /c", "topic")]
)
def test_a_source_of_what_are_no_names_is_refused(text: str, kind: str) -> None:
    with pytest.raises(NameInvalid) as caught:
        parse_source(text, "tail")
    assert caught.value.kind == kind


def test_a_password_in_a_url_in_the_place_of_a_name_is_not_shown() -> None:
    with pytest.raises(NameInvalid) as caught:
        check_topic("nsq://me:s3cret@h/t")
    assert str(caught.value) == "topic name 'nsq://h/t' is a URL, and only a name can stand here"
    assert caught.value.name == "nsq://h/t"

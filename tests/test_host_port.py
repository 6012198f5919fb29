"""One rule for HOST:PORT, whichever flag it is given to."""

from __future__ import annotations

import pytest

from qtools.host_port import NotAnAddress, join_host_port, split_host_port


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("nsq-1.example:4150", "nsq-1.example", 4150),
        ("nsq-1.example.", "nsq-1.example.", None),
        ("h", "h", None),
        (":4150", "", 4150),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("[::1]:65535", "::1", 65535),
        ("[fe80::1%eth0]", "fe80::1%eth0", None),
        ("h:0004150", "h", 4150),
    ],
)
def test_an_address_is_split_into_host_and_port(text: str, host: str, port: int | None) -> None:
    assert split_host_port(text) == (host, port)


@pytest.mark.parametrize(
    "text", ["", ":", "h:", "h:x", "h:-1", "h:٣", "a b:1", "a,b:1", "http://h:1", "[h]:1", "u@h:1"]
)
def test_other_text_is_no_address(text: str) -> None:
    with pytest.raises(NotAnAddress, match=r"^is not HOST:PORT$"):
        split_host_port(text)


@pytest.mark.parametrize("text", ["::1", "::1:4150", "[::1", "h:1:2"])
def test_two_colons_without_brackets_are_explained(text: str) -> None:
    with pytest.raises(NotAnAddress, match=r"looks like IPv6: write it as \[ADDRESS\]:PORT"):
        split_host_port(text)


@pytest.mark.parametrize("text", ["h:65536", "h:999999999999"])
def test_a_port_beyond_16_bits_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^has a port that is not between 1 and 65535$"):
        split_host_port(text)


@pytest.mark.parametrize("text", ["a..b:1", ".a:1", "a" * 64, "\x7f:1", ".".join(["a" * 60] * 5)])
def test_a_host_that_dns_cannot_have_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^has a host that is not a name"):
        split_host_port(text)


def test_an_ipv6_address_is_joined_in_brackets() -> None:
    assert (join_host_port("::1", 80), join_host_port("h", 80)) == ("[::1]:80", "h:80")

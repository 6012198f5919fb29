"""What an address is, and which brokers a command speaks to."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtools.engines.nsq.address import (
    Address,
    Brokers,
    choose_brokers,
    local_address,
    lookupd_hint,
    parse_address,
    parse_http_address,
)
from qtools.errors import AddressInvalid, UsageError


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("a:1", "a", 1), ("nsqd.example:4150", "nsqd.example", 4150), ("10.0.0.5:4150", "10.0.0.5", 4150),
        ("a", "a", 4150), ("10.0.0.5", "10.0.0.5", 4150), (" a:1 ", "a", 1), ("[::1]:4150", "::1", 4150),
        ("[::1]", "::1", 4150), ("[fe80::1%eth0]:7", "fe80::1%eth0", 7), ("tcp://a:1", "a", 1), ("nsq://a:1/", "a", 1),
        ("a:65535", "a", 65535), ("my-host_1:2", "my-host_1", 2),
    ],
)  # fmt: skip
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    assert parse_address(text) == Address(host, port)


def test_a_unix_socket_has_an_absolute_path() -> None:
    assert parse_address("unix:/run/broker.sock") == Address(path="/run/broker.sock")
    assert parse_address("unix:///run/broker.sock") == Address(path="/run/broker.sock")
    with pytest.raises(AddressInvalid, match=r"needs an absolute path: unix:/path/to.sock"):
        parse_address("unix:broker.sock")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not HOST:PORT"),
        (":4150", "has no host: did you mean localhost:4150?"),
        ("a:", "is not HOST:PORT"),
        ("a:x", "is not HOST:PORT"),
        ("a b:1", "is not HOST:PORT"),
        ("a:0", "has a port that is not between 1 and 65535"),
        ("a:65536", "has a port that is not between 1 and 65535"),
        ("a:" + "9" * 5000, "has a port that is not between 1 and 65535"),
        ("a:-1", "is not HOST:PORT"),
        ("::1", "looks like IPv6: write it as [ADDRESS]:PORT"),
        ("fe80::1:4150", "looks like IPv6: write it as [ADDRESS]:PORT"),
        ("a:1,b:2", "names several: give the flag once for each"),
        ("a,b", "names several: give the flag once for each"),
        ("http://a:4151", "is a http URL; nsqd's TCP address is HOST:PORT"),
        ("[::1", "looks like IPv6: write it as [ADDRESS]:PORT"),
        ("[x", "is not HOST:PORT"),
        ("user@a:1", "has a password or an '@'"),
        ("a..b:1", "has a host that is not a name"),
        ("a" * 64 + ".example:1", "has a host that is not a name"),
    ],
)
def test_what_is_no_address_says_why(text: str, why: str) -> None:
    with pytest.raises(AddressInvalid) as caught:
        parse_address(text)
    assert why in str(caught.value)


@given(st.text(max_size=20))
def test_any_text_is_an_address_or_a_sentence(text: str) -> None:
    for parse in (parse_address, lambda text: parse_http_address(text, 4161)):
        try:
            told = str(parse(text))
        except AddressInvalid as error:
            told = str(error)
        assert told


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (Address("a", 1), "a:1"),
        (Address("::1", 1), "[::1]:1"),
        (Address(path="/x"), "unix:/x"),
        (Address(path="/x", local=True), "the local broker"),
    ],
)
def test_an_address_is_shown_as_users_write_it(address: Address, shown: str) -> None:
    assert str(address) == shown


@pytest.mark.parametrize(
    ("port", "hint"), [(4150, ""), (4151, "nsqd's HTTP port"), (4160, "nsqlookupd's TCP"), (4161, "nsqlookupd's HTTP")]
)
def test_the_ports_of_other_programs_are_known(port: int, hint: str) -> None:
    told = Address("a", port).other_port_hint
    assert hint in told
    assert bool(told) == bool(hint)


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("a", "http://a:4161"), ("a:80", "http://a:80"), ("http://a:80/", "http://a:80"), ("https://a", "https://a"),
        ("[::1]:80", "http://[::1]:80"), ("unix:/x", "unix:/x"), ("http://a/prefix/", "http://a/prefix"),
    ],
)  # fmt: skip
def test_an_http_address_is_a_host_and_port_or_a_url(text: str, base: str) -> None:
    assert parse_http_address(text, 4161) == base


@pytest.mark.parametrize("text", ["ftp://a", "http://", "http://[::1", "http://a:99999", "a b", "", "local", "unix:x"])
def test_what_is_no_http_address_is_refused(text: str) -> None:
    with pytest.raises(AddressInvalid):
        parse_http_address(text, 4161)


# ── which brokers ───────────────────────────────────────────────────────────────────────────────

A, B = Address("a", 4150, http="http://a:4151"), Address("b", 7, http="http://b:8")


@pytest.mark.parametrize(
    ("nsqd", "lookupd", "environ", "chosen"),
    [
        (["a", "b:7"], [], {}, Brokers(nsqd=(A, B))),
        (["a"], [], {"QTOOLS_NSQD": "b:7"}, Brokers(nsqd=(A,))),
        (["a"], [], {"QTOOLS_LOOKUPD": "b"}, Brokers(nsqd=(A,))),
        ([], ["b"], {"QTOOLS_NSQD": "a"}, Brokers(lookupd=("http://b:4161",))),
        ([], [], {"QTOOLS_NSQD": "a, b:7,"}, Brokers(nsqd=(A, B))),
        ([], [], {"QTOOLS_LOOKUPD": "a,b:1"}, Brokers(lookupd=("http://a:4161", "http://b:1"))),
        (["a", "a:4150"], [], {}, Brokers(nsqd=(A,))),
        ([], ["a", "a:4161"], {}, Brokers(lookupd=("http://a:4161",))),
        (["[::1]:4150"], [], {}, Brokers(nsqd=(Address("::1", 4150, http="http://[::1]:4151"),))),
        (["a:65535"], [], {}, Brokers(nsqd=(Address("a", 65535),))),
        (["unix:/x"], [], {}, Brokers(nsqd=(Address(path="/x"),))),
    ],
)
def test_flags_go_before_the_environment(
    nsqd: list[str], lookupd: list[str], environ: dict[str, str], chosen: Brokers
) -> None:
    assert choose_brokers(nsqd, lookupd, environ=environ) == chosen


def test_with_nothing_said_it_is_the_local_broker(tmp_path: Path) -> None:
    environ = {"HOME": "/home/me", "XDG_RUNTIME_DIR": str(tmp_path)}
    local = Address(http="local", local=True)
    assert local_address(environ) == local
    for nothing in ({}, {"QTOOLS_NSQD": "", "QTOOLS_LOOKUPD": " , "}):
        assert choose_brokers(environ={**environ, **nothing}) == Brokers(nsqd=(local,))


@pytest.mark.parametrize(
    ("nsqd", "lookupd", "http", "environ", "why"),
    [
        (["a"], ["b"], [], {}, "give --nsqd-tcp-address or --lookupd-http-address, not both"),
        ([], [], [], {"QTOOLS_NSQD": "a", "QTOOLS_LOOKUPD": "b"}, "QTOOLS_NSQD and QTOOLS_LOOKUPD are both set"),
        (["a", "b"], [], ["a"], {}, "once for each --nsqd-tcp-address"),
        (["a"], [], ["a", "b"], {}, "once for each --nsqd-tcp-address"),
        ([], [], ["a"], {"HOME": "/h"}, "once for each --nsqd-tcp-address"),
        ([], ["a"], ["a"], {}, "once for each --nsqd-tcp-address"),
    ],
)
def test_what_cannot_go_together_is_a_usage_error(
    nsqd: list[str], lookupd: list[str], http: list[str], environ: dict[str, str], why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        choose_brokers(nsqd, lookupd, http, environ)


def test_http_addresses_belong_to_the_nsqds_in_their_order() -> None:
    chosen = choose_brokers(["a", "unix:/x"], [], ["c:1", "unix:/y"], {})
    assert [address.http for address in chosen.nsqd] == ["http://c:1", "unix:/y"]


def test_brokers_are_shown_as_where_they_are() -> None:
    assert str(Brokers(nsqd=(A, B))) == "a:4150, b:7"
    assert str(Brokers(lookupd=("http://a:4161",))) == "nsqlookupd at http://a:4161"


@pytest.mark.parametrize(
    ("port", "hint"),
    [
        (4150, "that is nsqd's TCP port, nsqlookupd's HTTP port is usually 4161"),
        (4151, "that is nsqd's HTTP port, nsqlookupd's is usually 4161"),
        (4160, "that is nsqlookupd's TCP port, its HTTP port is usually 4161"),
        (4161, "is it nsqlookupd's HTTP port (usually 4161)?"),
        (80, "is it nsqlookupd's HTTP port (usually 4161)?"),
    ],
)
def test_what_a_port_is_that_is_not_nsqlookupd_s(port: int, hint: str) -> None:
    assert lookupd_hint(f"http://[::1]:{port}").startswith(hint)
    assert lookupd_hint("http://lookup.example") == "is it nsqlookupd's HTTP port (usually 4161)?"

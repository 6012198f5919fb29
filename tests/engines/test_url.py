"""Brokers' URLs and full addresses: what they are taken apart into, what is refused, and what is never shown."""

from __future__ import annotations

import string
import subprocess
import sys

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from qtools.engines.url import (
    SCHEMES,
    BrokerUrl,
    example_urls,
    is_url,
    parse_url,
    split_address,
)
from qtools.errors import AddressInvalid, without_userinfo
from qtools.names import is_valid_name

SECRET = "s3cret-of-the-test"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nsq://h", BrokerUrl("nsq", ("h:4150",))),
        ("nsq://h/", BrokerUrl("nsq", ("h:4150",))),
        (" nsq://h:1 ", BrokerUrl("nsq", ("h:1",))),
        ("NSQ://h", BrokerUrl("nsq", ("h:4150",))),
        ("nsq://a,b:2,a:4150", BrokerUrl("nsq", ("a:4150", "b:2"))),
        ("nsqs://h:4152", BrokerUrl("nsqs", ("h:4152",))),
        ("nsq+lookupd://a,b:5", BrokerUrl("nsq+lookupd", ("a:4161", "b:5"))),
        ("nsqs+lookupd://a", BrokerUrl("nsqs+lookupd", ("a:4161",))),
        ("nsq://[::1]:7/t", BrokerUrl("nsq", ("[::1]:7",), topic="t")),
        ("nsq://[fe80::1%eth0]", BrokerUrl("nsq", ("[fe80::1%eth0]:4150",))),
        ("nsq://h/events", BrokerUrl("nsq", ("h:4150",), topic="events")),
        ("nsq://h/events/archive", BrokerUrl("nsq", ("h:4150",), topic="events", channel="archive")),
        ("nsq://h/t/c%23ephemeral", BrokerUrl("nsq", ("h:4150",), topic="t", channel="c#ephemeral")),
        ("nsq://h/t/c#ephemeral?tls=1", BrokerUrl("nsq", ("h:4150",), topic="t", channel="c#ephemeral",
                                                  query=(("tls", "1"),))),
        ("nsq://h?msg-timeout=5s&client_id=a%26b", BrokerUrl("nsq", ("h:4150",),
                                                             query=(("msg_timeout", "5s"), ("client_id", "a&b")))),
        ("nsq://h/t?client_id=me@here", BrokerUrl("nsq", ("h:4150",), topic="t", query=(("client_id", "me@here"),))),
        ("nsq://:p%40s%2Fs@h", BrokerUrl("nsq", ("h:4150",), password="p@s/s")),
        ("nsq://me:x@a,b", BrokerUrl("nsq", ("a:4150", "b:4150"), user="me", password="x")),
        ("nsq://a@b@h", BrokerUrl("nsq", ("h:4150",), user="a@b")),
        ("nsq+unix:/run/nsqd.sock", BrokerUrl("nsq+unix", socket="/run/nsqd.sock")),
        ("nsq+unix:///run/nsqd.sock?tls=1", BrokerUrl("nsq+unix", socket="/run/nsqd.sock", query=(("tls", "1"),))),
        ("nsq+unix://%2Frun%2Fn.sock/t/c", BrokerUrl("nsq+unix", socket="/run/n.sock", topic="t", channel="c")),
    ],
)  # fmt: skip
def test_a_url_is_taken_apart(text: str, expected: BrokerUrl) -> None:
    assert parse_url(text) == expected


def test_what_a_scheme_says() -> None:
    with_tls = {"nsqs", "kafkas", "natss", "rediss", "amqps"}
    for scheme in SCHEMES:
        assert BrokerUrl(scheme).is_tls == (scheme.partition("+")[0] in with_tls)
    assert [scheme for scheme in SCHEMES if BrokerUrl(scheme).is_lookupd] == ["nsq+lookupd", "nsqs+lookupd"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("h:4150", "address 'h:4150' is no URL such as nsq://HOST:4150"),
        ("http://h:1", "address 'http://h:1' has the unknown scheme 'http'; known are nsq://, nsqs://, nsq+lookupd://,"
                       " nsqs+lookupd://, nsq+unix:/PATH, " + ", ".join(f"{name}://" for name in [*SCHEMES][5:])),
        ("nsq://", "address 'nsq://' names no host: write nsq://HOST:4150"),
        ("nsq:///t", "address 'nsq:///t' names no host: write nsq://HOST:4150"),
        ("nsq+lookupd://:4161", "address 'nsq+lookupd://:4161' names no host: write nsq+lookupd://HOST:4161"),
        ("nsq://a,,b", "address 'nsq://a,,b' names no host: write nsq://HOST:4150"),
        ("nsq://::1", "address 'nsq://::1' names no host: write nsq://HOST:4150"),
        ("nsq://fe80::1", "address 'nsq://fe80::1' looks like IPv6: write it as [ADDRESS]:PORT"),
        ("nsq://h:port", "address 'nsq://h:port' is not nsq://HOST:PORT"),
        ("nsq://h:0", "address 'nsq://h:0' has a port that is not between 1 and 65535"),
        ("nsq://h:65536", "address 'nsq://h:65536' has a port that is not between 1 and 65535"),
        ("nsq://a..b", "address 'nsq://a..b' has a host that is not a name: each part between dots has 1 to 63"
                       " characters"),
        ("nsq://h/t/c/d", "address 'nsq://h/t/c/d' has more than TOPIC/CHANNEL behind the host"),
        ("nsq://h/t/", "address 'nsq://h/t/' has a wrong name: channel name '' is empty"),
        ("nsq://h//c", "address 'nsq://h//c' has a wrong name: topic name '' is empty"),
        ("nsq://h/a%2Fb", "address 'nsq://h/a%2Fb' has a wrong name: topic name 'a/b' has '/'; allowed are letters,"
                          " digits and . _ -"),
        ("nsq://h/t?tls", "address 'nsq://h/t?tls' has a query that is not KEY=VALUE[&KEY=VALUE…]"),
        ("nsq://h?a-b=1&a_b=2", "address 'nsq://h?a-b=1&a_b=2' gives 'a_b' twice"),
        ("nsq+unix:run", "address 'nsq+unix:run' needs an absolute path: nsq+unix:/path/to.sock, or"
                         " nsq+unix://%2Fpath%2Fto.sock/TOPIC"),
        ("nsq+unix://run/x", "address 'nsq+unix://run/x' needs an absolute path: nsq+unix:/path/to.sock, or"
                             " nsq+unix://%2Fpath%2Fto.sock/TOPIC"),
    ],
)  # fmt: skip
def test_what_is_no_url_is_said_in_one_line(text: str, message: str) -> None:
    with pytest.raises(AddressInvalid) as caught:
        parse_url(text)
    assert str(caught.value) == message


def test_examples_have_every_engine() -> None:
    assert example_urls("h:1").startswith("nsq://h:1, kafka://h:1, ")
    assert ", or " in example_urls()
    assert all(f"{name}://HOST:" in example_urls() for name in ("nsq", "kafka", "nats", "redis", "amqp"))


# ── full addresses ──


def test_a_word_with_an_address_is_a_broker_and_a_topic() -> None:
    broker = BrokerUrl("nsq", ("h:4150",))
    assert split_address("nsq://h/events/archive") == (broker, "events/archive")
    assert split_address("nsq://h/events") == (broker, "events")
    assert split_address("events/archive") == (None, "events/archive")
    assert split_address("not a name") == (None, "not a name")


def test_an_address_without_a_topic_is_no_topic() -> None:
    for text, advice in (("nsq://h", "nsq://h:4150/TOPIC"), ("nsq+unix:/a", "nsq+unix://%2FPATH/TOPIC")):
        with pytest.raises(AddressInvalid, match="names no topic") as caught:
            split_address(text)
        assert advice in str(caught.value)


def test_a_template_is_taken_as_it_is_written() -> None:
    template = r'events.\(.kind | sub("/|[?]%23"; "@"))'
    assert split_address(f"nsq://h/{template}", template=True) == (BrokerUrl("nsq", ("h:4150",)), template)
    with pytest.raises(AddressInvalid):
        split_address(f"nsq://h/{template}")
    # What is no template is a topic as everywhere, and a template without an address is no URL.
    assert split_address("nsq://h/t%23ephemeral?tls=1", template=True)[1] == "t#ephemeral"
    assert split_address(r'x.\("a://b")', template=True) == (None, r'x.\("a://b")')


@pytest.mark.parametrize(
    ("text", "expected"),
    [("nsq://h", True), ("a+b-c.d://", True), ("nsq+unix:/x", True), ("NSQ+UNIX:x", True), ("h:4150", False),
     ("prod", False), ("", False), ("://h", False), ("events/archive", False)],
)  # fmt: skip
def test_what_is_meant_as_a_url(text: str, expected: bool) -> None:
    assert is_url(text) is expected


# ── parse and format ──


def refusal(text: str, template: bool = False) -> str:
    """The message with which `text` is refused, or "" if it is a URL."""
    try:
        parse_url(text, template=template)
    except AddressInvalid as error:
        return str(error)
    return ""


NAMES = st.from_regex(r"[.a-zA-Z0-9_-]{1,20}(#ephemeral)?", fullmatch=True).filter(is_valid_name)
LABELS = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)
PORTS = st.integers(1, 65535)
HOSTS = st.one_of(
    st.builds("{}.{}:{}".format, LABELS, LABELS, PORTS),
    st.builds("[{}]:{}".format, st.ip_addresses(v=6).map(str), PORTS),
    st.builds("{}:{}".format, st.ip_addresses(v=4), PORTS),
)
KEYS = st.text(string.ascii_lowercase + "_&=?#%/é", min_size=1, max_size=8)
QUERIES = st.dictionaries(KEYS, st.text(max_size=12), max_size=3).map(lambda found: tuple(found.items()))
PATHS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20).map("/{}".format)


@st.composite
def urls(draw: st.DrawFn) -> BrokerUrl:
    topic = draw(st.just("") | NAMES)
    names = {"topic": topic, "channel": draw(st.just("") | NAMES) if topic else ""}
    query = draw(QUERIES)
    scheme = draw(st.sampled_from(list(SCHEMES)))
    if scheme == "nsq+unix":
        return BrokerUrl(scheme, socket=draw(PATHS), query=query, **names)
    hosts = draw(st.lists(HOSTS, min_size=1, max_size=3, unique=True))
    return BrokerUrl(scheme, tuple(hosts), query=query, **names)


@given(urls())
def test_a_url_that_is_written_and_read_is_the_same(url: BrokerUrl) -> None:
    assert parse_url(str(url)) == url


@given(st.text(max_size=40), st.sampled_from(["", "nsq://", "nsq+unix:", "nsqs+lookupd://h/", "nsq://:p@h?"]))
def test_any_text_is_a_url_or_one_line(rest: str, start: str) -> None:
    for template in (False, True):
        if not (refused := refusal(start + rest, template)):
            found = parse_url(start + rest, template=template)
            assert found.hosts or found.socket
        assert "\n" not in refused


# ── secrets ──


@given(urls(), st.text(max_size=5), st.text(string.punctuation, max_size=4))
def test_a_password_is_in_no_text(url: BrokerUrl, user: str, more: str) -> None:
    from urllib.parse import quote

    assume(url.hosts)
    start, _, rest = str(url).partition("://")
    found = parse_url(f"{start}://{quote(user, safe='')}:{quote(SECRET + more, safe='')}@{rest}")
    assert found.password == SECRET + more
    assert SECRET not in f"{found} {found!r} {found.broker!r}"
    assert "user=" not in repr(found)
    assert str(found) == str(url)


@given(
    st.sampled_from(["nsq", "nsqs+lookupd", "nsq+unix", "kafka", "http", "?"]),
    st.text(string.printable, max_size=4),
    st.text(string.printable, max_size=4),
    st.sampled_from(["h", "h:x", "", "h/t/c/d", "h/a b", "h?x", "%2Fx/t"]),
)
@example("nsq", "me:12/", "", "h")
@example("nsq", ":1/t/", "", "h")
@example("nsq", "me:12?", "", "h")
def test_nor_in_the_message_of_a_wrong_url(scheme: str, before: str, after: str, rest: str) -> None:
    """Whatever was forgotten to be encoded."""
    text = f"{scheme}://{before}{SECRET}{after}@{rest}"
    assert SECRET not in without_userinfo(text)
    assert SECRET not in refusal(text)


def test_no_engine_is_imported() -> None:
    """A URL is parsed, and --help is printed, without the code that speaks to brokers."""
    program = "import sys, qtools.engines.choice; print([name for name in sys.modules if 'engines.' in name])"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed == "['qtools.engines.url', 'qtools.engines.connection_options', 'qtools.engines.choice']\n"

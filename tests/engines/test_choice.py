"""Which broker is chosen, with which settings: the order of flags, addresses, environment and profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qtools.engines.choice import BrokerFlags, choose_broker, divide_flags, engine_of, one_broker
from qtools.engines.connection_options import ConnectionFlags
from qtools.engines.nsq.address import Address, Brokers, local_address
from qtools.engines.nsq.engine import NsqEngine
from qtools.engines.url import BrokerUrl, example_urls, parse_url
from qtools.errors import UsageError

SECRET = "s3cret-of-the-test"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A home with the profile prod, which is private."""
    path = tmp_path / "qtools" / "config.toml"
    path.parent.mkdir()
    path.write_text(
        f'[broker.prod]\nurl = "nsqs://p?client_id=query"\npassword = "{SECRET}"\nclient_id = "profile"\n'
        'msg_timeout = "5s"\nheartbeat_interval = 20\ntls_ca = "ca.pem"\nsnappy = true\n'
        '[broker.wrong]\nurl = "nsq://p"\nclient-name = "x"\n'
        '[broker.twice]\nurl = "nsq://p"\npassword_file = "a"\nauth_secret_file = "b"\n'
    )
    path.chmod(0o600)
    return {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}


def chosen(
    environ: dict[str, str], *broker: str, address: str = "", fields: dict[str, Any] | None = None, **flags: Any
) -> NsqEngine:
    options, nsqd_http = flags.pop("options", {}), flags.pop("nsqd_http", ())
    choice = choose_broker(BrokerFlags(broker, **flags), parse_url(address) if address else None, environ)
    fields = {**(fields or {}), **({"nsqd_http": nsqd_http} if nsqd_http else {})}
    return engine_of("q-test", choice, ConnectionFlags(fields, options), environ)


def nsqds(*hosts: str) -> Brokers:
    return Brokers(nsqd=tuple(Address(host, 4150, http=f"http://{host}:4151") for host in hosts))


# ── which broker ──


def test_the_order(environ: dict[str, str]) -> None:
    local = Brokers(nsqd=(local_address(environ),))
    assert chosen(environ).brokers == local
    assert chosen(environ | {"QTOOLS_BROKER": " "}).brokers == local
    assert chosen(environ | {"QTOOLS_NSQD": "e"}).brokers == nsqds("e")
    environ["QTOOLS_BROKER"] = "nsq://e"
    assert chosen(environ).brokers == nsqds("e")
    assert chosen(environ, address="nsq://t").brokers == nsqds("t")
    assert chosen(environ, "nsq://f").brokers == nsqds("f")
    assert chosen(environ, nsqd=["f"]).brokers == nsqds("f")
    assert chosen(environ, lookupd=["f"]).brokers == Brokers(lookupd=("http://f:4161",))
    assert chosen(environ, "local").brokers == Brokers(nsqd=(local_address(),))
    environ["QTOOLS_BROKER"] = "prod"
    assert chosen(environ).brokers == nsqds("p")


@pytest.mark.parametrize(
    ("url", "brokers"),
    [
        ("nsq://a,b", nsqds("a", "b")),
        ("nsqs://[::1]:7", Brokers(nsqd=(Address("::1", 7, http="http://[::1]:8"),))),
        ("nsq+lookupd://a,b:1", Brokers(lookupd=("http://a:4161", "http://b:1"))),
        ("nsqs+lookupd://a", Brokers(lookupd=("http://a:4161",))),
        ("nsq+unix:/a.sock", Brokers(nsqd=(Address(path="/a.sock"),))),
        ("nsq://a?nsqd_http_address=b:80", Brokers(nsqd=(Address("a", 4150, http="http://b:80"),))),
    ],
)
def test_what_a_url_names(environ: dict[str, str], url: str, brokers: Brokers) -> None:
    assert chosen(environ, url).brokers == brokers
    assert chosen(environ | {"QTOOLS_BROKER": url}).brokers == brokers


def test_several_urls_are_one_cluster(environ: dict[str, str]) -> None:
    found = chosen(environ, "nsq://a", "nsq://b,a", "nsq+unix:/c")
    assert found.brokers == Brokers(nsqd=(*nsqds("a", "b").nsqd, Address(path="/c")))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"broker": ["nsq://a"], "nsqd": ["b"]}, "--broker and --nsqd both name the broker: leave out --nsqd"),
        ({"broker": ["nsq://a"], "lookupd": ["b"]}, "--broker and --lookupd both name the broker: leave out --lookupd"),
        ({"broker": ["nsq://a"], "nsqd": ["b"], "prefix": "to-"},
         "--to-broker and --to-nsqd both name the broker: leave out --to-nsqd"),
        ({"nsqd": ["a"], "lookupd": ["b"], "prefix": "to-"}, "give --to-nsqd or --to-lookupd, not both"),
        ({"nsqd": ["a"], "address": "nsq://b:1"},
         "the topic's address (nsq://b:1) names the broker, and so does --nsqd: leave out --nsqd"),
        ({"broker": ["nsq://a"], "address": f"nsq://:{SECRET}@b:1"},
         "the topic's address (nsq://b:1) names the broker, and so does --broker: leave out --broker"),
        ({"broker": [""]}, "--broker is empty: name a URL or a profile, or leave it out"),
        ({"broker": ["h:4150"]},
         f"--broker: 'h:4150' is neither a URL nor the name of a profile: write {example_urls('h:4150')}"),
        ({"broker": [f"a:{SECRET}@h"]},
         f"--broker: 'h' is neither a URL nor the name of a profile: write {example_urls()}"),
        ({"broker": ["nsq://h/t"]},
         "--broker: nsq://h:4150/t names a topic: --broker takes a broker only,"
         " nsq://h:4150"),
        ({"broker": ["nsq://h:x"]}, "--broker: address 'nsq://h:x' is not nsq://HOST:PORT"),
        ({"broker": ["nsq://a", "prod"]}, "--broker: a profile is given alone; several brokers are several URLs"),
        ({"broker": ["nsq://a", "nsqs://b"]},
         "--broker: nsq://a:4150 and nsqs://b:4150 differ in more than their hosts"),
        ({"broker": ["nsq://a?tls=1", "nsq://b"]},
         "--broker: nsq://a:4150?tls=1 and nsq://b:4150 differ in more than their hosts"),
        ({"env": {"QTOOLS_BROKER": "nsq://a", "QTOOLS_NSQD": "b"}},
         "QTOOLS_BROKER and QTOOLS_NSQD are both set: unset QTOOLS_NSQD"),
        ({"env": {"QTOOLS_BROKER": "nsq://a", "QTOOLS_LOOKUPD": "b"}},
         "QTOOLS_BROKER and QTOOLS_LOOKUPD are both set: unset QTOOLS_LOOKUPD"),
        ({"env": {"QTOOLS_BROKER": f"nsq://u:{SECRET}@h:x"}},
         "QTOOLS_BROKER: address 'nsq://h:x' is not nsq://HOST:PORT"),
        ({"env": {"QTOOLS_BROKER": "none"}},
         "QTOOLS_BROKER: there is no profile 'none' in FILE, which has: prod, wrong, twice"),
        ({"env": {"QTOOLS_BROKER": f"nsq://u:{SECRET}@h"}}, "QTOOLS_BROKER: NSQ has no user names; its AUTH secret is a"
                                                            " URL's password: nsq://:SECRET@HOST"),
        ({"broker": ["wrong"]}, "FILE: [broker.wrong]: unknown option 'client_name' of NSQ; known are KEYS"),
        ({"broker": ["twice"]},
         "FILE: [broker.twice] gives both password_file and auth_secret_file, which mean the same"),
        ({"broker": ["nsqs://a?tls=no"]}, "--broker: nsqs:// is TLS, and the option tls is false: leave out one"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(environ: dict[str, str], given: dict[str, Any], message: str) -> None:
    environ |= given.pop("env", {})
    with pytest.raises(UsageError) as caught:
        chosen(environ, *given.pop("broker", ()), **given)
    keys = (
        "auth_secret_file, client_id, deflate, deflate_level, heartbeat_interval, msg_timeout, nsqd_http_address,"
        " password_file, snappy, tls, tls_ca, tls_cert, tls_insecure_skip_verify, tls_key,"
        " tls_key_password_file"
    )
    file = f"{environ['XDG_CONFIG_HOME']}/qtools/config.toml"
    assert str(caught.value) == message.replace("FILE", file).replace("KEYS", keys)


# ── which settings ──


def test_the_first_of_flag_option_query_and_profile_counts(environ: dict[str, str]) -> None:
    settings = chosen(environ, "prod").settings
    assert (settings.program, settings.tls, settings.secret) == ("q-test", True, SECRET.encode())
    assert (settings.client_id, settings.msg_timeout, settings.heartbeat_interval) == ("query", 5000, 20_000)
    assert settings.tls_ca == f"{environ['XDG_CONFIG_HOME']}/qtools/ca.pem"
    options = {"client_id": "option", "tls_ca": "mine.pem"}
    settings = chosen(environ, "prod", options=options).settings
    assert (settings.client_id, settings.msg_timeout, settings.tls_ca) == ("option", 5000, "mine.pem")
    settings = chosen(environ, "prod", options=options, fields={"client_id": "flag", "msg_timeout": 1000}).settings
    assert (settings.client_id, settings.msg_timeout) == ("flag", 1000)


def test_one_way_to_compress_takes_the_place_of_the_other(environ: dict[str, str]) -> None:
    for more in ({"fields": {"deflate": True}}, {"options": {"deflate": "on"}}):
        settings = chosen(environ, "prod", **more).settings  # type: ignore[arg-type]
        assert (settings.snappy, settings.deflate) == (False, True)
    assert chosen(environ, "prod", options={"snappy": "off"}).settings.snappy is False


def test_a_secret_belongs_to_its_broker(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of a file\n")
    environ["QTOOLS_AUTH_SECRET"] = "of the environment"
    environ["QTOOLS_BROKER"] = "nsq://:p%40ss%2F@h"
    file = str(tmp_path / "secret")
    assert chosen(environ).settings.secret == b"p@ss/"
    assert chosen(environ, "prod").settings.secret == SECRET.encode()
    assert chosen(environ, "nsq://h").settings.secret == b"of the environment"
    assert chosen(environ, address="nsq://h").settings.secret == b"of the environment"
    assert chosen(environ, nsqd=["h"]).settings.secret == b"of the environment"
    assert chosen(environ, options={"auth_secret_file": file}).settings.secret == b"of a file"
    assert chosen(environ, "prod", fields={"secret_file": file}).settings.secret == b"of a file"


def test_no_password_on_the_command_line(environ: dict[str, str]) -> None:
    for url in (f"nsq://:{SECRET}@h", f"nsq://{SECRET}@h"):
        for given in (
            {"broker": [url]}, {"address": url}, {"broker": [url], "prefix": "to-"}, {"nsqd": [url]},
            {"lookupd": [url]}, {"nsqd": ["h"], "nsqd_http": [url]},
        ):  # fmt: skip
            with pytest.raises(UsageError) as caught:
                chosen(environ, *given.pop("broker", ()), **given)  # type: ignore[arg-type]
            what = "a password" if ":" in url.removeprefix("nsq://") else "a user name, or a secret"
            assert str(caught.value).replace("h:4150", "h") == (
                f"nsq://h has {what}: every user of this machine can read a command line; put it into a file"
                " (--auth-secret-file), a profile, or the environment (QTOOLS_BROKER, QTOOLS_AUTH_SECRET)"
            )


# ── several topics ──

A, B = BrokerUrl("nsq", ("a:1",)), BrokerUrl("nsq", ("b:1",))


def test_topics_of_one_broker() -> None:
    assert one_broker([], [], "") is None
    assert one_broker([None, None], ["x", "y"], "") is None
    assert one_broker([A, A], ["nsq://a:1/x", "nsq://a:1/y"], "") == A


@pytest.mark.parametrize(
    ("addresses", "words", "message"),
    [
        ([A, B], [f"nsq://:{SECRET}@a:1/x", "nsq://b:1/y"],
         "q-test reads from one broker: nsq://a:1/x and nsq://b:1/y name two; run the command once for each"),
        ([A, None], [f"nsq://:{SECRET}@a:1/x", "y"], "q-test reads from one broker: nsq://a:1/x and y differ;"
                                                     " write the address to y too, or use --broker"),
        ([None, A], ["y", "nsq://a:1/x"], "q-test reads from one broker: y and nsq://a:1/x differ;"
                                          " write the address to y too, or use --broker"),
    ],
)  # fmt: skip
def test_topics_of_several(addresses: list[BrokerUrl | None], words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        one_broker(addresses, words, "q-test reads from")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("url", "to_url", "has", "to_has"),
    [
        ("nsq://a", "kafka://b", True, False),
        ("kafka://a", "nsq://b", False, True),
        ("nsq://a", "nsq://b", True, True),
        ("kafka://a", "kafka://b", True, True),  # both refuse it
    ],
)
def test_flags_that_only_one_of_two_engines_has_are_for_that_one(
    environ: dict[str, str], url: str, to_url: str, has: bool, to_has: bool
) -> None:
    flags = ConnectionFlags({"msg_timeout": 2000, "snappy": True, "client_id": "x", "nsqd_http": ["h:4151"]}, {})
    choice, to_choice = (choose_broker(BrokerFlags([each]), environ=environ) for each in (url, to_url))
    one, other = divide_flags(flags, choice, to_choice)
    assert [("msg_timeout" in each.fields, "snappy" in each.fields) for each in (one, other)] == [
        (has, has), (to_has, to_has),
    ]  # fmt: skip
    assert one.fields["client_id"] == other.fields["client_id"] == "x"
    assert (one.fields["nsqd_http"], "nsqd_http" in other.fields) == (["h:4151"], False)


@pytest.mark.parametrize(
    ("url", "to_url", "own", "to_own"),
    [
        ("nsq://a", "kafka://b", ["snappy"], ["linger.ms", "sasl.mechanism"]),
        ("kafka://a", "nsq://b", ["linger.ms", "sasl.mechanism"], ["snappy"]),
        ("nsq://a", "nsq://b", ["snappy", "linger.ms", "sasl.mechanism"], ["snappy", "linger.ms", "sasl.mechanism"]),
        (
            "kafka://a",
            "kafka://b",
            ["snappy", "linger.ms", "sasl.mechanism"],
            ["snappy", "linger.ms", "sasl.mechanism"],
        ),
    ],
)
def test_an_option_that_only_one_of_two_engines_knows_is_for_that_one(
    environ: dict[str, str], url: str, to_url: str, own: list[str], to_own: list[str]
) -> None:
    options = {"snappy": "on", "linger.ms": "5", "sasl.mechanism": "PLAIN", "tls_ca": "ca.pem"}
    choice, to_choice = (choose_broker(BrokerFlags([each]), environ=environ) for each in (url, to_url))
    one, other = divide_flags(ConnectionFlags({}, options, {"client_id": "there"}), choice, to_choice)
    assert (list(one.options), list(other.options)) == ([*own, "tls_ca"], [*to_own, "tls_ca"])
    assert (one.to_options, other.to_options) == ({}, {"client_id": "there"})


def test_an_option_of_the_destination_counts_before_one_of_both(environ: dict[str, str]) -> None:
    flags = ConnectionFlags({}, {"client_id": "both", "msg_timeout": "2s"}, {"client_id": "there"})
    choices = [choose_broker(BrokerFlags([each]), environ=environ) for each in ("nsq://a", "nsq://b")]
    settings = [
        engine_of("q-test", choice, each, environ).settings  # type: ignore[attr-defined]
        for choice, each in zip(choices, divide_flags(flags, choices[0], choices[1]), strict=True)
    ]
    assert [(each.client_id, each.msg_timeout) for each in settings] == [("both", 2000), ("there", 2000)]

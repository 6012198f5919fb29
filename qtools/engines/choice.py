"""Which broker a command uses, with which settings. In: flags, a topic's full address, the environment. Out: an engine.

    1. --broker, or --nsqd or --lookupd     2. the address in a topic     never both
    3. $QTOOLS_BROKER, or $QTOOLS_NSQD or $QTOOLS_LOOKUPD                 4. the private local broker

Of a setting that is given in several places the first of these counts: a flag, --engine-option, the URL's query, the
profile. The only file that is read before an engine is chosen is the one with the profiles.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

from qtools.engines.url import LOCAL, BrokerUrl, is_url, parse_url
from qtools.errors import AddressInvalid, UsageError, without_userinfo

if TYPE_CHECKING:
    from qtools.engines.contract import Engine
    from qtools.engines.nsq.engine import NsqEngine
    from qtools.engines.profiles import Profile


class BrokerFlags(NamedTuple):
    """The flags that name a broker, as written. prefix: "to-" where they are --to-broker, --to-nsqd, --to-lookupd."""

    broker: Sequence[str] = ()
    nsqd: Sequence[str] = ()
    lookupd: Sequence[str] = ()
    prefix: str = ""

    @property
    def given(self) -> list[str]:
        """Which of them were given, --broker first."""
        words = (("broker", self.broker), ("nsqd", self.nsqd), ("lookupd", self.lookupd))
        return [f"--{self.prefix}{name}" for name, value in words if value]


class BrokerChoice(NamedTuple):
    """The broker that was chosen: `urls`, which differ in their hosts only, or NSQ's own words for it.

    Without any of them NSQ's variables in the environment count, then the private local broker.
    origin: where it was named, for messages. profile: the one with `urls`.
    """

    urls: tuple[BrokerUrl, ...] = ()
    nsqd: tuple[str, ...] = ()
    lookupd: tuple[str, ...] = ()
    origin: str = ""
    profile: Profile | None = None

    @property
    def engine(self) -> str:
        """The engine that serves it, as messages name it."""
        return self.urls[0].engine if self.urls else "NSQ"


class ConnectionFlags(NamedTuple):
    """What flags say about a connection. fields: of Settings, only those that were given; also "secret_file" (a path).

    options: the pairs of --engine-option. nsqd_http: the values of --nsqd-http-address.
    """

    fields: Mapping[str, Any]
    options: Mapping[str, str]
    nsqd_http: Sequence[str] = ()


# Fields of ConnectionFlags that NSQ has and other engines refuse.
_OF_NSQ = frozenset({"snappy", "deflate", "deflate_level", "msg_timeout"})


def flags_of_each(
    flags: ConnectionFlags, choice: BrokerChoice, to_choice: BrokerChoice
) -> tuple[ConnectionFlags, ConnectionFlags]:
    """What `flags` say about the connections to a source and to a destination. If one of them is NSQ and the other is
    not, the flags that only NSQ has are for NSQ; --nsqd-http-address is for the source."""
    made = []
    for one, other in ((choice, to_choice), (to_choice, choice)):
        is_ours = one.engine == "NSQ" or other.engine != "NSQ"
        fields = {name: value for name, value in flags.fields.items() if is_ours or name not in _OF_NSQ}
        made.append(flags._replace(fields=fields, nsqd_http=flags.nsqd_http if one is choice else ()))
    return made[0], made[1]


def choose_broker(
    flags: BrokerFlags, address: BrokerUrl | None = None, environ: Mapping[str, str] = os.environ
) -> BrokerChoice:
    """The one broker that the user named; UsageError if several are named or one is wrong.

    address: the broker in the full address of a topic.
    """
    given = flags.given
    if address is not None:
        if given:
            raise UsageError(
                f"the topic's address ({address}) names the broker, and so does {given[0]}: leave out {given[0]}"
            )
        _refuse_userinfo(address)
        return BrokerChoice((address,), origin=str(address))
    if len(given) > 1:
        if flags.broker:
            raise UsageError(f"{given[0]} and {given[1]} both name the broker: leave out {given[1]}")
        if flags.prefix:
            raise UsageError("give --to-nsqd or --to-lookupd, not both")
    if flags.broker:
        return _named(flags.broker, given[0], environ)
    if given:
        _refuse_passwords(*flags.nsqd, *flags.lookupd)
        return BrokerChoice(nsqd=tuple(flags.nsqd), lookupd=tuple(flags.lookupd))
    if word := environ.get("QTOOLS_BROKER", "").strip():
        for name in ("QTOOLS_NSQD", "QTOOLS_LOOKUPD"):
            if environ.get(name):
                raise UsageError(f"QTOOLS_BROKER and {name} are both set: unset {name}")
        return _named((word,), "QTOOLS_BROKER", environ)
    return BrokerChoice()


def engine_of(
    program: str, choice: BrokerChoice, flags: ConnectionFlags, environ: Mapping[str, str] = os.environ
) -> Engine:
    """The engine for `choice`, with its settings; secrets are read here. UsageError, StartError.

    This is the one place that decides which engine serves a URL.
    """
    _refuse_passwords(*flags.nsqd_http)
    if choice.urls and choice.urls[0].engine == "Kafka":
        return _kafka_engine(program, choice, flags, environ)
    from qtools.engines.nsq.address import choose_brokers
    from qtools.engines.nsq.engine import NsqEngine
    from qtools.engines.nsq.settings import Settings, read_secret

    fields: dict[str, Any] = {}
    for layer in (*_options(choice, flags), flags.fields):
        for one, other in (("snappy", "deflate"), ("deflate", "snappy")):
            if layer.get(one) and not layer.get(other):
                fields.pop(other, None)
        fields |= layer
    secret_file = fields.pop("secret_file", "")
    of_url = choice.urls[0].password if choice.urls else ""
    secret = os.fsencode(of_url) if of_url and not secret_file else read_secret(secret_file, environ)
    http_of_options = fields.pop("nsqd_http", "").split(",")
    http = flags.nsqd_http or [text for text in http_of_options if text]
    if not choice.urls:
        brokers = choose_brokers(choice.nsqd, choice.lookupd, http, environ)
    else:
        url = choice.urls[0]
        if url.user:
            raise UsageError(
                f"{choice.origin}: NSQ has no user names; its AUTH secret is a URL's password: nsq://:SECRET@HOST"
            )
        if url.is_tls and fields.get("tls") is False:
            raise UsageError(f"{choice.origin}: {url.scheme}:// is TLS, and the option tls is false: leave out one")
        fields["tls"] = url.is_tls or fields.get("tls", False)
        hosts = [host for each in choice.urls for host in each.hosts or (f"unix:{each.socket}",)]
        nsqd, lookupd = ([], hosts) if url.is_lookupd else (hosts, [])
        brokers = choose_brokers(nsqd, lookupd, http, {})
    return NsqEngine(brokers, Settings(program=program, secret=secret, **fields))


def _kafka_engine(program: str, choice: BrokerChoice, flags: ConnectionFlags, environ: Mapping[str, str]) -> Engine:
    from qtools.engines.kafka.options import engine_of_options

    if flags.nsqd_http:
        raise UsageError(f"--nsqd-http-address is for nsqd, and {choice.origin} is Kafka: leave it out")
    layers: list[tuple[Mapping[str, Any], str, Callable[[str], str]]] = [
        (dict(choice.urls[0].query), str(choice.urls[0].broker), str)
    ]
    if choice.profile is not None:
        layers.insert(0, (choice.profile.options, str(choice.profile), choice.profile.file))
    layers.append((flags.options, "--engine-option", str))
    return engine_of_options(program, choice.urls, choice.origin, layers, flags.fields, environ)


def check_engines(*engines: Engine) -> None:
    """UsageError if a setting of `engines`, the source's and the destination's, has no effect or contradicts another;
    StartError if a file that they need cannot be used."""
    ours = [engine for engine in engines if engine.capabilities.engine == "NSQ"]
    if ours:
        from qtools.engines.nsq.settings import check_settings

        check_settings(*((engine.brokers, engine.settings) for engine in cast("list[NsqEngine]", ours)))


def one_broker(addresses: Sequence[BrokerUrl | None], words: Sequence[str], what: str) -> BrokerUrl | None:
    """The broker of all topics of a command; None if no topic is a full address. UsageError if the topics differ in
    their brokers, or only some of them are full addresses.

    addresses: the broker of each topic, None for a topic that is a name only. words: each topic as the user wrote it.
    what: what the command does, with which the message begins, as "q-tail reads from".
    """
    first = addresses[0] if addresses else None
    for address, word in zip(addresses, words, strict=True):
        if address != first:
            one, other = without_userinfo(words[0]), without_userinfo(word)
            if first is None or address is None:
                lacks = one if first is None else other
                raise UsageError(
                    f"{what} one broker: {one} and {other} differ; write the address to {lacks} too, or use --broker"
                )
            raise UsageError(f"{what} one broker: {one} and {other} name two; run the command once for each")
    return first


def _named(words: Sequence[str], origin: str, environ: Mapping[str, str]) -> BrokerChoice:
    """The broker that --broker or QTOOLS_BROKER names."""
    if len(words) > 1 and not all(map(is_url, words)):
        raise UsageError(f"{origin}: a profile is given alone; several brokers are several URLs")
    if words[0] == LOCAL:
        return BrokerChoice(nsqd=("local",))
    if not is_url(words[0]):
        from qtools.engines.profiles import read_profile

        name = _profile_name(words[0], origin)
        try:
            profile = read_profile(name, environ)
        except UsageError as error:
            raise UsageError(f"{origin}: {error}") from error
        return BrokerChoice((profile.url,), origin=str(profile), profile=profile)
    urls: list[BrokerUrl] = []
    for word in words:
        try:
            url = parse_url(word)
        except AddressInvalid as error:
            raise UsageError(f"{origin}: {error}") from error
        if origin.startswith("--"):
            _refuse_userinfo(url)
        if url.topic:
            raise UsageError(f"{origin}: {url} names a topic: {origin} takes a broker only, {url.broker}")
        if urls and _without_hosts(url) != _without_hosts(urls[0]):
            raise UsageError(f"{origin}: {urls[0]} and {url} differ in more than their hosts")
        urls.append(url)
    return BrokerChoice(tuple(urls), origin=origin)


def _without_hosts(url: BrokerUrl) -> tuple[object, ...]:
    """Everything about `url` that has to be the same in all URLs of one cluster."""
    return url.engine, url.is_lookupd, url.is_tls, sorted(url.query), url.user, url.password


def _profile_name(word: str, origin: str) -> str:
    """`word`, if it can be the name of a profile."""
    if re.fullmatch(r"[A-Za-z0-9_.-]+", word):
        return word
    if not word:
        raise UsageError(f"{origin} is empty: name a URL or a profile, or leave it out")
    shown = without_userinfo(word)
    is_place = re.fullmatch(r"[\w.-]+:[0-9]+|\[[0-9a-fA-F:.]+\](:[0-9]+)?", shown)
    example = f"nsq://{shown}, or kafka://{shown}" if is_place else "nsq://HOST:4150, or kafka://HOST:9092"
    raise UsageError(f"{origin}: {shown!r} is neither a URL nor the name of a profile: write {example}")


def _refuse_userinfo(url: BrokerUrl) -> None:
    if url.has_userinfo:
        _refuse(str(url))


def _refuse_passwords(*addresses: str) -> None:
    """The same for NSQ's own flags, of which nsqlookupd's may be a URL."""
    for text in addresses:
        if "://" in text and "@" in text:
            _refuse(without_userinfo(text))


def _refuse(shown: str) -> NoReturn:
    raise UsageError(
        f"{shown} has a password: every user of this machine can read a command line; put it into a file"
        " (--auth-secret-file), a profile, or the environment (QTOOLS_BROKER; QTOOLS_AUTH_SECRET or, for Kafka,"
        " QTOOLS_KAFKA_PASSWORD)"
    )


def _options(choice: BrokerChoice, flags: ConnectionFlags) -> list[dict[str, Any]]:
    """The options of the profile, of the URL and of --engine-option, the weakest first, each as fields of Settings."""
    query = choice.urls[0].query if choice.urls else ()
    if choice.profile is None and not query and not flags.options:
        return []  # as in most runs, which then import no options
    from qtools.engines.nsq.options import convert_options

    return [
        *([] if choice.profile is None else [_of_profile(choice.profile)]),
        *(convert_options(dict(url.query), str(url.broker)) for url in choice.urls[:1]),
        convert_options(flags.options, "--engine-option"),
    ]


def _of_profile(profile: Profile) -> dict[str, Any]:
    """The options of a profile as fields of Settings."""
    from qtools.engines.nsq.options import convert_options

    options = dict(profile.options)
    if password_file := options.pop("password_file", ""):
        if "auth_secret_file" in options:
            raise UsageError(f"{profile} gives both password_file and auth_secret_file, which mean the same")
        options["auth_secret_file"] = password_file
    return convert_options(options, str(profile), profile.file)

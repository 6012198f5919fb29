"""Which broker a command uses, with which settings. In: flags, a topic's full address, the environment. Out: an engine.

    1. --broker, or --nsqd or --lookupd     2. the address in a topic     never both
    3. $QTOOLS_BROKER, or $QTOOLS_NSQD or $QTOOLS_LOOKUPD                 4. the private local broker

The only file that is read before an engine is chosen is the one with the profiles. connection_options.py says which of
several values of a setting counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from qtools.engines.connection_options import (
    USER_OR_SECRET,
    BrokerChoice,
    ConnectionFlags,
    ConnectionRequest,
    EngineOptions,
    flags_of_each,
    password_refused,
    refuse_passwords,
)
from qtools.engines.url import LOCAL, BrokerUrl, example_urls, is_url, parse_url
from qtools.errors import AddressInvalid, UsageError, without_userinfo

if TYPE_CHECKING:
    from qtools.engines.contract import Engine


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


def _nsq() -> EngineOptions:
    from qtools.engines.nsq.options import ENGINE

    return ENGINE


def _kafka() -> EngineOptions:
    from qtools.engines.kafka.options import ENGINE

    return ENGINE


def _nats() -> EngineOptions:
    from qtools.engines.jetstream.options import ENGINE

    return ENGINE


def _redis() -> EngineOptions:
    from qtools.engines.redis.options import ENGINE

    return ENGINE


def _amqp() -> EngineOptions:
    from qtools.engines.amqp.options import ENGINE

    return ENGINE


# The engines: the name, as url.SCHEMES has it → what the engine declares of its settings. It is imported only for an
# engine that is used.
ENGINES: dict[str, Callable[[], EngineOptions]] = {
    "NSQ": _nsq, "Kafka": _kafka, "NATS": _nats, "Redis": _redis, "RabbitMQ": _amqp,
}  # fmt: skip


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
        refuse_passwords((*flags.nsqd, *flags.lookupd), _nsq().password_variable)
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
    """The engine for `choice`, with its settings; secrets are read here. UsageError, StartError."""
    return ENGINES[choice.engine]().make(ConnectionRequest(program, choice, flags, environ))


def divide_flags(
    flags: ConnectionFlags, choice: BrokerChoice, to_choice: BrokerChoice
) -> tuple[ConnectionFlags, ConnectionFlags]:
    """What `flags` say about the connection to a source, and about that to a destination (flags_of_each)."""
    return flags_of_each(flags, ENGINES[choice.engine](), ENGINES[to_choice.engine]())


def check_engines(*engines: Engine) -> None:
    """UsageError if a setting of `engines`, the source's and the destination's, has no effect or contradicts another;
    StartError if a file that they need cannot be used."""
    found = [tls for engine in engines if (tls := engine.tls) is not None]
    if found:
        from qtools.engines.connections.tls import check_tls

        check_tls(*found)


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
    examples = example_urls(shown if is_place else "")
    raise UsageError(f"{origin}: {shown!r} is neither a URL nor the name of a profile: write {examples}")


def _refuse_userinfo(url: BrokerUrl) -> None:
    declared = ENGINES[url.engine]()
    if url.user and not url.password and declared.user_variable:
        raise UsageError(
            f"{url} has a user name: give it in {declared.user_variable}, with the password in"
            f" {declared.password_variable}, or both in a profile (user, password_file)"
        )
    if url.has_userinfo:
        what = "a password" if url.password else USER_OR_SECRET
        raise password_refused(str(url), declared.password_variable, what)

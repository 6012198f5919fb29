"""The flags that name a broker, and the full addresses of topics. In: click's values. Out: the engine of a command.

A command parses its topics with `topics_of` or `topic_of`, and passes the broker's address that they contain to
`engine_of`, whose limits for names it checks with `check_names`. engine_of removes the flags of `broker_options` and
`connection_options` from click's values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from qtools.engines.choice import BrokerFlags, check_engines, choose_broker, divide_flags, one_broker
from qtools.engines.choice import engine_of as make_engine
from qtools.engines.connection_options import ConnectionFlags
from qtools.engines.contract import Engine
from qtools.engines.url import SCHEMES, UNIX, BrokerUrl, split_address
from qtools.errors import NameInvalid, UsageError
from qtools.names import Subscription, check_channel, check_topic

# Flags that have the same name as a field of the engine's settings.
_FIELDS = ("tls", "tls_ca", "tls_cert", "tls_key", "tls_insecure", "snappy", "deflate", "deflate_level", "client_id")


def broker_completions() -> list[str]:
    """Completions for --broker: the names of the profiles, and the schemes of URLs."""
    from qtools.engines.profiles import profile_names

    return [*profile_names(), *(f"{UNIX}:/" if scheme == UNIX else f"{scheme}://" for scheme in SCHEMES)]


def topics_of(words: Sequence[str], what: str, *, template: bool = False) -> tuple[BrokerUrl | None, tuple[str, ...]]:
    """Split the words that name topics: the broker that their addresses name, or None, and the words without it.

    what: the beginning of the error message if the words name several brokers, such as "q-tail reads from". template:
    as in `parse_url`. UsageError if a word is malformed, or the words name several brokers.
    """
    parts = [split_address(word, template=template) for word in words]
    return one_broker([address for address, _ in parts], words, what), tuple(name for _, name in parts)


def topic_of(word: str) -> tuple[BrokerUrl | None, str]:
    """Split one word that names a topic without a channel: the broker or None, and the topic. UsageError."""
    address, name = split_address(word)
    if address is not None and "/" in name:
        raise UsageError(
            f"{address}/{name} names a channel, and messages are sent to topics: {address}/{name.partition('/')[0]}"
        )
    return address, name


def engine_of(program: str, given: dict[str, Any], address: BrokerUrl | None = None) -> Engine:
    """Remove the flags of the broker and the connection from `given`, and make the engine. The AUTH secret is read
    here.

    address: the broker that the full address of a topic names, or None. UsageError, StartError.
    """
    flags = _broker_flags(given)
    engine = make_engine(program, choose_broker(flags, address), _connection_flags(given))
    check_engines(engine)
    return engine


def engines_of(
    program: str, given: dict[str, Any], address: BrokerUrl | None, to_address: BrokerUrl | None
) -> tuple[Engine, Engine | None]:
    """Make the engines of a source and of a destination; None for a destination on the same broker as the source.

    Flags about connections and --engine-option apply to both, but for those that only one of their engines knows.
    --to-engine-option, and the settings in a URL or a profile, apply to one broker only.
    """
    flags, to_flags = _broker_flags(given), _broker_flags(given, "to-")
    connection = _connection_flags(given)._replace(to_options=_pairs(given, "to_engine_option"))
    to_choice = choose_broker(to_flags, to_address) if to_flags.given or to_address is not None else None
    choice = choose_broker(flags, address)
    if to_choice is None:
        if connection.to_options:
            raise UsageError(
                "--to-engine-option is for another broker than that of the sources: give --to-broker, or use"
                " --engine-option"
            )
        engine = make_engine(program, choice, connection)
        check_engines(engine)
        return engine, None
    connection, to_connection = divide_flags(connection, choice, to_choice)
    engine, to_engine = make_engine(program, choice, connection), make_engine(program, to_choice, to_connection)
    check_engines(engine, to_engine)
    return engine, to_engine


def check_names(
    engine: Engine, sources: Iterable[Subscription] = (), topics: Iterable[str] = (), flag: str = ""
) -> None:
    """Raise NameInvalid for a name that `engine` does not accept; UsageError that begins with `flag`, if that gave the
    name.
    """
    try:
        _check_names(engine, sources, topics)
    except NameInvalid as error:
        if not flag:
            raise
        raise UsageError(f"{flag}: {error}") from error


def _check_names(engine: Engine, sources: Iterable[Subscription], topics: Iterable[str]) -> None:
    able = engine.capabilities
    for name, check in [
        *((name, check_topic) for name in topics),
        *((topic, check_topic) for topic, _ in sources),
        *((channel, check_channel) for _, channel in sources),
    ]:
        check(name, able.longest_name)
        if name in able.reserved_names:
            raise NameInvalid("topic" if check is check_topic else "channel", name, f"is reserved by {able.engine}")


def _broker_flags(given: dict[str, Any], prefix: str = "") -> BrokerFlags:
    name = prefix.replace("-", "_")
    return BrokerFlags(given.pop(f"{name}broker"), given.pop(f"{name}nsqd"), given.pop(f"{name}lookupd"), prefix)


def _connection_flags(given: dict[str, Any]) -> ConnectionFlags:
    fields = {name: given.pop(name) for name in _FIELDS}
    fields["secret_file"] = given.pop("auth_secret_file")
    fields["msg_timeout"] = int((given.pop("msg_timeout", None) or 0) * 1000)
    fields["nsqd_http"] = given.pop("nsqd_http")
    options = _pairs(given, "engine_option")
    return ConnectionFlags({name: value for name, value in fields.items() if value}, options)


def _pairs(given: dict[str, Any], name: str) -> dict[str, str]:
    """Remove the KEY=VALUE words of --engine-option, or of --to-engine-option, from `given`."""
    flag = "--" + name.replace("_", "-")
    options: dict[str, str] = {}
    for word in given.pop(name):
        key, separator, value = word.partition("=")
        key = key.strip().replace("-", "_")
        if not separator or not key:
            raise UsageError(f"{flag} {word!r} is not KEY=VALUE")
        if key in options:
            raise UsageError(f"{flag} gives {key!r} twice")
        options[key] = value
    return options

"""Checks the flags of qtools soak together. In: the values from click. Out: SoakOptions, or UsageError."""

from __future__ import annotations

import os
import time
from typing import Any, TypedDict, cast

from qtools.cli import options as shared
from qtools.cli.broker import check_names, engines_of
from qtools.engines.requirements import require_for_publishing
from qtools.engines.url import BrokerUrl, is_url, parse_url
from qtools.errors import UsageError
from qtools.names import LONGEST_NAME, Subscription, check_channel, check_topic, is_ephemeral
from qtools.soak.bodies import RUN_BYTES
from qtools.soak.options import SoakOptions

DURATION = 60.0  # s, where neither --duration nor --count is given


class SoakFlags(TypedDict):
    """The flags that qtools soak reads itself."""

    to: str | None
    duration: float | None
    count: int | None
    rate: float | None
    size: int
    keys: int
    settle: float | None
    max_in_flight: int | None
    separate_reader: bool
    no_duplicates: bool
    ordered: bool
    keep: bool
    json: bool
    reader_of: str | None


def options_of(place: str | None, given: dict[str, Any], *, show: bool) -> SoakOptions:
    """The options for the flags in `given`; UsageError if they do not go together. place: where messages are published:
    a URL or a topic. show: --quiet was not given."""
    flags = cast("SoakFlags", given)
    address, topic, channel = _split(place)
    to_address, to_topic, to_channel = _split(flags["to"])
    moves = flags["to"] is not None
    if moves and not (topic and to_topic):
        raise UsageError(
            "with --to both topics are named, as the program that moves the messages has to know them:"
            " qtools soak URL/TOPIC --to URL2/TOPIC2"
        )
    if moves and channel:
        raise UsageError(f"messages are published to topics: write {topic} without /{channel}; --to may name a channel")
    run = os.urandom(RUN_BYTES)
    own = f"soak-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{run.hex()[:6]}"
    is_own_topic = not topic
    topic, read_topic = topic or own, (to_topic if moves else topic) or own
    read_channel = (to_channel if moves else channel) or own
    if flags["reader_of"] is not None:
        from qtools.soak.reader_process import ReaderIdentity

        identity = ReaderIdentity.of(flags["reader_of"])
        run, read_topic, read_channel = bytes.fromhex(identity.run), identity.topic, identity.channel
    if is_ephemeral(read_channel):
        raise UsageError(
            f"the temporary channel {read_channel} loses messages while its reader is not connected: name another one"
        )
    new_topics = shared.new_topics_of(given)
    given |= {"to_broker": (), "to_nsqd": (), "to_lookupd": (), "to_engine_option": ()}
    engine, other = engines_of("qtools soak", given, address, to_address)
    to_engine = other or engine
    subscription = Subscription(read_topic, read_channel)
    if moves and other is None and topic == read_topic:
        raise UsageError(f"--to names the topic {topic} itself, from which it is read without --to")
    check_names(engine, (), (topic,))
    check_names(to_engine, (subscription,))
    require_for_publishing(engine, None, new_topics)
    duration = flags["duration"]
    if duration is None and flags["count"] is None:
        duration = DURATION
    return SoakOptions(
        engine=engine,
        to_engine=to_engine,
        topic=topic,
        subscription=subscription,
        run=run,
        is_own_topic=is_own_topic,
        is_own_channel=not (to_channel if moves else channel),
        moves=moves,
        duration=duration,
        count=flags["count"],
        rate=flags["rate"] or 0.0,
        size=flags["size"],
        keys=flags["keys"],
        settle=flags["settle"],
        max_in_flight=flags["max_in_flight"] or to_engine.capabilities.default_max_in_flight,
        new_topics=new_topics,
        separate_reader=flags["separate_reader"],
        no_duplicates=flags["no_duplicates"],
        ordered=flags["ordered"],
        keep=flags["keep"],
        as_json=flags["json"],
        show=show,
    )


def _split(word: str | None) -> tuple[BrokerUrl | None, str, str]:
    """A URL, `TOPIC` or `TOPIC/CHANNEL` → its broker or None, topic and channel; "" for what it does not name."""
    if word is None:
        return None, "", ""
    if is_url(word):
        url = parse_url(word)
        return url.broker, url.topic, url.channel
    topic, slash, channel = word.partition("/")
    check_topic(topic, LONGEST_NAME)
    return None, topic, check_channel(channel, LONGEST_NAME) if slash else ""

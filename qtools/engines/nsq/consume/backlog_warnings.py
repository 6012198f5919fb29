"""Warnings about messages that a run will not get. In: depths, a consumer. Out: log lines.

A topic keeps its messages for its first channel; a later channel gets only what is published after it was created. A
run that reads `TOPIC/NEW` to archive what is in the topic would wait for it in vain, and so would a run whose channel
is paused.

No request is made before a run for this alone, since importing the HTTP client takes longer than a short command runs.
A run that lasts makes one request to each nsqd, a second after its start (`EndConditions.settling_time`), when its
channel exists. The channel counts as new if nsqd put no more messages into it than this run received and it still
holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Container, Iterable, Mapping

from qtools.engines.nsq.consume.consumer import Consumer
from qtools.engines.nsq.consume.drain import StatisticsClient
from qtools.engines.nsq.http_client import Depth
from qtools.errors import NetworkError, PeerError, SourcePaused, StartError
from qtools.names import Subscription

logger = logging.getLogger("qtools.client")

# A run that receives messages asks this much later: a run of a second or two need not import the HTTP client.
BUSY_SECONDS = 4.0
NAMED = 3  # channels that a warning names; the others are counted


def warn_of_backlog_elsewhere(depths: Mapping[tuple[Subscription, str], Depth], level: int = logging.WARNING) -> None:
    """Log, for each source whose channel does not exist yet, how many messages other channels of its topic hold, or
    that the topic does not exist either.

    depths: by (source, nsqd), as `ask_first` returns them before anything is subscribed to.
    """
    new: dict[str, None] = {}
    for source, own in _by_source([(source, depth) for (source, _), depth in depths.items()]).items():
        if all(depth.new_topic for depth in own):
            new[source.topic] = None
        elif not any(depth.exists for depth in own):
            _log_elsewhere(source, own, {each.channel for each, _ in depths if each.topic == source.topic}, level)
    for topic in new:
        logger.warning("%s is a new topic: nothing was ever published to it", topic)


async def warn_after(seconds: float, consumer: Consumer, named: Collection[Subscription]) -> None:
    """Wait `seconds`, then log of each source of `consumer` that its channel is new while other channels hold messages,
    that it is paused and nothing was received, or that nothing was published to its topic.

    named: the sources that the user wrote down, and may have mistyped. Where nsqd cannot be asked, that is logged as
    information.
    """
    await asyncio.sleep(seconds)
    if consumer.received:
        await asyncio.sleep(BUSY_SECONDS)
    http = StatisticsClient(consumer)
    try:
        found = await http.depths("")
    except (StartError, NetworkError, PeerError) as error:
        logger.info("could not ask nsqd for depths: %s", error)
        return
    finally:
        await http.close()
    received = consumer.received
    sources = _by_source([(source, depth) for source, _, depth in found])
    for source, own in sources.items():
        came = received if len(sources) == 1 else 0
        if sum(depth.given for depth in own) <= came + sum(depth.left for depth in own):
            _log_elsewhere(
                source, own, {each.channel for each in sources if each.topic == source.topic}, logging.WARNING
            )
    if not received:
        for source, nsqd, depth in found:
            if depth.paused:
                logger.warning("%s until it is unpaused", SourcePaused(str(source), nsqd, depth.left))
        empty = [source.topic for source, own in sources.items() if source in named and all(map(_is_unused, own))]
        for topic in dict.fromkeys(empty):
            logger.warning("nothing was published to the topic %s since the broker was started", topic)


def _is_unused(depth: Depth) -> bool:
    """Whether the topic has no messages, had none since the broker's start, and has no channel but the run's own."""
    return not depth.topic_given and not depth.left and not depth.elsewhere and depth.channels <= 1


def _by_source(depths: Iterable[tuple[Subscription, Depth]]) -> dict[Subscription, list[Depth]]:
    found: dict[Subscription, list[Depth]] = {}
    for source, depth in depths:
        found.setdefault(source, []).append(depth)
    return found


def _log_elsewhere(source: Subscription, depths: list[Depth], read_here: Container[str], level: int) -> None:
    """Log how many messages wait in channels of the topic of `source` other than those `read_here`."""
    waiting: dict[str, int] = {}
    for depth in depths:
        # nsqd counts from its start. A topic whose channels hold more than it has received since then has older
        # messages, and then a count of received messages cannot show whether a channel is new.
        if sum(depth.elsewhere.values()) <= depth.topic_given:
            for channel, count in depth.elsewhere.items():
                if channel in read_here:
                    continue
                waiting[channel] = waiting.get(channel, 0) + count
    if not waiting:
        return
    most = sorted(waiting.items(), key=lambda each: -each[1])
    named = ", ".join(f"{source.topic}/{channel}: {count:,}" for channel, count in most[:NAMED])
    more = f" and {len(most) - NAMED} more" if len(most) > NAMED else ""
    logger.log(
        level,
        "%s is a new channel and gets only what is published from now on; messages wait in other channels (%s%s)",
        source,
        named,
        more,
    )

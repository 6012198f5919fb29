"""Tells what a new channel does not have. In: depths, a consumer. Out: warnings.

A topic keeps its messages for its first channel; a later one has only what is published after it was made. A run that
reads `TOPIC/NEW` to archive what is in the topic would wait for it in vain, and so would one whose channel is paused.

Nothing is asked before a run for this alone: HTTP costs a short command more time than it has. A run that lasts asks
once, a second after its start (`Ends.soon`), and by then its channel is there. The channel counts as new if it was
given no more messages than have come here or are still in it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container, Iterable, Mapping

from qtools.client.consumer import Consumer
from qtools.client.ends import Asker
from qtools.client.http import Depth
from qtools.errors import NetworkError, PeerError, SourcePaused, StartError
from qtools.names import Subscription

logger = logging.getLogger("qtools.client")

# While messages come there is no hurry, and a run of a second or two is spared the import of the HTTP client.
BUSY_SECONDS = 4.0
PATIENCE = 3.0  # s that a run that is over waits for an answer
NAMED = 3  # channels that are named; of more it is said how many


def tell_of_missed(depths: Mapping[tuple[Subscription, str], Depth], level: int = logging.WARNING) -> None:
    """Say of each source whose channel is not there yet how many messages other channels of its topic hold.

    depths: of (source, nsqd), as `ask_first` answers them, before anything is subscribed to.
    """
    for source, own in _by_source([(source, depth) for (source, _), depth in depths.items()]).items():
        if not any(depth.exists for depth in own):
            _tell(source, own, {each.channel for each, _ in depths if each.topic == source.topic}, level)


async def watch_start(consumer: Consumer, after: float) -> None:
    """`after` so many seconds, say of each source of `consumer` that its channel is new and others hold messages, or
    that it is paused while nothing has come."""
    await asyncio.sleep(after)
    if consumer.received:
        await asyncio.sleep(BUSY_SECONDS)
    asker = Asker(consumer)
    try:
        found = await asker.depths("")
    except (StartError, NetworkError, PeerError) as error:
        logger.info("could not ask what waits: %s", error)
        return
    finally:
        await asker.close()
    received = consumer.received
    sources = _by_source([(source, depth) for source, _, depth in found])
    for source, own in sources.items():
        came = received if len(sources) == 1 else 0
        if sum(depth.given for depth in own) <= came + sum(depth.left for depth in own):
            _tell(source, own, {each.channel for each in sources if each.topic == source.topic}, logging.WARNING)
    if not received:
        for source, nsqd, depth in found:
            if depth.paused:
                logger.warning("%s until it is unpaused", SourcePaused(str(source), nsqd, depth.left))


async def wait_told(ending: asyncio.Task[bool], watching: asyncio.Task[None], consumer: Consumer) -> None:
    """After a run that `ending` (an end_consumer) has ended and that had nothing: until `watching` has said why."""
    ended = ending.done() and not ending.exception() and ending.result()
    if ended and not consumer.received and not watching.done():
        await asyncio.wait((watching,), timeout=PATIENCE)


def _by_source(depths: Iterable[tuple[Subscription, Depth]]) -> dict[Subscription, list[Depth]]:
    found: dict[Subscription, list[Depth]] = {}
    for source, depth in depths:
        found.setdefault(source, []).append(depth)
    return found


def _tell(source: Subscription, depths: list[Depth], read: Container[str], level: int) -> None:
    """Say what waits in channels of the topic that are not among those `read`."""
    waiting: dict[str, int] = {}
    for depth in depths:
        # More than the topic was given since nsqd started: nsqd's counters are younger than its channels.
        if sum(depth.elsewhere.values()) <= depth.topic_given:
            for channel, count in depth.elsewhere.items():
                if channel in read:
                    continue
                waiting[channel] = waiting.get(channel, 0) + count
    if not waiting:
        return
    most = sorted(waiting.items(), key=lambda each: -each[1])
    named = ", ".join(f"{source.topic}/{channel}: {count:,}" for channel, count in most[:NAMED])
    more = f" and {len(most) - NAMED} more" if len(most) > NAMED else ""
    logger.log(
        level,
        "%s is a new channel and has only what comes from now on; what waits is in other channels (%s%s)",
        source,
        named,
        more,
    )

"""Protects a topic's only messages from a temporary channel. In: sources, brokers. Out: depths, or an error.

A topic without channels keeps its messages for its first channel. If that were an ephemeral channel, all of them would
move into it, and those that are unread when its client disconnects would be lost, as nsqd deletes the channel with its
last client. So the brokers are asked before such a channel is created.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from qtools.engines.nsq.address import Address, Brokers
from qtools.engines.nsq.discovery import Discovery
from qtools.engines.nsq.http_client import AnswerLate, Depth, HttpClient, ask_depth
from qtools.engines.nsq.settings import Settings
from qtools.errors import NetworkError, PeerError, StartError, UsageError
from qtools.names import Subscription

logger = logging.getLogger("qtools.client")


def name_a_channel(topic: str, waiting: int) -> str:
    them = "it" if waiting == 1 else "them all"
    return (
        f"a temporary channel would take {them}, and lose what you do not read;"
        f" name a channel that keeps {them.split()[0]}: {topic}/NAME"
    )


async def refuse_to_take_backlog(
    sources: Sequence[Subscription],
    brokers: Brokers,
    settings: Settings,
    advice: Callable[[str, int], str] = name_a_channel,
) -> dict[tuple[Subscription, str], Depth]:
    """The depth of each source on each nsqd that answered; UsageError if a topic has messages and no channel yet,
    StartError if an nsqd does not answer in time.

    advice: what the error says to do, for a topic and the number of its messages.
    """
    found: dict[tuple[Subscription, str], Depth] = {}
    for source in sources:
        discovery = Discovery(brokers, source.topic, settings)
        try:
            addresses = await discovery.look()
        finally:
            await discovery.close()
        depths = await asyncio.gather(*(_ask(source, address, settings) for address in addresses))
        found.update(((source, str(address)), depth) for address, depth in zip(addresses, depths, strict=True) if depth)
        waiting = sum(depth.depth for depth in depths if depth and not depth.channels)
        if waiting:
            raise UsageError(
                f"{source.topic} has no channel yet and {waiting:,} message{'' if waiting == 1 else 's'}:"
                f" {advice(source.topic, waiting)}"
            )
    return found


async def _ask(source: Subscription, address: Address, settings: Settings) -> Depth | None:
    """The depth of `source` at `address`; None if it cannot be asked, as it has no HTTP API or refuses. StartError if
    it is too busy to answer: it may hold the only messages of the topic.
    """
    if not address.http:
        return None
    http = HttpClient(address.http, settings.http_tls_context())
    try:
        for is_last in (False, True):
            try:
                return await ask_depth(http, source)
            except AnswerLate as error:
                if is_last:
                    raise StartError(
                        f"{address} does not answer whether {source.topic} has messages that a temporary channel would"
                        f" lose: name a channel, as in {source.topic}/NAME, or try again"
                    ) from error
        return None
    except (NetworkError, PeerError) as error:
        logger.info("could not ask %s for the depth of %s: %s", address, source.topic, error)
        return None
    finally:
        await http.close()

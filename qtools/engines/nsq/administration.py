"""Creates, empties, pauses and deletes topics and channels everywhere. In: names. Out: requests to the HTTP APIs of
nsqds and nsqlookupds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from urllib.parse import quote

from qtools.engines.nsq.address import Address, Brokers
from qtools.engines.nsq.discovery import Discovery
from qtools.engines.nsq.http_client import HttpClient
from qtools.engines.nsq.settings import Settings
from qtools.engines.nsq.statistics import TopicStatistics
from qtools.errors import PeerError, StartError, TopicMissing


async def create(topic: str, channel: str, brokers: Brokers, settings: Settings) -> bool:
    """Create `topic`, and its `channel` if one is given: on every nsqd that was named; or, as nsqadmin does it, at
    every nsqlookupd, and the channel on every nsqd that has the topic. Returns whether something was created."""
    had = await _has(topic, channel, brokers, settings)
    addresses = await _nsqds(topic, brokers, settings)
    bases = [*brokers.lookupd, *(address.http for address in addresses)]
    await _post_all(bases, f"/topic/create?topic={quote(topic)}", settings)
    if channel:
        await _post_all(bases, f"/channel/create?topic={quote(topic)}&channel={quote(channel)}", settings)
    return not had


async def empty(topic: str, channel: str, brokers: Brokers, settings: Settings) -> None:
    """Drop what waits in `channel` or in `topic` on every nsqd that has it."""
    await _change("empty", topic, channel, brokers, settings)


async def pause(topic: str, channel: str, paused: bool, brokers: Brokers, settings: Settings) -> None:
    """Pause or resume `channel` or `topic` on every nsqd that has it."""
    await _change("pause" if paused else "unpause", topic, channel, brokers, settings)


async def delete(topic: str, channel: str, brokers: Brokers, settings: Settings) -> None:
    """Delete `topic`, or only its `channel`, on every nsqd that has it. What does not exist is deleted already."""
    addresses = await _nsqds(topic, brokers, settings, "delete")
    path = _path("delete", topic, channel)
    # nsqlookupd forgets the topic last: it would learn it again from an nsqd that still has it.
    await _post_all([address.http for address in addresses], path, settings)
    await _post_all(brokers.lookupd, path, settings)


async def _change(action: str, topic: str, channel: str, brokers: Brokers, settings: Settings) -> None:
    addresses = await _nsqds(topic, brokers, settings)
    bases = [address.http for address in addresses]
    if not await _post_all(bases, _path(action, topic, channel), settings):
        raise TopicMissing(f"{topic}/{channel}: there is no such channel" if channel else f"{topic}: no such topic")


def _path(action: str, topic: str, channel: str) -> str:
    """What to ask for, of a topic or of a channel."""
    kind, query = ("channel", f"&channel={quote(channel)}") if channel else ("topic", "")
    return f"/{kind}/{action}?topic={quote(topic)}{query}"


async def _nsqds(topic: str, brokers: Brokers, settings: Settings, doing: str = "change") -> list[Address]:
    """The nsqds that have `topic`, or all that were named. StartError where an HTTP API is not known. doing: for that
    error."""
    discovery = Discovery(brokers, topic, settings)
    try:
        addresses = list(await discovery.look())
    finally:
        await discovery.close()
    if unknown := next((address for address in addresses if not address.http), None):
        raise StartError(f"to {doing} {topic} needs the HTTP API of {unknown}: give --nsqd-http-address")
    return addresses


async def _has(topic: str, channel: str, brokers: Brokers, settings: Settings) -> bool:
    """Whether some nsqd has `topic`, and `channel` if one is given."""
    statistics = TopicStatistics(brokers, settings)
    try:
        rows = await statistics.topics()
    except StartError:
        return False
    finally:
        await statistics.close()
    return any(
        row["topic"] == topic and (not channel or any(each["channel"] == channel for each in row["channels"]))
        for row in rows
    )


async def _post_all(bases: Iterable[str], path: str, settings: Settings) -> int:
    """POST to all of `bases`, also after an error; return how many did it. The others have no such topic or channel.
    Raises the first error: NetworkError, PeerError."""
    answers = await asyncio.gather(
        *(_post(base, path, settings) for base in dict.fromkeys(bases)), return_exceptions=True
    )
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return sum(answer is True for answer in answers)


async def _post(base: str, path: str, settings: Settings) -> bool:
    http = HttpClient(base, settings.http_tls_context())
    try:
        status, body = await http.post(path)
    finally:
        await http.close()
    if status == 404:
        return False
    if status != 200:
        raise PeerError(f"{http.base}{path} answers {status} {body[:200].decode('utf-8', 'replace')}")
    return True

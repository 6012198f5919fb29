"""Requests that only q-broker answers: create a channel that begins in the past, read waiting messages without taking.

In: sources, brokers. Out: messages.

nsqd has neither and ignores the parameters, so each broker is asked first what it is. If one of them is an nsqd, the
user gets an error and no broker is changed.
"""

from __future__ import annotations

import base64
import json
import logging
import struct
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from qtools.engines.nsq.address import Address, Brokers
from qtools.engines.nsq.discovery import Discovery
from qtools.engines.nsq.http_client import HttpClient, ask_depth
from qtools.engines.nsq.settings import Settings
from qtools.engines.requirements import channel_exists, channel_goes_on
from qtools.errors import ConnectFailed, PeerError, StartError, UsageError
from qtools.message import Batch, Message, Messages
from qtools.names import Subscription

logger = logging.getLogger("qtools.client")

_NUMBERS = struct.Struct(">qH")  # a timestamp and attempts, as NSQ sends them with a message


class PeekOrigin:
    """The Origin of messages that were read without being taken: there is nothing to acknowledge."""

    is_lost = False

    def __init__(self, topic: str, address: str) -> None:
        self.topic = topic
        self.address = address

    def finish(self, ids: Sequence[bytes]) -> None:
        pass

    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None:
        pass

    def touch(self, ids: Sequence[bytes]) -> None:
        pass


async def begin_in_the_past(
    sources: Sequence[Subscription], brokers: Brokers, settings: Settings, since: float, goes_on: bool = False
) -> None:
    """Create the channels of `sources`, to begin with what was published at `since` (s since 1970). goes_on: a channel
    that exists stays as it is, and is logged.

    UsageError when a broker is an nsqd or keeps the topic in memory only, and when the channel exists; StartError when
    a broker cannot be reached; PeerError for any other answer. A topic that does not exist is left out.
    """
    places = [(source, address) for source in sources for address in await _addresses(source, brokers, settings)]
    # All brokers are asked before a channel is created on any: a run that cannot start changes nothing.
    existing: list[tuple[Subscription, Address]] = []
    for source, address in places:
        http = await _ask(address, settings, "--since")
        try:
            there = (await ask_depth(http, source)).exists
        finally:
            await http.close()
        if there and not goes_on:
            raise channel_exists(source)
        if there:
            existing.append((source, address))
    for source in dict.fromkeys(source for source, _ in existing):
        logger.warning("%s", channel_goes_on(source))
    for source, address in places:
        if (source, address) in existing:
            continue
        http = await _ask(address, settings, "--since")
        try:
            status, body = await http.post(f"/channel/create?{_query(source)}&from={max(0.0, since):.6f}")
        finally:
            await http.close()
        answer = body.decode("utf-8", "replace")
        if status == 409:
            raise channel_exists(source)
        if status == 400 and "NOT_DURABLE" in answer:
            raise UsageError(f"{address} keeps {source.topic} in memory only: it has no past messages for --since")
        if status not in (200, 404):
            raise PeerError(f"{address} answers {status} {answer}")


async def peek(source: Subscription, brokers: Brokers, settings: Settings, count: int) -> list[Batch]:
    """The first messages that wait in `source`, `count` at most, as one batch from each broker; they stay there.

    UsageError when a broker is an nsqd, or no broker has the channel; StartError when a broker cannot be reached;
    PeerError for any other answer.
    """
    batches: list[Batch] = []
    found = False
    for address in await _addresses(source, brokers, settings):
        http = await _ask(address, settings, "--peek")
        try:
            status, body = await http.get(f"/channel/peek?{_query(source)}&count={count}")
        finally:
            await http.close()
        if status == 404:
            continue
        if status != 200:
            raise PeerError(f"{address} answers {status} {body.decode('utf-8', 'replace')}")
        found = True
        try:
            messages = Messages.of(map(_message, json.loads(body)["messages"]))
        except (AttributeError, KeyError, TypeError, ValueError, struct.error) as error:
            raise PeerError(f"{http.base}/channel/peek answers with JSON that is not q-broker's") from error
        if len(messages):
            batches.append(Batch.of(PeekOrigin(source.topic, str(address)), messages))
            count -= len(messages)
        if count <= 0:
            break
    if not found:
        raise UsageError(f"{source} does not exist on any broker: check the names of topic and channel")
    return batches


def _message(shown: dict[str, Any]) -> Message:
    """The message in one object of a broker's answer; struct.error where a number is none, or too large."""
    body = base64.b64decode(shown["body_base64"], validate=True) if "body_base64" in shown else shown["body"].encode()
    timestamp, attempts = _NUMBERS.unpack(_NUMBERS.pack(shown["timestamp"], shown["attempts"]))
    return Message(timestamp, attempts, shown["id"].encode(), body)


def _query(source: Subscription) -> str:
    return f"topic={quote(source.topic)}&channel={quote(source.channel)}"


async def _addresses(source: Subscription, brokers: Brokers, settings: Settings) -> list[Address]:
    discovery = Discovery(brokers, source.topic, settings)
    try:
        return list(await discovery.look())
    finally:
        await discovery.close()


async def _ask(address: Address, settings: Settings, flag: str) -> HttpClient:
    """An asker of the q-broker at `address`; StartError when it cannot be reached, UsageError when it is an nsqd."""
    if not address.http:
        raise UsageError(f"{flag} needs the HTTP API of {address}: give --nsqd-http-address")
    http = HttpClient(address.http, settings.http_tls_context())
    try:
        try:
            info = await http.get_json("/info")
        except ConnectFailed:
            if not address.local:
                raise
            from qtools.engines.nsq.local_broker import start_local_broker

            await start_local_broker()
            info = await http.get_json("/info")
    except ConnectFailed as error:
        await http.close()
        raise StartError(str(error)) from error
    except BaseException:
        await http.close()
        raise
    if not isinstance(info, dict) or "durable" not in info:
        await http.close()
        raise UsageError(f"{address} is an nsqd, and {flag} needs q-broker")
    return http

"""What only q-broker can do, asked over HTTP: a channel that begins in the past, a look at what waits.

In: sources, brokers. Out: messages.

nsqd has neither, and answers as if it had never heard of it; so each broker is asked first what it is, and where one
cannot, that is said, and nothing is done anywhere.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from qtools.client.address import Address, Brokers
from qtools.client.discovery import Discovery
from qtools.client.http import HttpAsker, ask_depth
from qtools.client.settings import Settings
from qtools.errors import ConnectFailed, PeerError, StartError, UsageError
from qtools.message import Batch, Message, Messages
from qtools.names import Subscription


class Glance:
    """Where messages come from that were looked at, and not taken: an Origin to which nothing is owed."""

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
    sources: Sequence[Subscription], brokers: Brokers, settings: Settings, since: float
) -> None:
    """Make the channels of `sources`, beginning with what was published at `since` (s since 1970).

    UsageError where a broker cannot do that, or the channel is there; a topic that is not there has no past.
    """
    places = [(source, address) for source in sources for address in await _addresses(source, brokers, settings)]
    # All are asked before a channel is made anywhere: a run that cannot start changes nothing.
    for source, address in places:
        asker = await _ask(address, settings, "--since")
        try:
            there = (await ask_depth(asker, source)).exists
        finally:
            await asker.close()
        if there:
            raise _there_already(source)
    for source, address in places:
        asker = await _ask(address, settings, "--since")
        try:
            status, body = await asker.post(f"/channel/create?{_query(source)}&from={max(0.0, since):.6f}")
        finally:
            await asker.close()
        told = body.decode("utf-8", "replace")
        if status == 409:
            raise _there_already(source)
        if status == 400 and "NOT_DURABLE" in told:
            raise UsageError(f"{address} keeps {source.topic} in memory only: there is no past for --since")
        if status not in (200, 404):
            raise PeerError(f"{address} answers {status} {told}")


def _there_already(source: Subscription) -> UsageError:
    return UsageError(f"{source} is there already, and --since begins a new channel: choose another name, or none")


async def peek(source: Subscription, brokers: Brokers, settings: Settings, count: int) -> list[Batch]:
    """The first messages that wait in `source`, `count` at most, as one batch from each broker.

    UsageError where a broker cannot tell, or there is no such channel on any.
    """
    batches: list[Batch] = []
    found = False
    for address in await _addresses(source, brokers, settings):
        asker = await _ask(address, settings, "--peek")
        try:
            status, body = await asker.get(f"/channel/peek?{_query(source)}&count={count}")
        finally:
            await asker.close()
        if status == 404:
            continue
        if status != 200:
            raise PeerError(f"{address} answers {status} {body.decode('utf-8', 'replace')}")
        found = True
        messages = Messages.of(map(_message, json.loads(body)["messages"]))
        if len(messages):
            batches.append(Batch.of(Glance(source.topic, str(address)), messages))
            count -= len(messages)
        if count <= 0:
            break
    if not found:
        raise UsageError(f"{source} is not there: there is nothing to look at")
    return batches


def _message(told: dict[str, Any]) -> Message:
    body = base64.b64decode(told["body_base64"]) if "body_base64" in told else told["body"].encode()
    return Message(told["timestamp"], told["attempts"], told["id"].encode(), body)


def _query(source: Subscription) -> str:
    return f"topic={quote(source.topic)}&channel={quote(source.channel)}"


async def _addresses(source: Subscription, brokers: Brokers, settings: Settings) -> list[Address]:
    discovery = Discovery(brokers, source.topic, settings)
    try:
        return list(await discovery.look())
    finally:
        await discovery.close()


async def _ask(address: Address, settings: Settings, flag: str) -> HttpAsker:
    """Somebody to ask, who is a q-broker: StartError when nobody answers, UsageError when it is an nsqd."""
    if not address.http:
        raise UsageError(f"{flag} asks a broker over HTTP: where is that of {address}? (--nsqd-http-address)")
    asker = HttpAsker(address.http, settings.http_tls_context())
    try:
        try:
            info = await asker.get_json("/info")
        except ConnectFailed:
            if not address.local:
                raise
            from qtools.client.local import start_local_broker

            await start_local_broker()
            info = await asker.get_json("/info")
    except ConnectFailed as error:
        await asker.close()
        raise StartError(str(error)) from error
    except BaseException:
        await asker.close()
        raise
    if not isinstance(info, dict) or "durable" not in info:
        await asker.close()
        raise UsageError(f"{address} is an nsqd, which cannot do {flag}: q-broker can")
    return asker

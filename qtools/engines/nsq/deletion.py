"""Deletes a topic, or a channel, everywhere. In: its name. Out: requests to the HTTP APIs of nsqds and nsqlookupds."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.discovery import Discovery
from qtools.engines.nsq.http_client import HttpClient
from qtools.engines.nsq.settings import Settings
from qtools.errors import PeerError, StartError


async def delete(topic: str, channel: str, brokers: Brokers, settings: Settings) -> None:
    """Delete `topic`, or only its `channel`, on every nsqd that has it. What does not exist is deleted already.

    All are asked, also after an error; then the first error is raised: StartError where an HTTP API is not known,
    NetworkError, PeerError.
    """
    discovery = Discovery(brokers, topic, settings)
    try:
        addresses = await discovery.look()
    finally:
        await discovery.close()
    if unknown := next((address for address in addresses if not address.http), None):
        raise StartError(f"to delete {topic} needs the HTTP API of {unknown}: give --nsqd-http-address")
    kind, query = ("channel", f"&channel={quote(channel)}") if channel else ("topic", "")
    path = f"/{kind}/delete?topic={quote(topic)}{query}"
    # nsqlookupd forgets the topic last: it would learn it again from an nsqd that still has it.
    for bases in ({address.http for address in addresses}, brokers.lookupd):
        answers = await asyncio.gather(*(_post(base, path, settings) for base in bases), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer


async def _post(base: str, path: str, settings: Settings) -> None:
    http = HttpClient(base, settings.http_tls_context())
    try:
        status, body = await http.post(path)
        if status not in (200, 404):
            text = body[:200].decode("utf-8", "replace")
            raise PeerError(f"{http.base}{path} answers {status} {text}")
    finally:
        await http.close()

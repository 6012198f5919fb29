"""The publisher while its connection ends, or a stream is silent; without a server."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from qtools.engines.contract import PublisherOptions
from qtools.engines.jetstream.api import NOT_READY
from qtools.engines.jetstream.protocol.pub_acks import PubRefusal
from qtools.engines.jetstream.publish.publisher import SILENCE, JetStreamPublisher
from qtools.engines.jetstream.settings import JetStreamSettings
from qtools.errors import NetworkError

SETTINGS = JetStreamSettings(("127.0.0.1:1",))


class _Connection:
    """A connection that is open, or is being closed, and keeps what is sent. looks: how often it was asked which."""

    address = "127.0.0.1:1"
    is_writable = True

    def __init__(self, is_open: bool) -> None:
        self.sent: list[bytes] = []
        self.looks = 0
        self._is_open = is_open

    @property
    def is_open(self) -> bool:
        self.looks += 1
        assert self.looks < 1000, "the publisher asks for ever, and the event loop stands"
        return self._is_open

    def send(self, data: bytes) -> None:
        self.sent.append(data)


def publisher_over(connection: _Connection, retry_timeout: float | None = None) -> JetStreamPublisher:
    made = JetStreamPublisher(SETTINGS, PublisherOptions(retry_timeout=retry_timeout))
    made._client._connection = cast("Any", connection)
    return made


async def test_a_connection_that_is_being_closed_is_waited_for() -> None:
    """The event loop goes on meanwhile: it is the loop that replaces the connection."""
    publisher = publisher_over(_Connection(is_open=False), retry_timeout=0.1)
    with pytest.raises(NetworkError, match=r"no confirmation within 0\.1 s"):
        await publisher.publish([("orders", [b"x"])])


async def test_what_was_refused_for_now_is_sent_again_once() -> None:
    """A stream that is silent for long has all its messages sent again, among them the one that was refused before."""
    connection = _Connection(is_open=True)
    publisher = publisher_over(connection)
    publisher._streams.found.add("orders")
    publishing = asyncio.ensure_future(publisher.publish([("orders", [b"first", b"second"])]))
    while not connection.sent:  # noqa: ASYNC110 - the publisher needs some turns of the event loop, and no more
        await asyncio.sleep(0)
    assert publisher._is_postponed(1, PubRefusal(503, min(NOT_READY), "no leader"))
    publisher._answered_at = asyncio.get_running_loop().time() - SILENCE
    publisher._check_silence()
    publisher._send_postponed()
    assert b"".join(connection.sent).count(b"first") == 2
    assert publisher._window.unanswered == 2
    publisher._confirmed([1, 2])
    assert publisher._window.unanswered == 0
    assert await publishing == {}
    await publisher.close()

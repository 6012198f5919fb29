"""A message to a client is handed to its transport, or ClientGone is raised: on a real socket."""

from __future__ import annotations

from typing import Any

import pytest

from qtools.web.sender import ClientGone, Sender
from tests.web.test_wire import connected, read

MESSAGE = {"type": "http.response.body", "body": b"hello", "more_body": True}


async def nothing(message: dict[str, Any]) -> None:
    """As uvicorn's HTTP `send` after a disconnect."""


async def test_a_message_that_was_written_arrives() -> None:
    async with connected() as (served, client):

        async def write(message: dict[str, Any]) -> None:
            served.tracked.write(message["body"])

        await Sender(write, served.tracked).send(MESSAGE)
        await read(client, 5)


async def test_a_send_that_writes_nothing_is_an_error() -> None:
    async with connected() as (served, _):
        with pytest.raises(ClientGone):
            await Sender(nothing, served.tracked).send(MESSAGE)


async def test_bytes_that_others_write_meanwhile_do_not_count_once_the_connection_is_closing() -> None:
    async with connected() as (served, _):

        async def drop(message: dict[str, Any]) -> None:
            served.tracked.write(b"a pong, longer than the message")
            served.tracked.abort()

        with pytest.raises(ClientGone):
            await Sender(drop, served.tracked).send(MESSAGE)


async def test_nothing_is_sent_to_a_connection_that_is_closing() -> None:
    async with connected() as (served, _):
        served.tracked.abort()
        with pytest.raises(ClientGone):
            await Sender(nothing, served.tracked).send({"type": "http.response.start"})


@pytest.mark.parametrize("error", [OSError(), RuntimeError("after sending 'websocket.close'")])
async def test_a_send_that_fails_as_the_connection_closes(error: Exception) -> None:
    async with connected() as (served, _):

        async def fail(message: dict[str, Any]) -> None:
            served.tracked.abort()
            raise error

        with pytest.raises(ClientGone):
            await Sender(fail, served.tracked).send(MESSAGE)


async def test_a_mistake_of_the_application_is_not_taken_for_a_disconnect() -> None:
    async with connected() as (served, _):

        async def refuse(message: dict[str, Any]) -> None:
            raise RuntimeError("Expected ASGI message 'http.response.start'")

        with pytest.raises(RuntimeError, match=r"http\.response\.start"):
            await Sender(refuse, served.tracked).send(MESSAGE)

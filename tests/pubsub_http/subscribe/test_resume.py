"""An event stream is resumed by its Last-Event-ID while the connection of the broken one is still open.

A client whose network has changed comes back before its old connection is known to be dead.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import closing

import pytest
from harness.brokers import Broker
from harness.gateway import Bare, Gateway

from qtools.pubsub_http.subscribe.resume import MOST, MOST_IDS, Resume, Resumption

COUNT = 20


def test_the_old_connection_is_ended_and_what_the_client_has_does_not_come_again(
    gateway: Gateway, broker: Broker, topic: str
) -> None:
    broker.create(topic, "me")
    bodies = [f"{number:02}" + "x" * 900_000 for number in range(COUNT)]  # more than the system buffers
    for body in bodies:
        broker.fill(topic, [body.encode()])
    with closing(Bare(gateway.port, receive_buffer=4096)) as old:
        old.get(f"/sub?topic={topic}&channel=me&format=sse&max_in_flight={COUNT}")
        data = b""
        while data.count(b"\nid: ") < 4:
            data += old.read_until(b"\n\n")
        ids = re.findall(rb"\nid: (\S+)", data)
        headers = {"last-event-id": ids[2].decode()}
        with gateway.stream(topic, "me", format="sse", until_empty="true", headers=headers) as stream:
            came = [json.loads(line[6:])["body"] for line in stream.rest() if line.startswith("data: ")]
        assert sorted(body[:2] for body in came) == [body[:2] for body in bodies[3:]]
        broker.wait_held(topic, "me", 0)
        assert not old.read_all().endswith(b"0\r\n\r\n")  # it was ended, and not as if nothing more came


def resume(stream: str, last: str) -> Resume:
    return Resume("anybody", "events", "me", stream, last)


def closed(resumption: Resumption, unsettled: list[bytes]) -> str:
    """The name of a stream that was broken."""
    stream = resumption.open("anybody", "events", "me", lambda: None)
    resumption.close(stream, unsettled, set())
    return stream.name


def test_what_is_remembered_of_broken_streams_is_bounded() -> None:
    async def run() -> None:
        resumption = Resumption("")
        names = [closed(resumption, [str(number).encode()]) for number in range(MOST + 1)]
        assert await resumption.arrived_here(resume(names[0], "0")) == []
        assert await resumption.arrived_here(resume(names[1], "1")) == ["1"]
        many = closed(resumption, [str(number).encode() for number in range(MOST_IDS)])
        assert await resumption.arrived_here(resume(names[-1], str(MOST))) == []
        assert len(await resumption.arrived_here(resume(many, "9"))) == 10
        assert resumption.shed() == f"forgot what had arrived of the broken event stream {many}"
        assert resumption.memory() == 0
        assert resumption.shed() is None

    asyncio.run(run())


@pytest.mark.parametrize("caller", ["anybody", "another"])
def test_only_the_same_caller_ends_a_stream_that_is_open(caller: str) -> None:
    async def run() -> list[str]:
        resumption = Resumption("")
        stream = resumption.open("anybody", "events", "me", lambda: resumption.close(stream, [b"1", b"2"], set()))
        asked = Resume(caller, "events", "me", stream.name, "1")
        return await resumption.arrived_here(asked)

    assert asyncio.run(run()) == (["1"] if caller == "anybody" else [])

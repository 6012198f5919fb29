"""Channels that begin in the past, and looks at what waits, over HTTP."""

from __future__ import annotations

import base64
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from qtools.broker.daemon import Daemon
from qtools.broker.disk.database import FILE
from qtools.broker.disk.store import DurableStore
from qtools.broker.http.history import parse_time

from ..disk.damaged import PAGE, as_page, overwrite
from ..inside import come_true, subscribed
from .test_api import asked


@pytest.mark.parametrize(
    ("text", "quarters"),
    [
        ("beginning", 0),
        ("0", 0),
        ("1700000000", 6_800_000_000),
        ("1700000000.25", 6_800_000_001),
        ("1700000000250000000", 6_800_000_001),
        ("2023-11-14T22:13:20Z", 6_800_000_000),
        ("2023-11-14T23:13:20.250+01:00", 6_800_000_001),
        ("1950-01-01T00:00:00Z", 0),
    ],
)
def test_times(text: str, quarters: int) -> None:
    assert parse_time(text) == quarters * 250_000_000  # of a second


@pytest.mark.parametrize(
    "text", ["", "now", "-1", "1.", "1e9", "2023-11-14", "2023-11-14T22:13:20", "9" * 19, "9" * 30, "１７０"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a time|Invalid isoformat|time zone|must be in|any message|a time as"):
        parse_time(text)


def channel(daemon: Daemon, name: str) -> tuple[int, int]:
    found = daemon.broker.topics["t"].channels[name]
    return found.depth, found.messages


async def test_a_channel_begins_where_it_is_told(tmp_path: Path) -> None:
    async with asked(data_path=str(tmp_path), retain_age=3600.0) as (daemon, client):
        await client.post("/channel/create?topic=t&channel=first")
        await client.post("/topic/create?topic=t")
        await client.post("/channel/create?topic=t&channel=first")
        for body in (b"a\nb", b"c"):
            assert (await client.post("/mpub?topic=t", content=body)).text == "OK"
        between = datetime.now(UTC)
        await client.post("/mpub?topic=t", content=b"d\ne")
        create = "/channel/create?topic=t&channel="
        for name, since, count in (
            ("all", "beginning", 5),
            ("some", between.isoformat().replace("+00:00", "Z"), 2),
            ("same", f"{between.timestamp():.6f}", 2),
            ("none", (between + timedelta(hours=1)).isoformat().replace("+", "%2B"), 0),
        ):
            reply = await client.post(f"{create}{name}&from={since}")
            assert reply.status_code == 200, reply.text
            assert channel(daemon, name) == (count, count)
        await client.post("/pub?topic=t", content=b"f")
        assert channel(daemon, "none") == (1, 1)
        assert channel(daemon, "all") == (6, 6)
        peer = await subscribed(daemon, "t", "all")
        assert [message.body for message in await peer.messages(6)] == [b"a", b"b", b"c", b"d", b"e", b"f"]
        await peer.close()


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ("topic=t&channel=new&from=yesterday", 400, "INVALID_ARG_FROM"),
        ("topic=t&channel=there&from=0", 409, "CHANNEL_EXISTS"),
        ("topic=nowhere&channel=new&from=0", 404, "TOPIC_NOT_FOUND"),
    ],
)
async def test_where_it_cannot_begin(tmp_path: Path, query: str, status: int, word: str) -> None:
    async with asked(data_path=str(tmp_path)) as (daemon, client):
        await client.post("/topic/create?topic=t")
        await client.post("/channel/create?topic=t&channel=there")
        reply = await client.post(f"/channel/create?{query}")
        assert (reply.status_code, reply.json()) == (status, {"message": word})
        assert list(daemon.broker.topics["t"].channels) == ["there"]


async def test_memory_has_no_past() -> None:
    async with asked() as (daemon, client):
        await client.post("/topic/create?topic=t")
        reply = await client.post("/channel/create?topic=t&channel=c&from=0")
        assert (reply.status_code, reply.json()) == (400, {"message": "NOT_DURABLE"})
        assert not daemon.broker.topics["t"].channels


async def test_a_temporary_one_that_nobody_comes_for_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtools.broker.http.admin.COME_WITHIN", 0.1)
    async with asked(data_path=str(tmp_path)) as (daemon, client):
        await client.post("/topic/create?topic=t")
        await client.post("/channel/create?topic=t&channel=keeps")
        for name in ("one", "two"):
            await client.post(f"/channel/create?topic=t&channel={name}%23ephemeral&from=beginning")
        peer = await subscribed(daemon, "t", "one#ephemeral")
        await come_true(lambda: set(daemon.broker.topics["t"].channels) == {"keeps", "one#ephemeral"})
        await peer.close()
        await come_true(lambda: set(daemon.broker.topics["t"].channels) == {"keeps"})


@pytest.mark.parametrize("durable", [True, False])
async def test_a_look_tells_what_waits_in_its_order(tmp_path: Path, durable: bool) -> None:
    options = {"data_path": str(tmp_path), "mem_queue_size": 3} if durable else {}
    async with asked(**options) as (daemon, client):
        await client.post("/topic/create?topic=t")
        await client.post("/channel/create?topic=t&channel=c")
        for number in range(12):
            await client.post("/pub?topic=t", content=b"%d" % number)
        await client.post("/pub?topic=t", content=b"\xff")
        peer = await subscribed(daemon, ready=2)
        first, second = await peer.messages(2)
        peer.say(b"RDY 0\nREQ %b 0\n" % first.id)
        await come_true(lambda: daemon.broker.topics["t"].channels["c"].in_flight == 1)
        told = (await client.get("/channel/peek?topic=t&channel=c&count=100")).json()["messages"]
        assert len(told) == 12
        assert {one.get("body", "") for one in told} == {"0", *map(str, range(2, 12)), ""}
        by_body = {one.get("body", ""): one for one in told}
        assert (by_body["0"]["attempts"], by_body["5"]["attempts"]) == (1, 0)
        assert by_body["0"]["id"] == first.id.decode()
        assert by_body["0"]["timestamp"] == first.timestamp
        assert base64.b64decode(by_body[""]["body_base64"]) == b"\xff"
        assert len((await client.get("/channel/peek?topic=t&channel=c&count=4")).json()["messages"]) == 4
        assert second.body == b"1"
        peer.say(b"RDY 100\n")
        again = await peer.messages(12)
        assert sorted(message.attempts for message in again) == [1] * 11 + [2]
        await peer.close()


async def test_a_past_that_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The index of the messages is damaged while the broker runs: no channel is made that would lack some of them."""
    async with asked(data_path=str(tmp_path), retain_age=3600.0) as (daemon, client):
        await client.post("/topic/create?topic=t")
        await client.post("/channel/create?topic=t&channel=there")
        assert (await client.post("/pub?topic=t", content=b"x")).text == "OK"
        store = daemon.broker.store
        assert isinstance(store, DurableStore)
        await come_true(lambda: store.is_idle)
        connection = sqlite3.connect(tmp_path / FILE)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.close()
        overwrite(tmp_path / FILE, as_page(tmp_path / FILE, "block_of_topic"), b"\xa5" * PAGE)
        for _ in range(2):
            reply = await client.post("/channel/create?topic=t&channel=new&from=beginning")
            assert (reply.status_code, reply.json()) == (503, {"message": "CANNOT_READ"})
        assert list(daemon.broker.topics["t"].channels) == ["there"]
        assert (await client.get("/ping")).text.startswith("NOK - the database was damaged: see ")
    assert caplog.text.count(f"{tmp_path}: cannot read messages: it is damaged: a restart of q-broker") == 1
    assert "internal error" not in caplog.text


@pytest.mark.parametrize("durable", [True, False])
async def test_a_look_into_a_topic_without_channels(tmp_path: Path, durable: bool) -> None:
    async with asked(**({"data_path": str(tmp_path)} if durable else {})) as (daemon, client):
        await client.post("/topic/create?topic=t")
        assert (await client.get("/channel/peek?topic=t&channel=c")).json() == {"messages": []}
        for number in range(12):
            await client.post("/pub?topic=t", content=b"%d" % number)
        if durable:
            await client.post("/pub?topic=t&defer=60000", content=b"late")
        told = (await client.get("/channel/peek?topic=t&channel=c&count=11")).json()["messages"]
        assert [(one["body"], one["attempts"]) for one in told] == [(str(number), 0) for number in range(11)]
        assert not daemon.broker.topics["t"].channels
        peer = await subscribed(daemon, "t", "c")
        assert [message.body for message in await peer.messages(12)] == [b"%d" % number for number in range(12)]
        await peer.close()


@pytest.mark.parametrize("count", ["0", "-1", "x", "10001", ""])
async def test_a_look_is_bounded(count: str) -> None:
    async with asked() as (_, client):
        await client.post("/topic/create?topic=t")
        await client.post("/channel/create?topic=t&channel=c")
        reply = await client.get(f"/channel/peek?topic=t&channel=c&count={count}")
        assert (reply.status_code, reply.json()) == (400, {"message": "INVALID_ARG_COUNT"})
        reply = await client.get("/channel/peek?topic=t&channel=other")
        assert (reply.status_code, reply.json()) == (404, {"message": "CHANNEL_NOT_FOUND"})
        assert (await client.post("/channel/peek?topic=t&channel=c")).status_code == 405

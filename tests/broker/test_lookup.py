"""Registration with nsqlookupd: what is registered, and what becomes of topics and connections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from qtools.broker import lookup
from qtools.broker.core.channel import Channel
from qtools.broker.lookup import parse_lookupd
from qtools.errors import AddressInvalid, UsageError
from tests.broker.lookupds import lookupd, registered

from .inside import Peer, come_true, mpub, subscribed
from .running import Running, running


async def test_it_says_who_it_is_and_what_it_has() -> None:
    async with lookupd() as one, registered(one.address) as daemon:
        await come_true(lambda: one.identities)
        told = one.identities[0]
        assert told["broadcast_address"] == "127.0.0.1"
        assert told["version"] == "1.3.0"
        assert f"127.0.0.1:{told['tcp_port']}" == daemon.tcp_address
        assert f"127.0.0.1:{told['http_port']}" == daemon.http_address
        daemon.broker.topic("a")
        await come_true(lambda: one.known == {"a": set()})
        daemon.broker.channel("b", "c")
        await come_true(lambda: one.known == {"a": set(), "b": {"c"}})


async def test_broadcast_ports_are_registered_instead_of_its_own() -> None:
    more = {"broadcast_tcp_port": 1234, "broadcast_http_port": 1235, "broadcast_address": "outside.example"}
    async with lookupd() as one, registered(one.address, **more):
        (told,) = await come_true(lambda: one.identities)
        assert (told["broadcast_address"], told["tcp_port"], told["http_port"]) == ("outside.example", 1234, 1235)


async def test_what_comes_and_goes_is_told() -> None:
    async with lookupd() as one, registered(one.address) as daemon:
        broker = daemon.broker
        peer = await subscribed(daemon, "t", "tail#ephemeral")
        await come_true(lambda: one.known == {"t": {"tail#ephemeral"}})
        broker.channel("t", "kept")
        await come_true(lambda: one.known == {"t": {"tail#ephemeral", "kept"}})
        await peer.close()
        await come_true(lambda: one.known == {"t": {"kept"}})
        broker.delete_channel(broker.topics["t"], "kept")
        await come_true(lambda: one.known == {"t": set()})
        broker.channel("t", "again")
        await come_true(lambda: one.known == {"t": {"again"}})
        broker.delete_topic("t")
        await come_true(lambda: one.known == {})
        # Channels before their topic: an ephemeral one stays in nsqlookupd's list otherwise.
        assert one.heard[0][-2:] == ["UNREGISTER t again", "UNREGISTER t"]
        peer = await subscribed(daemon, "t#ephemeral", "c")
        await come_true(lambda: one.known == {"t#ephemeral": {"c"}})
        broker.delete_channel(broker.topics["t#ephemeral"], "c")
        await come_true(lambda: one.known == {})
        await peer.close()


async def test_everything_is_registered_anew_after_a_reconnect() -> None:
    async with lookupd() as one, registered(one.address) as daemon:
        for topic in ("a", "b"):
            daemon.broker.channel(topic, "c")
        await come_true(lambda: one.known == {"a": {"c"}, "b": {"c"}})
        await one.stop()
        daemon.broker.delete_topic("a")
        daemon.broker.channel("b", "d")
        await one.start()
        await come_true(lambda: one.known == {"b": {"c", "d"}})
        assert len(one.heard) == 2
        assert not [line for line in one.heard[1] if line.startswith("UNREGISTER")]


async def test_a_change_of_one_channel_goes_through_no_others() -> None:
    class Channels(dict[str, Channel]):
        walks = 0

        def __iter__(self) -> Iterator[str]:
            self.walks += 1
            return super().__iter__()

    async with lookupd() as server, registered(server.address) as daemon:
        broker = daemon.broker
        topic = broker.topic("t")
        await come_true(lambda: server.known == {"t": set()})
        topic.channels = channels = Channels(topic.channels)
        names = [f"c{nth}" for nth in range(200)]
        for nth in range(0, 200, 4):
            for name in names[nth : nth + 4]:
                broker.channel("t", name)
            await come_true(lambda nth=nth: server.known["t"] == set(names[: nth + 4]))
        for nth in range(0, 100, 4):
            for name in names[nth : nth + 4]:
                broker.delete_channel(topic, name)
            await come_true(lambda nth=nth: server.known["t"] == set(names[nth + 4 :]))
        assert channels.walks == 0
        broker.channel("t", "comes-and-goes")
        broker.delete_channel(topic, "comes-and-goes")
        broker.delete_topic("t")
        await come_true(lambda: not server.known)
        assert not any("comes-and-goes" in line for line in server.heard[-1])


async def test_a_deleted_topic_that_is_made_again_is_registered_in_the_end() -> None:
    async with lookupd() as one, registered(one.address) as daemon:
        daemon.broker.channel("t", "c")
        await come_true(lambda: one.known == {"t": {"c"}})
        for _ in range(3):
            daemon.broker.delete_topic("t")
            daemon.broker.channel("t", "d")
        await come_true(lambda: one.known == {"t": {"d"}})


async def test_a_new_topic_has_the_channels_that_it_has_elsewhere() -> None:
    async with lookupd() as one, lookupd() as other, registered(one.address, other.address) as daemon:
        await come_true(lambda: len(one.identities) == len(other.identities) == 1)
        daemon.broker.topic("here")
        await come_true(lambda: "here" in one.known and "here" in other.known)
        one.channels, other.channels = {"t": ["a", "tail#ephemeral"]}, {"t": ["b", "a"]}
        writer = await Peer.to(daemon, mpub("t", b"1", b"2"))
        assert await writer.answer() == b"OK"
        await come_true(lambda: set(daemon.broker.topics["t"].channels) == {"a", "b"})
        writer.say(mpub("t", b"3"))
        for channel in ("a", "b"):  # both have what came before they were here
            reader = await subscribed(daemon, "t", channel)
            assert [message.body for message in await reader.messages(3)] == [b"1", b"2", b"3"]
            await reader.close()
        await come_true(lambda: one.known["t"] == other.known["t"] == {"a", "b"})
        await writer.close()


async def test_a_consumer_that_makes_the_topic_takes_nothing_from_the_others() -> None:
    async with lookupd() as one, registered(one.address) as daemon:
        one.channels = {"t": ["a"]}
        await come_true(lambda: daemon.lookups and any(peer.is_there for peer in daemon.lookups._peers.values()))
        reader = await subscribed(daemon, "t", "mine")
        writer = await Peer.to(daemon, mpub("t", b"1", b"2"))
        assert [message.body for message in await reader.messages(2)] == [b"1", b"2"]
        other = await subscribed(daemon, "t", "a")
        assert [message.body for message in await other.messages(2)] == [b"1", b"2"]
        for peer in (reader, writer, other):
            await peer.close()


async def test_a_nsqlookupd_that_does_not_tell_channels_holds_up_a_topic_for_its_time_only(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("qtools"), "propagate", True)
    async with lookupd() as one, registered(one.address, http_client_request_timeout=0.3) as daemon:
        one.channels = None
        await come_true(lambda: daemon.lookups and any(peer.is_there for peer in daemon.lookups._peers.values()))
        reader = await subscribed(daemon, "t", "c")
        writer = await Peer.to(daemon, mpub("t", b"1"))
        assert await writer.answer() == b"OK"  # it is accepted meanwhile
        assert daemon.broker.topics["t"].waiting
        assert not daemon.broker.topics["t"].paused
        assert (await reader.message()).body == b"1"
        assert not daemon.broker.topics["t"].waiting
        assert one.asked == ["t"]
        await reader.close()
        await writer.close()
    told = [record.getMessage() for record in caplog.records if "elsewhere" in record.getMessage()]
    assert len(told) == 1


async def test_nothing_passes_a_channel_by_while_its_topic_begins() -> None:
    """Messages are on their way to the disk, to the topic and to its new channels all at once."""
    topics = {f"t{number}": 1 + number % 4 for number in range(40)}  # how many MPUBs of ten messages it gets

    async def publish(broker: Running, topic: str, times: int) -> None:
        peer = Peer(*await asyncio.open_connection(*broker.tcp))
        peer.say(b"  V2")
        for at in range(times):
            peer.say(mpub(topic, *[b"%d" % (at * 10 + place) for place in range(10)]))
            await asyncio.sleep(0.002)
        for _ in range(times):
            assert await peer.answer() == b"OK"
        await peer.close()

    async def read(broker: Running, topic: str, channel: str, count: int) -> set[bytes]:
        peer = Peer(*await asyncio.open_connection(*broker.tcp))
        peer.say(f"  V2SUB {topic} {channel}\nRDY 2500\n".encode())
        assert await peer.answer() == b"OK"
        bodies = {message.body for message in await peer.messages(count)}
        await peer.close()
        return bodies

    async with lookupd() as one:
        one.channels = {topic: ["a", "b"] for topic in topics}
        with running(f"--lookupd-tcp-address={one.address}") as broker:
            await come_true(lambda: any("registered with" in line for line in broker.log))
            await asyncio.gather(*(publish(broker, topic, times) for topic, times in topics.items()))
            for topic, times in topics.items():
                for channel in ("a", "b"):
                    assert len(await read(broker, topic, channel, times * 10)) == times * 10


async def test_a_broker_that_is_killed_while_a_topic_waits_loses_nothing(tmp_path: Path) -> None:
    data = ("--data-path", str(tmp_path))
    async with lookupd() as one:
        one.channels = None
        flags = (f"--lookupd-tcp-address={one.address}", "--http-client-request-timeout=60s")
        with running(*data, *flags) as broker:
            await come_true(lambda: any("registered with" in line for line in broker.log))
            said = b"  V2" + mpub("t", b"1", b"2") + b"SUB t c\nRDY 5\n"
            peer = Peer(*await asyncio.open_connection(*broker.tcp))
            peer.say(said)
            assert [await peer.answer(), await peer.answer()] == [b"OK", b"OK"]
            assert await peer.silent()
            broker.process.kill()
            await peer.close()
    with running(*data) as broker:
        peer = Peer(*await asyncio.open_connection(*broker.tcp))
        peer.say(b"  V2SUB t c\nRDY 5\n")
        assert await peer.answer() == b"OK"
        assert [message.body for message in await peer.messages(2)] == [b"1", b"2"]
        await peer.close()


async def test_a_topic_that_is_deleted_while_it_waits_stays_deleted() -> None:
    async with lookupd() as one, registered(one.address, http_client_request_timeout=0.2) as daemon:
        one.channels = None
        await come_true(lambda: daemon.lookups and any(peer.is_there for peer in daemon.lookups._peers.values()))
        daemon.broker.topic("t")
        await come_true(lambda: one.asked)
        daemon.broker.delete_topic("t")
        assert daemon.lookups is not None
        await come_true(lambda: not daemon.lookups._asking)  # type: ignore[union-attr]
        assert daemon.broker.topics == {}


async def test_one_that_is_away_holds_up_nobody() -> None:
    async with lookupd() as one, lookupd() as silent, lookupd() as gone:
        silent.mute = True
        await gone.stop()
        async with registered(gone.address, silent.address, one.address) as daemon:
            await come_true(lambda: one.identities)
            peer = await Peer.to(daemon, b"PUB t\n\0\0\0\1x")
            assert await peer.answer() == b"OK"
            await come_true(lambda: one.known == {"t": set()})
            await peer.close()


async def test_an_idle_connection_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "PING_EVERY", 0.05)
    async with lookupd() as one, registered(one.address):
        await come_true(lambda: one.heard and one.heard[0].count("PING") >= 3)
        assert len(one.heard) == 1


async def test_one_that_stops_answering_is_left_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "PING_EVERY", 0.05)
    monkeypatch.setattr(lookup, "PATIENCE", 0.2)
    async with lookupd() as one, registered(one.address) as daemon:
        daemon.broker.topic("t")
        await come_true(lambda: one.known == {"t": set()})
        one.mute = True
        await come_true(lambda: len(one.heard) >= 2)
        one.mute = False
        await come_true(lambda: one.known == {"t": set()})


async def test_what_is_wrong_is_said_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(lookup, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(logging.getLogger("qtools"), "propagate", True)
    caplog.set_level(logging.INFO, "qtools.broker")
    tries = 0

    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(http, "127.0.0.1", 0)
    wrong = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with lookupd() as gone, lookupd() as stern:
        await gone.stop()
        stern.answer = lambda command: b"E_BAD_TOPIC REGISTER topic name 't' is not valid"
        async with registered(gone.address, "no.such.host.invalid:4160", wrong, stern.address) as daemon:
            daemon.broker.topic("t")
            await come_true(lambda: tries > 5 and len(stern.heard) > 5)
            await come_true(lambda: "is not known" in caplog.text)
    server.close()
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert f"nsqlookupd {gone.address}: connection refused; retrying until it works" in told
    assert (
        f"nsqlookupd {wrong}: it answers HTTP: that is nsqlookupd's HTTP port, its TCP port is usually 4160;"
        " retrying until it works"
    ) in told
    assert any(line.startswith("nsqlookupd no.such.host.invalid:4160: its host is not known (") for line in told)
    assert any(line.startswith(f"nsqlookupd {stern.address}: it refused: E_BAD_TOPIC") for line in told)
    assert len(told) == len(set(told)) == 4


async def test_a_lookupd_may_come_and_go_while_it_runs() -> None:
    async with lookupd() as one, lookupd() as other, registered(one.address) as daemon:
        daemon.broker.topic("t")
        await come_true(lambda: one.known == {"t": set()})
        assert daemon.lookups is not None
        daemon.lookups.follow([other.address])
        await come_true(lambda: other.known == {"t": set()} and not one.known)
        with pytest.raises(UsageError, match="more than 64"):
            daemon.lookups.follow([f"h{number}:4160" for number in range(65)])


async def test_nsqlookupds_are_changed_over_http() -> None:
    async with (
        lookupd() as one,
        lookupd() as other,
        registered(one.address) as daemon,
        httpx.AsyncClient(base_url=f"http://{daemon.http_address}/config") as client,
    ):
        daemon.broker.topic("t")
        await come_true(lambda: one.known == {"t": set()})
        assert (await client.get("nsqlookupd_tcp_addresses")).json() == [one.address]
        reply = await client.put("nsqlookupd_tcp_addresses", json=[other.address])
        assert (reply.status_code, reply.json()) == (200, [other.address])
        await come_true(lambda: other.known == {"t": set()} and not one.known)
        for wrong in (b"", b"{", b"5", b"[5]", b'{"a":1}', b'["nonsense"]', b'["h:99999"]', b"[" * 5000):
            reply = await client.put("nsqlookupd_tcp_addresses", content=wrong)
            assert (reply.status_code, reply.json()) == (400 if wrong else 413, {"message": "INVALID_VALUE"})
        assert (await client.get("nsqlookupd_tcp_addresses")).json() == [other.address]
        assert (await client.put("nsqlookupd_tcp_addresses", content=b"null")).json() == []
        await come_true(lambda: not other.known)


async def test_it_leaves_before_it_stops() -> None:
    async with lookupd() as one:
        async with registered(one.address) as daemon:
            daemon.broker.topic("t")
            await come_true(lambda: one.known)
        await come_true(lambda: not one.known)


@pytest.mark.parametrize("options", [{"tcp_address": "unix:{}/s"}, {"http_address": None}])
async def test_what_cannot_be_registered_is_refused_at_once(
    options: dict[str, str | None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    given = {name: value and value.format(tmp_path_factory.mktemp("s")) for name, value in options.items()}
    with pytest.raises(UsageError, match="--lookupd-tcp-address needs ports to register"):
        async with registered("127.0.0.1:4160", **given):
            pass


@pytest.mark.parametrize("text", ["h", "h:", "h:0", "h:70000", ":4160", "h:x", "http://h:4160", "a b:1", "::1:4160"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(AddressInvalid, match="4160"):
        parse_lookupd(text)


def test_addresses_are_read() -> None:
    assert parse_lookupd("nsq-1.example:4160") == ("nsq-1.example", 4160)
    assert parse_lookupd("[::1]:4160") == ("::1", 4160)

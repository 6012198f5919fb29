"""Registration with nsqlookupd. In: topics and channels as they come and go. Out: what each nsqlookupd is told.

    connect ─▶ magic, IDENTIFY ─▶ REGISTER everything ─▶ REGISTER, UNREGISTER what changes; PING when nothing does
       ▲                                                             │
       └────────── a pause, longer each time ◀── lost, refused, no answer in time

A new topic waits until the nsqlookupds have told which channels it has elsewhere, and these are made here too:
what is published before their consumers have found this broker is then theirs as well, as in nsqd.

Each nsqlookupd is served on its own: one that is away holds up neither the others nor the broker. What is
kept for it is the state it was told of, and which topics differ from that: not what happened meanwhile, so an
nsqlookupd that is away for days costs no memory.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtools.broker.core.broker import Broker
from qtools.broker.core.topic import Topic
from qtools.broker.options import NSQD_VERSION
from qtools.engines.nsq.protocol.lookup import (
    MAGIC_V1,
    OK,
    PING,
    AnswerReader,
    Producer,
    decode_channels,
    decode_identity,
    identify,
    refusal_of,
    register,
    unregister,
)
from qtools.errors import AddressInvalid, ProtocolError, QtoolsError, UsageError
from qtools.host_port import BAD_PORT, NotAnAddress, split_host_port
from qtools.names import is_ephemeral

if TYPE_CHECKING:
    import httpx

log = logging.getLogger("qtools.broker")

PING_EVERY = 15.0  # seconds; nsqlookupd counts a producer as gone after 5 minutes
PATIENCE = 5.0  # seconds for a connection, and for each batch of answers
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 15.0  # seconds between two tries
ASK_AT_ONCE = 32  # new topics, about their channels
BATCH = 500  # commands that may wait for their answers
MOST = 64  # nsqlookupds; each is a connection, and PUT /config can name some


def parse_lookupd(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[::1]:PORT` → host and port; AddressInvalid otherwise."""
    advice = "nsqlookupd's TCP port is usually 4160"
    host, port = "", None
    try:
        host, port = split_host_port(text.strip())
    except NotAnAddress:
        pass
    except ValueError as error:
        raise AddressInvalid(text, f"{error}: {advice}") from None
    if port == 0:
        raise AddressInvalid(text, f"{BAD_PORT}: {advice}")
    if not host or port is None:
        raise AddressInvalid(text, "is none of an nsqlookupd: --lookupd-tcp-address takes HOST:PORT, usually port 4160")
    return host, port


class Lookups:
    """Every nsqlookupd this broker is registered with. `tcp_port` and `http_port` are where others reach it."""

    def __init__(self, broker: Broker, tcp_port: int, http_port: int) -> None:
        self._broker = broker
        self._producer = Producer(broker.options.broadcast_address, tcp_port, http_port)
        self._peers: dict[str, Peer] = {}
        self._client: httpx.AsyncClient | None = None
        self._asking: set[asyncio.Task[None]] = set()
        self._few = asyncio.Semaphore(ASK_AT_ONCE)
        broker.on_change.append(self._changed)

    def check(self, addresses: Sequence[str]) -> None:
        """UsageError when this broker cannot be registered there."""
        if len(addresses) > MOST:
            raise UsageError(f"{len(addresses)} nsqlookupds are more than {MOST}")
        for address in addresses:
            parse_lookupd(address)
        if addresses and min(self._producer.tcp_port, self._producer.http_port) < 1:
            raise UsageError(
                "--lookupd-tcp-address needs ports to register: nsqlookupd takes no broker without a TCP and an HTTP"
                " port; give --tcp-address and --http-address as HOST:PORT, or --broadcast-tcp-port and"
                " --broadcast-http-port"
            )

    def follow(self, addresses: Sequence[str]) -> None:
        """Be registered with these from now on, and with no others. UsageError when that cannot be."""
        addresses = tuple(dict.fromkeys(addresses))
        self.check(addresses)
        if addresses and self._client is None:
            import httpx

            options = self._broker.options
            timeout = httpx.Timeout(options.http_client_request_timeout, connect=options.http_client_connect_timeout)
            self._client = httpx.AsyncClient(timeout=timeout, trust_env=False)
        for address in [one for one in self._peers if one not in addresses]:
            self._peers.pop(address).close()
        for address in addresses:
            if address not in self._peers:
                self._peers[address] = Peer(self._broker, self._producer, address)

    def _changed(self, topic: str, channel: str) -> None:
        for peer in self._peers.values():
            peer.changed(topic, channel)
        there = self._broker.topics.get(topic)
        places = [peer.http for peer in self._peers.values() if peer.is_there and peer.http]
        if there is not None and not channel and places and not there.ephemeral:
            there.wait()
            task = asyncio.get_running_loop().create_task(self._make_channels(there, places))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _make_channels(self, topic: Topic, places: Sequence[str]) -> None:
        """Make the channels that `topic` has elsewhere, and let it go."""
        names: set[str] = set()
        try:
            async with asyncio.timeout(self._broker.options.http_client_request_timeout), self._few:
                answers = await asyncio.gather(*(self._channels(topic.name, place) for place in places))
            if not any(answer is not None for answer in answers):
                log.warning("%s: no nsqlookupd tells which channels it has elsewhere; it begins without", topic.name)
            names.update(*(answer or () for answer in answers))
        except TimeoutError:
            log.warning("%s: no nsqlookupd tells in time which channels it has elsewhere", topic.name)
        except Exception as error:
            log.error("internal error in lookup of %s: %s: %s", topic.name, type(error).__name__, error)
        finally:
            if self._broker.topics.get(topic.name) is topic:
                for name in sorted(names):
                    if not is_ephemeral(name):  # it would not live without a client
                        self._broker.channel(topic.name, name)
                topic.go(self._broker.now(), time.time_ns())

    async def _channels(self, topic: str, place: str) -> list[str] | None:
        """What one nsqlookupd knows; None when it does not say."""
        import httpx

        assert self._client is not None
        try:
            reply = await self._client.get(f"http://{place}/channels", params={"topic": topic})
            if reply.status_code == 404:
                return []
            return decode_channels(reply.content) if reply.status_code == 200 else None
        except (httpx.HTTPError, httpx.InvalidURL, ProtocolError) as error:
            log.debug("nsqlookupd at %s: %s", place, error)
            return None

    def stop(self) -> None:
        """Hang up: an nsqlookupd forgets a producer with its connection."""
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()

    async def close(self) -> None:
        """After `stop`: let go of what is under way."""
        for task in tuple(self._asking):
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()


class _Link(asyncio.Protocol):
    """A connection to an nsqlookupd. `stirred` is set whenever there is something to look at."""

    def __init__(self, stirred: asyncio.Event) -> None:
        self.answers: deque[bytes] = deque()
        self.failure: BaseException | None = None
        self.transport: asyncio.Transport | None = None
        self._stirred = stirred
        self._reader = AnswerReader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's transports are of no class of asyncio's

    def data_received(self, data: bytes) -> None:
        if self.failure is None:
            try:
                self.answers += self._reader.feed(data)
            except ProtocolError as error:
                self.failure = error
            self._stirred.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.failure is None:
            self.failure = exc or ConnectionError("it hung up")
        self._stirred.set()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class Peer:
    """One nsqlookupd, looked after by one task."""

    def __init__(self, broker: Broker, producer: Producer, address: str) -> None:
        self.address = address
        self.is_there = False
        self.http = ""  # where it answers HTTP, if it says so
        self._broker = broker
        self._producer = producer
        self._told: dict[str, set[str]] = {}  # topics and their channels, as it knows them
        # Topics that may be different from that, and their channels that may be; None: any of them. With 10,000
        # channels of a topic, a comparison of all of them for each change would take the loop's time.
        self._changed: dict[str, dict[str, None] | None] = {}
        self._stirred = asyncio.Event()
        self._complained: set[str] = set()  # reasons that were told since it was last there
        self._task = asyncio.get_running_loop().create_task(self._run())

    def changed(self, topic: str, channel: str = "") -> None:
        """A topic, or the channel of it that is named, has come or gone. Without a connection nothing is kept."""
        if not self.is_there:
            return
        if not channel:
            self._changed[topic] = None
        elif (channels := self._changed.setdefault(topic, {})) is not None:
            channels[channel] = None
        self._stirred.set()

    def close(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            link, began = _Link(self._stirred), loop.time()
            try:
                await self._connect(link)
                await self._converse(link)
            except Exception as error:
                self._complain(error)
            finally:
                link.close()
                self.is_there = False
                self._told.clear()
                self._changed.clear()
            failures = 1 if loop.time() - began > LONGEST_PAUSE else failures + 1
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 16))
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # so that not every broker comes back at once

    async def _connect(self, link: _Link) -> None:
        loop = asyncio.get_running_loop()
        host, port = parse_lookupd(self.address)
        async with asyncio.timeout(PATIENCE):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            failure: OSError | None = None
            for _, _, _, _, place in found:
                try:
                    await loop.create_connection(lambda: link, str(place[0]), port)
                    return
                except OSError as error:
                    failure = error
        raise failure or OSError("no address")

    async def _converse(self, link: _Link) -> None:
        """Tell it everything, and then what changes, until the connection ends in an exception."""
        hello = MAGIC_V1 + identify(self._producer, socket.gethostname(), NSQD_VERSION)
        (answer,) = await self._ask(link, [hello])
        self.http = decode_identity(answer)
        self.is_there = True
        self._changed = dict.fromkeys(self._broker.topics)
        while self._changed:
            await self._tell_changes(link)
        self._complained.clear()
        log.info("registered with nsqlookupd %s as %s:%d", self.address, *self._producer[:2])
        while True:
            if self._changed:
                await self._tell_changes(link)
            elif not await self._something_happens(link):
                await self._tell(link, [PING])

    async def _something_happens(self, link: _Link) -> bool:
        """Wait for a change; False when there was none for as long as may be."""
        try:
            async with asyncio.timeout(PING_EVERY):
                while not self._changed:
                    if link.answers:
                        refusal_of(link.answers[0])
                        raise ProtocolError("it answers what nobody asked")
                    await self._wait(link)
        except TimeoutError:
            return False
        return True

    async def _tell_changes(self, link: _Link) -> None:
        topic = next(iter(self._changed))
        changed = self._changed.pop(topic)
        there = self._broker.topics.get(topic)
        is_known = topic in self._told
        known = self._told.setdefault(topic, set())
        channels = there.channels if there is not None else {}
        candidates = {*known, *channels} if changed is None or there is None else changed
        gone = sorted(name for name in candidates if name in known and name not in channels)
        new = sorted(name for name in candidates if name in channels and name not in known)
        commands = [unregister(topic, channel) for channel in gone]
        if there is None and is_known:
            commands.append(unregister(topic))
        elif there is not None and not is_known:
            commands.append(register(topic))
        commands += [register(topic, channel) for channel in new]
        await self._tell(link, commands)
        known.difference_update(gone)
        known.update(new)
        if there is None:
            del self._told[topic]

    async def _tell(self, link: _Link, commands: Sequence[bytes]) -> None:
        """Say `commands`, each of which has to be answered OK."""
        for start in range(0, len(commands), BATCH):
            for answer in await self._ask(link, commands[start : start + BATCH]):
                if answer != OK:
                    refusal_of(answer)
                    raise ProtocolError("what it answers is not nsqlookupd's protocol")

    async def _ask(self, link: _Link, commands: Sequence[bytes]) -> list[bytes]:
        assert link.transport is not None
        link.transport.write(b"".join(commands))
        async with asyncio.timeout(PATIENCE):
            while len(link.answers) < len(commands):
                if link.failure is not None and link.answers:
                    refusal_of(link.answers[-1])  # it hung up, and has said why
                await self._wait(link)
        return [link.answers.popleft() for _ in commands]

    async def _wait(self, link: _Link) -> None:
        """Until there is something to look at; raises what ended the connection."""
        if link.failure is not None:
            raise link.failure
        await self._stirred.wait()
        self._stirred.clear()

    def _complain(self, error: Exception) -> None:
        """Say what is wrong, once until it has been right again."""
        reason = _reason(error)
        if reason not in self._complained:
            self._complained.add(reason)
            log.warning("nsqlookupd %s: %s; it is tried again until it works", self.address, reason)


def _reason(error: Exception) -> str:
    if isinstance(error, ProtocolError) and error.spoke == "HTTP":
        return "it answers HTTP: that is nsqlookupd's HTTP port, its TCP port is usually 4160"
    if isinstance(error, QtoolsError):
        return str(error)
    if isinstance(error, socket.gaierror):
        return f"its host is not known ({error.strerror})"
    if isinstance(error, TimeoutError):
        return f"no answer within {PATIENCE:g} s"
    if isinstance(error, OSError):
        return os.strerror(error.errno).lower() if error.errno else str(error)
    return f"internal error: {type(error).__name__}: {error}"

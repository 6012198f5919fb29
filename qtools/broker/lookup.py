"""Registration with nsqlookupd. In: topics and channels that are made and deleted. Out: commands to each nsqlookupd.

    connect ─▶ magic, IDENTIFY ─▶ REGISTER everything ─▶ REGISTER, UNREGISTER on changes; PING without changes
       ▲                                                             │
       └────────── a pause, longer each time ◀── connection lost, refused, no answer in time

A new topic waits until the nsqlookupds have answered which channels it has elsewhere, and makes the same channels here.
The messages published before the consumers find this broker are then for those channels too, as in nsqd.

Each nsqlookupd has its own task, so one that is down delays neither the others nor the broker. For each, only its known
state and the topics that differ from it are stored, and no history: an nsqlookupd that is down for days takes no
memory.
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
from qtools.imports import import_without_extras
from qtools.names import is_ephemeral

if TYPE_CHECKING:
    import httpx

log = logging.getLogger("qtools.broker")

PING_EVERY = 15.0  # s; nsqlookupd considers a producer gone after 5 minutes
PATIENCE = 5.0  # s for a connection, and for each batch of answers
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 15.0  # s between two tries
ASK_AT_ONCE = 32  # new topics whose channels are looked up at the same time
BATCH = 500  # commands that may wait for their answers
MOST = 64  # nsqlookupds: each needs a connection, and PUT /config can add some


def parse_lookupd(text: str) -> tuple[str, int]:
    """Split `HOST:PORT` or `[::1]:PORT` into host and port. Raises AddressInvalid."""
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
    """All nsqlookupds with which this broker is registered. tcp_port, http_port: where clients reach the broker."""

    def __init__(self, broker: Broker, tcp_port: int, http_port: int) -> None:
        self._broker = broker
        self._producer = Producer(broker.options.broadcast_address, tcp_port, http_port)
        self._peers: dict[str, Peer] = {}
        self._client: httpx.AsyncClient | None = None
        self._asking: set[asyncio.Task[None]] = set()
        self._few = asyncio.Semaphore(ASK_AT_ONCE)
        broker.on_change.append(self._changed)

    def check(self, addresses: Sequence[str]) -> None:
        """Raise UsageError when this broker cannot be registered with `addresses`."""
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
        """Register with exactly these nsqlookupds from now on. Raises UsageError when that is not possible."""
        addresses = tuple(dict.fromkeys(addresses))
        self.check(addresses)
        if addresses and self._client is None:
            import_without_extras("httpx")
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
        """Make the channels that `topic` has elsewhere, and let it deliver."""
        names: set[str] = set()
        try:
            async with asyncio.timeout(self._broker.options.http_client_request_timeout), self._few:
                answers = await asyncio.gather(*(self._channels(topic.name, place) for place in places))
            if not any(answer is not None for answer in answers):
                log.warning(
                    "%s: no nsqlookupd answers which channels the topic has elsewhere; it begins without them",
                    topic.name,
                )
            names.update(*(answer or () for answer in answers))
        except TimeoutError:
            log.warning("%s: no nsqlookupd answers in time which channels the topic has elsewhere", topic.name)
        except Exception as error:
            log.error("internal error in lookup of %s: %s: %s", topic.name, type(error).__name__, error)
        finally:
            if self._broker.topics.get(topic.name) is topic:
                for name in sorted(names):
                    if not is_ephemeral(name):  # an ephemeral channel is deleted without a client
                        self._broker.channel(topic.name, name)
                topic.go(self._broker.now(), time.time_ns())

    async def _channels(self, topic: str, place: str) -> list[str] | None:
        """The channels that one nsqlookupd knows; None when it does not answer."""
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
        """Close all connections: an nsqlookupd forgets a producer whose connection ends."""
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()

    async def close(self) -> None:
        """Wait for the tasks to end, after `stop`."""
        for task in tuple(self._asking):
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()


class _Link(asyncio.Protocol):
    """A connection to an nsqlookupd. stirred: set whenever something has changed or was received."""

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
            self.failure = exc or ConnectionError("it closed the connection")
        self._stirred.set()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class Peer:
    """One nsqlookupd, and the task that registers with it."""

    def __init__(self, broker: Broker, producer: Producer, address: str) -> None:
        self.address = address
        self.is_there = False
        self.http = ""  # its HTTP address, if it has sent one
        self._broker = broker
        self._producer = producer
        self._registered: dict[str, set[str]] = {}  # the topics and channels that it knows
        # Topics that may differ from that, and those of their channels that may; None: any channel. Comparing all
        # channels of a topic at each change would take too long with 10,000 of them.
        self._changed: dict[str, dict[str, None] | None] = {}
        self._stirred = asyncio.Event()
        self._complained: set[str] = set()  # reasons that were logged since it last worked
        self._task = asyncio.get_running_loop().create_task(self._run())

    def changed(self, topic: str, channel: str = "") -> None:
        """Note that a topic, or one channel of it, was made or deleted. Without a connection nothing is stored."""
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
                self._registered.clear()
                self._changed.clear()
            failures = 1 if loop.time() - began > LONGEST_PAUSE else failures + 1
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 16))
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # so that not all brokers reconnect at the same time

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
        """Register everything, and then each change, until an exception ends the connection."""
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
        """Wait for a change. Returns False when there was none for PING_EVERY seconds."""
        try:
            async with asyncio.timeout(PING_EVERY):
                while not self._changed:
                    if link.answers:
                        refusal_of(link.answers[0])
                        raise ProtocolError("it sends an answer without a command")
                    await self._wait(link)
        except TimeoutError:
            return False
        return True

    async def _tell_changes(self, link: _Link) -> None:
        topic = next(iter(self._changed))
        changed = self._changed.pop(topic)
        there = self._broker.topics.get(topic)
        is_known = topic in self._registered
        known = self._registered.setdefault(topic, set())
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
            del self._registered[topic]

    async def _tell(self, link: _Link, commands: Sequence[bytes]) -> None:
        """Send `commands`, and wait for an OK to each."""
        for start in range(0, len(commands), BATCH):
            for answer in await self._ask(link, commands[start : start + BATCH]):
                if answer != OK:
                    refusal_of(answer)
                    raise ProtocolError("its answer is not nsqlookupd's protocol")

    async def _ask(self, link: _Link, commands: Sequence[bytes]) -> list[bytes]:
        assert link.transport is not None
        link.transport.write(b"".join(commands))
        async with asyncio.timeout(PATIENCE):
            while len(link.answers) < len(commands):
                if link.failure is not None and link.answers:
                    refusal_of(link.answers[-1])  # it has closed the connection and sent the reason
                await self._wait(link)
        return [link.answers.popleft() for _ in commands]

    async def _wait(self, link: _Link) -> None:
        """Wait until something has changed or was received. Raises the error that ended the connection."""
        if link.failure is not None:
            raise link.failure
        await self._stirred.wait()
        self._stirred.clear()

    def _complain(self, error: Exception) -> None:
        """Log an error, once until the connection has worked again."""
        reason = _reason(error)
        if reason not in self._complained:
            self._complained.add(reason)
            log.warning("nsqlookupd %s: %s; retrying until it works", self.address, reason)


def _reason(error: Exception) -> str:
    if isinstance(error, ProtocolError) and error.looks_like == "HTTP":
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

"""A gateway before a broker, their clients, and an account of what they owe. In: what happens. Out: what is wrong.

    must    confirmed to a publisher, and finished by no subscriber: has to be in the channel
    may     published without an answer; read with ack=auto; finished with ack=client: may be in the channel or not
    gone    was in `may`, and not in the channel at a check: may not come again, unless kill -9 of the broker forgot it

Every client is a bare socket. What a subscriber's kernel has is read before its account is closed, so that a message
which no client has read was not sent. The channel is looked into with /channel/peek, which delivers nothing.
"""

from __future__ import annotations

import json
import random
import re
import select
import signal
import socket
import struct
import time
from dataclasses import dataclass, field

from harness.brokers import Broker
from harness.gateway import Gateway
from harness.shell import Shell
from harness.waiting import wait_until

from tests.pubsub_http.hang_ups import UPGRADE

CHANNELS = ("one", "two")
TOPIC = "model"
PATIENCE = 20.0  # s
_BODY = re.compile(rb"m-(\d{6});")
_ENVELOPE = re.compile(rb'"id":"(\w{16})"[^\n]*?"body":"m-(\d{6});"')
_SESSION = re.compile(rb"q-session: (\S+)\r\n")


@dataclass
class Account:
    """One channel's messages, by their numbers."""

    must: set[int] = field(default_factory=set)
    may: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)
    taken: set[int] = field(default_factory=set)  # read with ack=auto, or finished
    unsafe: set[int] = field(default_factory=set)  # of `gone`: since the broker was stopped in order for the last time


class Client:
    """A connection to the gateway."""

    def __init__(self, port: int, request: bytes) -> None:
        self.data = bytearray()
        self.ended = False
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.sendall(request)

    def read(self, seconds: float) -> None:
        """Read what comes for so long, or until the end."""
        deadline = time.monotonic() + seconds
        while not self.ended and select.select([self.socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
            try:
                chunk = self.socket.recv(1 << 16)
            except ConnectionError:
                chunk = b""
            self.data += chunk
            self.ended = not chunk

    def end(self, frame: bytes = b"") -> None:
        """Hang up in order, by a `frame` or the end of this side, and read to the end."""
        try:
            if frame:
                self.socket.sendall(frame)
            else:
                self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the gateway's side is gone
        self.read(PATIENCE)
        self.socket.close()
        assert self.ended, "the gateway does not close a connection whose client has hung up"

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Publish(Client):
    """One request with messages; its answer comes when it comes."""

    def __init__(self, port: int, path: str, numbers: range) -> None:
        self.numbers = numbers
        body = b"\n".join(b"m-%06d;" % number for number in numbers)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        super().__init__(port, head.encode() + body)

    @property
    def is_answered(self) -> bool:
        return self.ended or b"\r\n\r\n" in self.data

    @property
    def is_confirmed(self) -> bool:
        return self.data.startswith(b"HTTP/1.1 200 ")


class Subscriber(Client):
    """A stream, an event stream, a WebSocket, or one message."""

    def __init__(self, port: int, kind: str, channel: str, acks: bool, form: str, in_flight: int, count: int) -> None:
        self.kind, self.channel, self.acks, self.count = kind, channel, acks, count
        self.held: dict[int, str] = {}  # with ack=client: number → id
        self._seen = 0
        path = f"/message?wait=1&topic={TOPIC}&channel={channel}"
        if kind != "message":
            ack = "client" if acks else "auto"
            path = f"/sub?topic={TOPIC}&channel={channel}&format={form}&ack={ack}&max_in_flight={in_flight}"
        if count:  # when it has ended in order, its session stays for so long
            path += f"&count={count}&msg_timeout=2000"
        upgrade = UPGRADE if kind == "websocket" else ""
        super().__init__(port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n".encode())

    def new(self) -> list[int]:
        """The numbers of the messages that were read since the last call."""
        found = list((_ENVELOPE if self.acks else _BODY).finditer(self.data, self._seen))
        if found:
            self._seen = found[-1].end()
        if self.acks:
            self.held.update((int(each[2]), each[1].decode()) for each in found)
            return [int(each[2]) for each in found]
        return [int(each[1]) for each in found]

    @property
    def may_acknowledge(self) -> bool:
        return bool(self.held and not self.ended and (self.kind == "websocket" or self.session))

    @property
    def session(self) -> str:
        found = _SESSION.search(self.data)
        return found[1].decode() if found else ""


def frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame, masked with zeros (RFC 6455, 5.2)."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size)
    return bytes([0x80 | opcode]) + length + b"\0\0\0\0" + payload


class World:
    """`wrong` collects what contradicts the account."""

    def __init__(self, shell: Shell, broker: Broker, chance: random.Random, *flags: str) -> None:
        self.broker = broker
        self.chance = chance
        self.accounts = {channel: Account() for channel in CHANNELS}
        self.subscribers: list[Subscriber] = []
        self.publishes: list[Publish] = []
        self.wrong: list[str] = []
        self.delivered = self.finished = self.checks = 0
        self._shell = shell
        self._flags = flags
        self._next = 0
        self._repeated: set[int] = set()  # whose publish was under way at a restart: the broker may have it twice
        self._killed = False  # the gateway, since the last check: what it held comes again when the broker's time is up
        self._timed_out = dict.fromkeys(CHANNELS, 0)
        self.gateway = Gateway(shell, broker, *flags)
        broker.create(TOPIC, *CHANNELS)

    # ── publishers ──

    def publish(self) -> None:
        numbers = range(self._next, self._next + self.chance.choice([1, 1, 1, 5, 30]))
        self._next = numbers.stop
        path = f"/mpub?topic={TOPIC}"
        if len(numbers) == 1:
            defer = self.chance.choice(["", "", f"&defer={self.chance.randint(1, 200)}"])
            path = f"/pub?topic={TOPIC}{defer}"
        for account in self.accounts.values():
            account.may.update(numbers)
        self.publishes.append(Publish(self.gateway.port, path, numbers))

    def collect(self, seconds: float = 0.0) -> None:
        """Take note of the publishes that were answered."""
        left = []
        for publish in self.publishes:
            deadline = time.monotonic() + seconds
            while not publish.is_answered and (remaining := deadline - time.monotonic()) > 0:
                publish.read(min(remaining, 0.01))
            publish.read(0)
            if not publish.is_answered:
                left.append(publish)
                continue
            publish.socket.close()
            if publish.is_confirmed:
                for account in self.accounts.values():
                    sure = set(publish.numbers) & account.may - account.taken
                    account.must |= sure
                    account.may -= sure
            else:
                self._repeated.update(publish.numbers)
        self.publishes = left

    # ── subscribers ──

    def subscribe(self) -> None:
        kind = self.chance.choice(["stream", "events", "websocket", "message"])
        acks = kind != "message" and self.chance.random() < 0.5
        form = "sse" if kind == "events" else "envelope"
        if kind in ("stream", "websocket") and not acks:
            form = self.chance.choice(["raw", "msgpack", "envelope"])
        in_flight = self.chance.choice([1, 3, 20, 500])
        channel = self.chance.choice(CHANNELS)
        count = self.chance.choice([0, 1, 5]) if acks else 0
        self.subscribers.append(Subscriber(self.gateway.port, kind, channel, acks, form, in_flight, count))

    def read(self, subscriber: Subscriber, seconds: float) -> None:
        self.collect()
        subscriber.read(seconds)
        self._take(subscriber)

    def _take(self, subscriber: Subscriber) -> None:
        account = self.accounts[subscriber.channel]
        self.collect()
        for number in subscriber.new():
            self.delivered += 1
            if number in account.gone:
                self.wrong.append(f"{number} was finished, and came again in {subscriber.channel}")
            elif number not in account.must and number not in account.may:
                self.wrong.append(f"{number} was never published, and came in {subscriber.channel}")
            elif not subscriber.acks:
                account.must.discard(number)
                account.may.add(number)
                account.taken.add(number)

    def hang_up(self, subscriber: Subscriber) -> None:
        self.subscribers.remove(subscriber)
        if subscriber.acks and self.chance.random() < 0.5:
            subscriber.read(0)
            self._take(subscriber)
            subscriber.reset()
            return
        by_frame = subscriber.kind == "websocket" and b"\r\n\r\n" in subscriber.data and self.chance.random() < 0.5
        subscriber.end(frame(8, struct.pack(">H", 1000)) if by_frame else b"")
        self._take(subscriber)

    def acknowledge(self, subscriber: Subscriber) -> None:
        """Finish some of what is held, requeue or touch some."""
        word = self.chance.choice(["finish", "finish", "requeue", "touch"])
        count = self.chance.randint(1, len(subscriber.held))
        some = dict(self.chance.sample(sorted(subscriber.held.items()), count))
        account = self.accounts[subscriber.channel]
        sure = some.keys() & account.must
        if word == "finish":
            account.must -= sure
            account.may |= sure
            account.taken.update(some)  # perhaps before its publish was answered
            self.finished += len(some)
        if word != "touch":
            for number in some:
                del subscriber.held[number]
        delay = self.chance.choice([0, 50]) if word == "requeue" else 0
        if subscriber.kind == "websocket":
            command = {word: list(some.values())} | ({"delay": delay} if delay else {})
            subscriber.socket.sendall(frame(1, json.dumps(command).encode()))
            return  # its answer is among the messages
        more = {"delay": delay} if delay else {}
        answer = self.gateway.post(f"/{word}", "\n".join(some.values()).encode(), session=subscriber.session, **more)
        if answer.status_code != 200 and not subscriber.ended and not subscriber.count:
            self.read(subscriber, 0.2)  # the gateway may have ended the stream meanwhile
            if not subscriber.ended:
                self.wrong.append(f"{word} was answered {answer.status_code} {answer.text}")
        if word == "finish" and answer.status_code == 200:
            told = answer.json()
            if told["finished"] + len(told["unknown"]) != len(some):
                self.wrong.append(f"{told} was answered to {len(some)} ids")
            unknown = {number for number in sure if some[number] in told["unknown"]}
            account.must |= unknown
            account.may -= unknown

    # ── restarts ──

    def restart_gateway(self) -> None:
        number = self.chance.choice([signal.SIGKILL, signal.SIGTERM])
        self._killed = self._killed or number == signal.SIGKILL
        self.gateway.process.signal(number)
        self.gateway.process.wait()
        for subscriber in self.subscribers:
            subscriber.end()
            self._take(subscriber)
        self.subscribers.clear()
        self.collect(PATIENCE)
        self.gateway.close()
        self.gateway = Gateway(self._shell, self.broker, *self._flags)

    def restart_broker(self) -> None:
        self.collect()
        for publish in self.publishes:
            self._repeated.update(publish.numbers)
        kill = self.chance.random() < 0.5
        (self.broker.kill if kill else self.broker.stop)()
        self._timed_out = dict.fromkeys(CHANNELS, 0)
        for account in self.accounts.values():
            if kill:
                account.gone -= account.unsafe
                account.may |= account.unsafe
            account.unsafe.clear()
        self.broker.start()

    # ── the account ──

    def check(self) -> None:
        """Let every client go, and hold each channel against its account."""
        self.collect(PATIENCE)
        if self.publishes:
            self.wrong.append(f"{len(self.publishes)} publishes were not answered")
        for subscriber in list(self.subscribers):
            self.hang_up(subscriber)
        for channel, account in self.accounts.items():
            wait_until(lambda channel=channel: self._is_quiet(channel), PATIENCE, lambda: self.broker.stats(TOPIC))
            timed_out = self.broker.depth(TOPIC, channel).timed_out
            if timed_out > self._timed_out[channel] and not self._killed:
                self.wrong.append(f"something that a client left in {channel} did not go back at once")
            self._timed_out[channel] = timed_out
            status, answer = self.broker.ask("GET", f"/channel/peek?topic={TOPIC}&channel={channel}&count=10000")
            assert status == 200, answer
            there = [int(one["body"][2:-1]) for one in json.loads(answer)["messages"]]
            found = set(there)
            if lost := account.must - found:
                self.wrong.append(f"lost in {channel}: {sorted(lost)}")
            if again := found - account.must - account.may:
                self.wrong.append(f"finished or never published, and in {channel}: {sorted(again)}")
            if len(there) > len(found) and (twice := {n for n in found if there.count(n) > 1} - self._repeated):
                self.wrong.append(f"twice in {channel}: {sorted(twice)}")
            gone = account.may - found - self._repeated
            account.may -= gone | found
            account.gone |= gone
            account.unsafe |= gone
            account.must = found
        self._killed = False
        self.checks += 1
        assert not self.wrong, self.wrong

    def _is_quiet(self, channel: str) -> bool:
        depth = self.broker.depth(TOPIC, channel)
        return not (depth.in_flight or depth.deferred or depth.clients)

    def drain(self) -> None:
        """Everything that is owed is delivered through the gateway."""
        for channel, account in self.accounts.items():
            answer = self.gateway.get(
                "/sub", topic=TOPIC, channel=channel, format="raw", until_empty="true", timeout=20
            )
            came = {int(body[1]) for body in _BODY.finditer(answer.content)}
            assert came == account.must, (channel, came ^ account.must)
            self.broker.wait_held(TOPIC, channel, 0)

    def close(self) -> None:
        for client in [*self.subscribers, *self.publishes]:
            client.socket.close()
        self.gateway.close()


def wander(world: World, steps: int) -> None:
    """Live: everything that can happen, in any order."""
    chance = world.chance
    for _ in range(steps):
        what = chance.random()
        holding = [subscriber for subscriber in world.subscribers if subscriber.may_acknowledge]
        if what < 0.3:
            world.publish()
        elif what < 0.45 and len(world.subscribers) < 8:
            world.subscribe()
        elif what < 0.6 and holding:
            world.acknowledge(chance.choice(holding))
        elif what < 0.7 and world.subscribers:
            world.hang_up(chance.choice(world.subscribers))
        elif world.subscribers:
            world.read(chance.choice(world.subscribers), chance.choice([0.0, 0.01, 0.05]))

"""A broker on a durable store, its clients, and an account of what it owes them. In: what happens. Out: what is wrong.

    confirmed   a message whose commit was settled without an error: it may not be lost
    finished    by a client; `safe` once the store had nothing left to write: then it may not come again
    deliveries  how often the broker handed it over, so that the attempts it tells can be checked

A crash is a copy of the files, taken between two transactions, with everything that was in memory forgotten.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from broker.inside import come_true
from qtools.broker.core.broker import Broker
from qtools.broker.core.channel import Channel
from qtools.broker.core.consumer import ChannelConsumer
from qtools.broker.disk.retention import Retain
from qtools.broker.disk.store import DurableStore
from qtools.broker.options import Options
from qtools.engines.nsq.protocol.client_commands import Finish
from qtools.engines.nsq.protocol.commands import fin
from qtools.engines.nsq.protocol.frames import FrameReader
from qtools.message import Message

SLOPPY = 0.02  # s: how exactly two clocks are compared


@dataclass
class Owed:
    """What a channel owes of one message."""

    deliveries: int = 0
    finished: bool = False
    safe: bool = False
    unsure: bool = False  # finished, and perhaps forgotten in a crash
    not_before: float = 0.0  # wall clock, s


@dataclass
class Account:
    """One channel's messages, by their bodies."""

    owed: dict[bytes, Owed] = field(default_factory=dict)
    perhaps: set[bytes] = field(default_factory=set)  # published, and never confirmed

    @property
    def open(self) -> set[bytes]:
        return {body for body, owed in self.owed.items() if not owed.finished}


class Client:
    """Takes what it is given, and keeps the account."""

    def __init__(self, world: World, channel: Channel, account: Account, ready: int, msg_timeout: float) -> None:
        self.world = world
        self.channel = channel
        self.account = account
        self.holds: dict[bytes, bytes] = {}  # id → body
        self._frames = FrameReader()
        self.consumer = ChannelConsumer(self, msg_timeout=msg_timeout)
        self.consumer.room = 1 << 30
        channel.add(self.consumer)
        self.consumer.ready = ready
        channel.schedule(self.consumer)

    def deliver(self, frames: bytes) -> int:
        messages, _ = self._frames.read(frames)
        for message in messages:
            try:
                self._took(message)
            except AssertionError as error:  # the broker would log it, and go on
                self.world.wrong.append(str(error))
                self.holds[message.id] = message.body
        return 1 << 30

    def _took(self, message: Message) -> None:
        body = message.body
        owed = self.account.owed.get(body)
        if owed is None:
            assert body in self.account.perhaps, f"{body!r} is not for {self.channel}"
            owed = self.account.owed[body] = Owed()
        assert not owed.safe, f"{body!r} was finished, and written, and came again"
        assert time.time() >= owed.not_before - SLOPPY, f"{body!r} came too early"
        owed.deliveries += 1
        if self.world.exact:
            assert message.attempts == owed.deliveries, f"{body!r} tells {message.attempts}, was {owed.deliveries}"
        else:
            assert message.attempts <= owed.deliveries, f"{body!r} tells {message.attempts} of {owed.deliveries}"
            owed.deliveries = message.attempts
        owed.finished = owed.unsure = False
        self.holds[message.id] = body

    def close_after_responses(self) -> None:
        self.holds.clear()

    def finish(self, idents: list[bytes]) -> None:
        for ident in idents:
            self.account.owed[self.holds.pop(ident)].finished = True
        if idents:
            assert self.channel.finish_lines(self.consumer, Finish(fin(idents))) == []

    def requeue(self, ident: bytes, delay: float) -> None:
        self.account.owed[self.holds.pop(ident)].not_before = time.time() + delay
        assert self.channel.requeue(self.consumer, ident, delay, self.world.broker.now()) == ""

    def leave(self) -> None:
        """What it held comes again when its time is up."""
        self.holds.clear()
        self.world.broker.unsubscribe(self.channel, self.consumer)


class World:
    """In: a directory for everything. `exact`: whether nothing was forgotten so far that has to do with attempts."""

    def __init__(self, room: Path, **settings: Any) -> None:
        self.room = room
        self.settings = {"sync": "off", "memory_messages": 50} | settings
        self.lives = 0
        self.exact = True
        self.accounts: dict[tuple[str, str], Account] = {}
        self.held: dict[str, Account] = {}  # of topics that are paused, or have no channel
        self.paused: set[str] = set()
        self.late: dict[tuple[str, str], set[bytes]] = {}  # held before the channel was made: it may get it or not
        self.clients: list[Client] = []
        self.commits: list[tuple[Any, list[bytes], list[Account], float]] = []
        self.numbers = 0
        self.refused = 0  # publishes
        self.wrong: list[str] = []
        self.open_()

    @property
    def directory(self) -> Path:
        return self.room / f"life-{self.lives}"

    def open_(self) -> None:
        self.directory.mkdir(exist_ok=True)
        self.store = DurableStore(self.directory, **self.settings)
        self.broker = Broker(Options(max_req_timeout=3600), self.store)

    # ── what happens ──

    def publish(self, topic: str, count: int, size: int = 20, delay: float = 0.0) -> None:
        bodies = [b"%d %s" % (self.numbers + n, b"x" * size) for n in range(count)]
        self.numbers += count
        accounts = [account for (name, _), account in self.accounts.items() if name == topic]
        if not accounts or topic in self.paused:
            accounts = [self.held.setdefault(topic, Account())]
        for account in accounts:
            account.perhaps.update(bodies)
        commit = self.broker.publish(topic, bodies, round(delay * 1000))
        self.commits.append((commit, bodies, accounts, time.time() + delay if delay else 0.0))

    async def channel(self, topic: str, name: str) -> None:
        """A new channel, on disk when this returns."""
        await self.quiet()  # what is published, and not safe yet, may go to it as well
        self.accounts[topic, name] = Account()
        if topic not in self.paused:
            self._pour(topic)
        elif any(known == topic for known, _ in self.accounts if (known, _) != (topic, name)):
            held = self.held.get(topic, Account())
            self.late[topic, name] = set(held.owed) | held.perhaps
        self.broker.channel(topic, name)
        commit = self.store.pending
        assert commit is not None
        self.store.on_work()
        await come_true(lambda: commit.done)
        if commit.error is not None:
            await self.quiet()  # it is tried again until it works

    async def delete_channel(self, topic: str, name: str) -> None:
        for client in [one for one in self.clients if (one.channel.topic, one.channel.name) == (topic, name)]:
            self.clients.remove(client)
        await self.quiet()
        del self.accounts[topic, name]
        self.broker.delete_channel(self.broker.topics[topic], name)
        await self.quiet()

    async def pause(self, topic: str) -> None:
        await self.quiet()
        self.paused.add(topic)
        self.broker.topic(topic).pause(self.broker.now(), time.time_ns())
        await self.quiet()

    async def unpause(self, topic: str) -> None:
        await self.quiet()
        self.paused.discard(topic)
        if any(known == topic for known, _ in self.accounts):
            self._pour(topic)
        self.broker.topic(topic).unpause(self.broker.now(), time.time_ns())
        await self.quiet()

    def _pour(self, topic: str) -> None:
        """What the topic holds is for all its channels."""
        held = self.held.pop(topic, Account())
        for (name, channel), account in self.accounts.items():
            if name == topic:
                late = self.late.pop((topic, channel), set())
                owed = {body: replace(owed) for body, owed in held.owed.items() if body not in late}
                account.owed.update(owed)
                account.perhaps |= held.perhaps | late

    def subscribe(self, topic: str, name: str, ready: int, msg_timeout: float = 60.0) -> Client:
        channel = self.broker.topics[topic].channels[name]
        client = Client(self, channel, self.accounts[topic, name], ready, msg_timeout)
        self.clients.append(client)
        return client

    def settle(self) -> None:
        """Count what was confirmed since the last call."""
        left = []
        for entry in self.commits:
            commit, bodies, accounts, not_before = entry
            if not commit.done:
                left.append(entry)
            elif commit.error is None:
                for account in accounts:
                    for body in bodies:
                        owed = account.owed.setdefault(body, Owed())
                        owed.not_before = max(owed.not_before, not_before if not owed.deliveries else 0.0)
                    account.perhaps.difference_update(bodies)
            else:
                self.refused += 1
                for account in accounts:
                    account.perhaps.difference_update(bodies)  # nothing of it may ever come
        self.commits = left

    async def quiet(self) -> None:
        """Until everything is written. What was finished until now stays finished."""
        store = self.store
        await come_true(lambda: store.is_idle)
        await come_true(lambda: all(entry[0].done for entry in self.commits))
        self.settle()
        self._is_safe()

    def _is_safe(self) -> None:
        for account in self.accounts.values():
            for owed in account.owed.values():
                owed.safe = owed.finished and not owed.unsure

    # ── it ends, and begins again ──

    def restart(self) -> None:
        """In order: nothing is forgotten, and nothing comes twice that was finished."""
        self.restart_with(lambda directory: None)

    def restart_with(self, change: Callable[[Path], None]) -> None:
        """The same; `change(directory)` does something to the files meanwhile."""
        for client in self.clients:
            self.broker.unsubscribe(client.channel, client.consumer)
        self.broker.close()
        self._bury()
        self.settle()
        self._is_safe()
        self._forget()
        change(self.directory)
        self.open_()

    async def crash(self) -> None:
        """As by kill -9."""
        self.settle()
        before = self.directory
        copied = asyncio.Event()
        after = self.room / f"life-{self.lives + 1}"

        failed: list[Exception] = []

        def done(_: object, error: Exception | None) -> None:
            failed.extend([error] if error is not None else [])
            self.settle()  # now: what is confirmed or delivered later is not in the copy
            self._bury()
            copied.set()

        # In the writer's thread, so that no transaction is under way. The reserve comes and goes without it.
        leave_out = shutil.ignore_patterns("reserve")
        self.store.writer.do(lambda _: shutil.copytree(before, after, ignore=leave_out), done)
        await copied.wait()
        assert not failed, failed
        self.exact = False  # what was delivered last may not have been noted
        for account in self.accounts.values():
            for owed in account.owed.values():
                owed.unsure = owed.finished and not owed.safe
                if owed.deliveries:
                    owed.not_before = 0.0  # that it was put off may not have been noted
        old = self.store
        old.close()
        shutil.rmtree(before)
        self._forget()
        self.lives += 1
        self.open_()

    def _bury(self) -> None:
        """The old broker does nothing any more, as its process would not."""
        self.broker._guard = lambda what, *args: None  # type: ignore[method-assign]
        self.store.on_work = lambda: None

    def _forget(self) -> None:
        for entry in self.commits:
            entry[0].waiters.clear()
        self.commits.clear()
        self.clients.clear()

    # ── what is left ──

    async def drain(self) -> None:
        """Everything that is owed is delivered, once more at most, and nothing stays on disk."""
        await self.quiet()
        for client in self.clients:
            client.leave()
        self.clients.clear()
        for (topic, name), account in self.accounts.items():
            channel = self.broker.topics[topic].channels[name]
            channel.close()  # who left may have had something in flight, for a minute to come
            client = self.subscribe(topic, name, 37)

            def emptied(client: Client = client, channel: Channel = channel) -> bool:
                if client.holds:
                    client.finish(list(client.holds))
                return not channel.held

            await come_true(emptied, 12.0)
            client.leave()
            assert not account.open, f"never came to {channel}: {sorted(account.open)[:5]}"
        assert not self.wrong, self.wrong[:3]
        await self.quiet()
        with sqlite3.connect(self.directory / "messages.db") as connection:
            blocks: dict[str, set[bytes]] = {}
            for name, frames in connection.execute(
                "SELECT name, frames FROM block JOIN topic ON topic.id = block.topic"
            ):
                blocks.setdefault(name, set()).update(message.body for message in FrameReader().read(frames)[0])
            for name in blocks.keys() | self.held.keys():
                held, stored = self.held.get(name, Account()), blocks.get(name, set())
                lost, extra = held.owed.keys() - stored, stored - held.owed.keys() - held.perhaps
                assert not lost, f"confirmed, and not on disk: {name} {sorted(lost)[:5]}"
                # A broker that ended before it confirmed a transaction may have written it all the same.
                assert not extra, f"on disk, and no channel needs it: {name} {sorted(extra)[:5]}"
            assert connection.execute("SELECT count(*) FROM progress").fetchone() == (0,)
        connection.close()
        assert self.store.budget.used == 0

    def close(self) -> None:
        self.broker.close()


async def wander(world: World, chance: random.Random, steps: int) -> None:
    """Live: everything that can happen, in any order."""
    topics = ["t", "u"]
    for step in range(steps):
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        what = chance.random()
        known = list(world.accounts)
        topic = chance.choice(topics)
        if what < 0.35:
            delay = chance.choice([0.0] * 4 + [0.03, 0.4])
            world.publish(topic, chance.choice([1, 1, 3, 40, 200]), chance.choice([1, 20, 2000]), delay)
        elif what < 0.38 and len(known) < 5:
            await world.channel(topic, f"c{step}")
        elif what < 0.39 and len(known) > 2:
            await world.delete_channel(*chance.choice(known))
        elif what < 0.45 and known:
            world.subscribe(*chance.choice(known), chance.choice([1, 10, 300]), chance.choice([0.05, 60.0]))
        elif what < 0.80 and world.clients:
            client = chance.choice(world.clients)
            some = [ident for ident in client.holds if client.consumer.has(ident)]
            client.holds = {ident: client.holds[ident] for ident in some}  # the others have timed out
            if chance.random() < 0.5:
                chance.shuffle(some)
            client.finish(some[: chance.randrange(len(some) + 1)])
            many = 3 if chance.random() < 0.8 else 100
            for ident in list(client.holds)[: chance.randrange(many)]:
                client.requeue(ident, chance.choice([0.0, 0.0, 0.02, 0.4, 2.5 if chance.random() < 0.02 else 0.01]))
        elif what < 0.84 and world.clients:
            client = world.clients.pop(chance.randrange(len(world.clients)))
            client.leave()
        elif what < 0.90:
            await world.quiet()
        elif what < 0.93:
            world.restart()
        elif what < 0.96:
            await world.crash()
        elif what < 0.98:
            await (world.unpause if topic in world.paused else world.pause)(topic)
    for topic in sorted(world.paused):
        await world.unpause(topic)
    await world.drain()


KEEP = Retain(age=3600.0)

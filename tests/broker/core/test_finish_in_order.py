"""Clients that finish in order are served without looking at ids: with the same outcome as one by one, whatever comes.

Two channels live the same life; one is told what is finished by ids, the other by the lines that a client sends.
"""

from __future__ import annotations

import random

import pytest

from qtools.broker.core.channel import NOT_IN_FLIGHT, NOT_THE_OWNER, Channel
from qtools.broker.core.consumer import ChannelConsumer
from qtools.engines.nsq.protocol.client_commands import Finish
from qtools.engines.nsq.protocol.commands import fin

from ..house import House, Reader, consume, ids

BOGUS = b"f" * 16


class Life:
    """A channel with two clients, and what they have."""

    def __init__(self, by_lines: bool) -> None:
        self.by_lines = by_lines
        self.house = House()
        self.topic = self.house.topic()
        self.channel: Channel = self.house.channel(self.topic)
        self.clients: list[tuple[ChannelConsumer, Reader]] = []
        self.held: list[list[bytes]] = []
        for _ in range(2):
            self.join()

    def join(self, ready: int = 20) -> None:
        self.clients.append(consume(self.channel, ready=ready, msg_timeout=10))
        self.held.append([])

    def turn(self) -> list[list[bytes]]:
        """What each client gets."""
        self.house.turn()
        came = []
        for held, (_, reader) in zip(self.held, self.clients, strict=True):
            messages = reader.take()
            held += ids(messages)
            came.append([b"%d %b %b" % (message.attempts, message.id, message.body) for message in messages])
        return came

    def finish(self, who: int, idents: list[bytes]) -> list[tuple[bytes, str]]:
        consumer = self.clients[who][0]
        self.held[who] = [ident for ident in self.held[who] if ident not in idents]
        if self.by_lines:
            return self.channel.finish_lines(consumer, Finish(fin(idents)))
        return self.channel.finish(consumer, idents)

    def counts(self) -> list[int]:
        channel = self.channel
        told = [channel.depth, channel.in_flight, channel.deferred, channel.requeued, channel.timed_out]
        for consumer, _ in self.clients:
            told += [consumer.in_flight, consumer.window, consumer.sent, consumer.finished]
        return told


@pytest.mark.parametrize("seed", range(60))
def test_both_lives_are_the_same(seed: int) -> None:
    chance = random.Random(seed)
    lives = [Life(by_lines) for by_lines in (False, True)]
    tidy = seed % 3 == 0  # mostly in order, as real clients are

    def both(what: str, *args: object) -> None:
        first, second = (getattr(life, what)(*args) for life in lives)
        assert first == second
        assert lives[0].counts() == lives[1].counts()

    for _ in range(300):
        who = chance.randrange(2)
        held = lives[0].held[who]
        kind = chance.random() * (0.72 if tidy and chance.random() < 0.97 else 1)
        if kind < 0.25:
            bodies = [b"%d" % chance.randrange(1000) for _ in range(chance.choice([1, 1, 3, 30]))]
            for life in lives:
                life.house.publish(life.topic, *bodies)
            both("turn")
        elif kind < 0.6 and held:
            both("finish", who, held[: chance.randrange(1, len(held) + 1)])
            both("turn")
        elif kind < 0.72 and held:
            both("finish", who, held[:1])
        elif kind < 0.78 and held:
            both("finish", who, chance.sample(held, chance.randrange(1, len(held) + 1)))
        elif kind < 0.82:
            others = lives[0].held[1 - who][:2]
            both("finish", who, [*held[:3], BOGUS, *others, *held[2:5]])
        elif kind < 0.88 and held:
            ident, delay = chance.choice(held), chance.choice([0.0, 3.0])
            for life in lives:
                life.held[who].remove(ident)
                consumer = life.clients[who][0]
                now = life.house.now
                assert life.channel.requeue(consumer, ident, delay, now) in ("", NOT_IN_FLIGHT, NOT_THE_OWNER)
            both("turn")
        elif kind < 0.92 and held:
            for life in lives:
                life.channel.touch(life.clients[who][0], held[len(held) // 2], life.house.now)
        elif kind < 0.97:
            for life in lives:
                life.house.pass_time(4.0)
            both("turn")
        elif kind < 0.98:
            for life in lives:
                life.channel.empty()
            both("turn")
        else:
            for life in lives:
                life.clients[who][0].ready = 20
                life.channel.schedule(life.clients[who][0])
            both("turn")
    for life in lives:
        life.house.pass_time(30.0)
    both("turn")
    while any(life.channel.held for life in lives):
        for who in range(2):
            if lives[0].held[who]:
                both("finish", who, list(lives[0].held[who]))
        both("turn")


def test_order_costs_no_ids_and_comes_back_after_disorder() -> None:
    life = Life(by_lines=True)
    consumer = life.clients[0][0]
    life.channel.remove(life.clients.pop()[0])
    life.held.pop()
    life.house.publish(life.topic, *[b"x"] * 12)
    life.turn()
    life.finish(0, life.held[0][:5])
    assert not consumer._by_id
    life.finish(0, life.held[0][::-1][:2])
    assert len(consumer._by_id) == consumer.in_flight == 5
    life.house.publish(life.topic, *[b"y"] * 3)
    life.turn()
    assert len(consumer._by_id) == consumer.in_flight == 8
    life.finish(0, list(life.held[0]))
    life.house.publish(life.topic, *[b"z"] * 3)
    life.turn()
    assert not consumer._by_id
    assert consumer.in_flight == 3


def test_lines_of_which_one_is_wrong_finish_the_others() -> None:
    life = Life(by_lines=True)
    life.house.publish(life.topic, *[b"x"] * 10)
    life.turn()
    mine, theirs = life.held
    assert len(mine) == len(theirs) == 5
    assert life.finish(0, [*mine[:2], BOGUS, theirs[0], *mine[2:]]) == [
        (BOGUS, NOT_IN_FLIGHT),
        (theirs[0], NOT_THE_OWNER),
    ]
    assert life.channel.in_flight == 5

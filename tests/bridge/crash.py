"""The crash proof: numbered messages under way, and somebody on the way killed again and again with SIGKILL.

    source broker ─▶ q-bridge ─▶ destination broker        victims: "bridge", "source", "destination", in turn

In: how many messages, whom to kill, how often. Out: what arrived. A victim is killed as soon as a share of the messages
drawn at random has gone through, and is started again at once, on its ports and with its data.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from harness.brokers import Broker
from harness.shell import Running, Shell
from harness.waiting import wait_until

CHANNEL = "q-bridge"
OUT = "out"


@dataclass(slots=True)
class Outcome:
    """What arrived: how often each message did."""

    sent: int
    arrived: Counter[bytes]
    killed: Counter[str]
    under_way: list[int]  # how many messages were not finished at each kill

    @property
    def lost(self) -> int:
        return self.sent - len(self.arrived)

    @property
    def in_the_middle(self) -> int:
        """How many of the kills found work under way."""
        return sum(left > 0 for left in self.under_way)

    @property
    def duplicates(self) -> int:
        return self.arrived.total() - len(self.arrived)

    def __str__(self) -> str:
        kills = ", ".join(f"{name} {count} times" for name, count in self.killed.items())
        return f"{self.sent:,} messages, killed: {kills}; lost {self.lost:,}, twice or more {self.duplicates:,}"


class Crash:
    """A bridge between two brokers, which it may lose, and which may lose it."""

    def __init__(self, shell: Shell, source: Broker, destination: Broker, topic: str, *, seed: int, rate: int) -> None:
        self.shell = shell
        self.source = source
        self.destination = destination
        self.topic = topic
        self.rate = rate  # messages/s, so that a kill finds it in the middle of the work
        self.draw = random.Random(seed)
        self.bridge = self.start()

    def start(self) -> Running:
        words = ["--to", OUT, "--to-nsqd", self.destination.address, "--max-in-flight", "1000", "--quiet"]
        words += ["--rate", str(self.rate)]
        return self.shell.start("q-bridge", self.topic, *words, *self.source.flags)

    @property
    def left(self) -> int:
        """Messages that are not finished."""
        return self.source.depth(self.topic, CHANNEL).held

    def kill(self, victim: str) -> None:
        if victim == "bridge":
            self.bridge.process.kill()
            self.bridge.process.wait()
            self.bridge = self.start()
        else:
            broker = self.source if victim == "source" else self.destination
            broker.kill()
            broker.start()

    def run(self, count: int, victims: Sequence[str], kills: int) -> Outcome:
        """Send `count` messages through, killing one of the victims after the other, `kills` times in all."""
        bodies = [b'"%08d"' % number for number in range(count)]
        killed: Counter[str] = Counter()
        under_way: list[int] = []
        share = count // kills
        for nth, victim in enumerate(islice(cycle(victims), kills)):
            begin = nth * share
            self.source.fill(self.topic, bodies[begin : count if nth == kills - 1 else begin + share])
            held = self.left
            threshold = self.draw.randrange(held // 4, held) if held else 0
            wait_until(lambda most=threshold: self.left <= most, 60, lambda: f"{self.left} are left; {self.bridge.err}")
            under_way.append(self.left)
            self.kill(victim)
            killed[victim] += 1
        wait_until(lambda: not self.left, 120, lambda: f"{self.left} are left; {self.bridge.err}")
        self.source.wait_clients(self.topic, CHANNEL)
        self.bridge.signal(15)
        done = self.bridge.wait()
        assert done.status == 0, done.err
        return Outcome(count, Counter(self.destination.bodies(OUT)), killed, under_way)

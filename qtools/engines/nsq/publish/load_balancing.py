"""Which of several brokers gets the next batch. In: connections, and their response times. Out: one of them.

    least busy     the fewest unanswered commands
    fastest        the shortest expected response time: unanswered commands × the recent time of one response
    round-robin    each in turn

The caller passes only connections that are open and writable.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Protocol

from qtools.engines.nsq.address import Address
from qtools.engines.nsq.connection import Connection

UNKNOWN = 0.001  # s: the expected response time of a broker that has not answered yet
FORGET = 5.0  # s after which the expected time of an unused broker has halved, so that one that was slow is tried again
WEIGHT = 0.2  # of the newest response in the average


class LoadBalancer(Protocol):
    """Picks a connection for each write."""

    def pick(self, connections: Sequence[Connection]) -> Connection:
        """One of `connections`, which are not empty."""

    def took(self, connection: Connection, seconds: float) -> None:
        """`connection` has answered within `seconds`."""

    def forget(self, address: Address) -> None:
        """The broker at `address` is no longer used."""


class LeastBusy:
    def pick(self, connections: Sequence[Connection]) -> Connection:
        return min(connections, key=lambda each: each.unanswered)

    def took(self, connection: Connection, seconds: float) -> None: ...

    def forget(self, address: Address) -> None: ...


class Fastest:
    def __init__(self) -> None:
        self._pace: dict[str, tuple[float, float]] = {}  # address → s for a response, loop time of the last update
        self._now = asyncio.get_running_loop().time

    def pick(self, connections: Sequence[Connection]) -> Connection:
        return min(connections, key=lambda each: (each.unanswered + 1) * self._expected(each))

    def took(self, connection: Connection, seconds: float) -> None:
        before = self._expected(connection)
        self._pace[connection.address] = (before + (seconds - before) * WEIGHT, self._now())

    def forget(self, address: Address) -> None:
        self._pace.pop(str(address), None)

    def _expected(self, connection: Connection) -> float:
        now = self._now()
        seconds, learned = self._pace.setdefault(connection.address, (UNKNOWN, now))
        return seconds * math.exp2((learned - now) / FORGET)


class RoundRobin:
    def __init__(self) -> None:
        self._turn = 0

    def pick(self, connections: Sequence[Connection]) -> Connection:
        self._turn += 1
        return connections[self._turn % len(connections)]

    def took(self, connection: Connection, seconds: float) -> None: ...

    def forget(self, address: Address) -> None: ...


def balance_of(name: str) -> LoadBalancer:
    """The load balancer called `name`: "fastest" or "round-robin"."""
    return RoundRobin() if name == "round-robin" else Fastest()

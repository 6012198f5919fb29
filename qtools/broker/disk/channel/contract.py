"""What the backlog of a channel needs of the topic and of the store around it, and what it offers to the store.

In: nothing, as these are only interfaces. The topic is disk/topic_log.py, the store disk/store.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from qtools.broker.core.clock import Clock
from qtools.broker.disk.channel.in_flight import InFlight
from qtools.broker.disk.channel.memory_queue import Budget
from qtools.broker.disk.database import Statement
from qtools.broker.disk.reader import BlockReader


class ChannelWriter(Protocol):
    """A channel whose changes the store writes."""

    def statements(self) -> list[Statement]:
        """What has changed since the last call."""
        ...

    def written(self) -> None:
        """Note that everything returned by `statements` is in the database."""
        ...


class ChannelStore(Protocol):
    """The store. longest_deferral: ns."""

    @property
    def budget(self) -> Budget: ...
    @property
    def in_flight(self) -> InFlight: ...
    @property
    def reader(self) -> BlockReader: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def longest_deferral(self) -> int: ...
    def touched(self, channel: ChannelWriter) -> None:
        """Call `statements` of `channel` for a commit that comes soon."""
        ...

    def later(self, what: Callable[[], None]) -> None:
        """Call `what` after a second, because something could not be read."""
        ...

    def missing(self, topic: str, first: int, last: int, messages: int) -> None:
        """Report that `messages` messages of the blocks `first` to `last` are not in the database."""
        ...


class ChannelTopic(Protocol):
    """The topic of the channel."""

    @property
    def store(self) -> ChannelStore: ...
    @property
    def ident(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def given(self) -> int:
        """The channels have received all blocks with a number below this one."""
        ...

    def has(self, seq: int) -> bool:
        """Whether the block `seq` is still on disk."""
        ...

    def finished(self, seq: int) -> None:
        """Note that the channel has finished the block `seq`."""
        ...

    def sweep(self) -> None:
        """Note that the channel may have finished many blocks at once."""
        ...

    def advanced(self) -> None:
        """Note that the lowest block which the channel has not finished has changed."""
        ...

"""Everything that the next transaction writes. In: changes of topics and channels, published blocks. Out: transactions.

    before   changes of topics and channels, in their order
    blocks   what was published
    after    what the channels that changed say they have finished; blocks that every channel has finished

When a transaction fails, its statements are tried again with the next one. Its blocks are dropped, because their
publishers get an error and publish the messages again.
"""

from __future__ import annotations

from itertools import islice
from typing import Protocol

from qtools.broker.core.block import Block
from qtools.broker.disk.channel.contract import ChannelWriter
from qtools.broker.disk.database import Statement
from qtools.broker.disk.retention import Sweeper
from qtools.broker.disk.transaction import Transaction

MOST_CHANNELS = 2000  # channels whose changes one commit writes: collecting them takes time in the event loop


class BlockOwner(Protocol):
    """A topic of which many blocks may be finished at once."""

    def remove_finished(self) -> None:
        """Give the sweeper the blocks that all channels have finished."""
        ...


class PendingWrites:
    """channels: those that have changed. topics: those that may have finished blocks to remove."""

    def __init__(self, sweeper: Sweeper) -> None:
        self.channels: dict[ChannelWriter, None] = {}
        self.topics: dict[BlockOwner, None] = {}
        self._sweeper = sweeper
        self._before: list[Statement] = []
        self._blocks: list[tuple[int, Block]] = []
        self._being_written: dict[ChannelWriter, None] = {}  # channels with statements in a transaction under way

    def change(self, statement: str, values: tuple[object, ...]) -> None:
        """Add a change of a topic or a channel."""
        self._before.append((statement, [values]))

    def append(self, topic: int, block: Block) -> None:
        """Add a block of the topic with the number `topic`."""
        self._blocks.append((topic, block))

    def drop_blocks(self) -> None:
        """Forget the blocks, because they cannot be written."""
        self._blocks.clear()

    @property
    def has_changes(self) -> bool:
        """Whether there is something that may wait a moment before it is written."""
        return bool(self.channels or self.topics) or not self._sweeper.is_idle

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write, blocks aside."""
        return not self._before and not self.channels and self._sweeper.is_idle

    def take(self, *, with_blocks: bool = True, all_channels: bool = False) -> Transaction:
        """A transaction of what is here, with the changes of at most MOST_CHANNELS channels unless `all_channels`."""
        before, self._before = self._before, []
        blocks: list[tuple[int, Block]] = []
        if with_blocks:
            blocks, self._blocks = self._blocks, []
        if all_channels or len(self.channels) <= MOST_CHANNELS:
            taken, self.channels = list(self.channels), {}
        else:
            taken = list(islice(self.channels, MOST_CHANNELS))
            for channel in taken:
                del self.channels[channel]
        after: list[Statement] = []
        for channel in taken:
            after += channel.statements()
        self._being_written.update(dict.fromkeys(taken))
        topics, self.topics = self.topics, {}
        for topic in topics:
            topic.remove_finished()
        gone, removal = self._sweeper.take()
        if gone:
            after.append(("DELETE FROM block WHERE seq = ?", list(gone)))
        return Transaction(before, blocks, after, removal)

    def committed(self, job: Transaction, *, has_more: bool) -> None:
        """Note that `job` is in the database. has_more: its removal of blocks is not complete."""
        if has_more and job.removal is not None:
            self._sweeper.give_back(job.removal, failed=False)
        written, self._being_written = self._being_written, {}
        for channel in written:
            channel.written()

    def put_back(self, job: Transaction) -> None:
        """Try the statements of `job`, which failed, again with the next transaction."""
        self._before[:0] = job.before + job.after
        if job.removal is not None:
            self._sweeper.give_back(job.removal, failed=True)

"""The messages of a channel that are on disk only: a read that finds nothing to ask for blocks no later one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from qtools.broker.disk.channel.on_disk import MessagesOnDisk
from qtools.broker.disk.channel.seq_set import SeqSet


def test_a_fetch_without_anything_on_disk_is_no_read() -> None:
    asked: list[tuple[int, int]] = []

    def read(topic: int, start: int, stop: int, *_: Any) -> None:
        asked.append((start, stop))

    store = SimpleNamespace(reader=SimpleNamespace(range=read))
    topic: Any = SimpleNamespace(store=store, ident=1, given=9)
    backlog: Any = SimpleNamespace(ident=1)
    queue: Any = SimpleNamespace(room=(10, 1000))
    deferred: Any = SimpleNamespace(late=SeqSet())
    unfinished: Any = None
    messages = MessagesOnDisk(backlog, topic, queue, unfinished, deferred)
    messages.fetch()
    assert asked == []
    messages.append(7, 3)
    messages.fetch()
    messages.fetch()  # while the first is under way
    assert asked == [(7, 9)]

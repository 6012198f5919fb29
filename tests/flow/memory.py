"""A source and a sink in memory, driven step by step, and an origin that writes down what became of its messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from qtools.message import Batch, Message, Messages

DEADLINE = 5.0


async def until(condition: Callable[[], object], deadline: float = DEADLINE) -> None:
    """Let the loop go on until `condition` is so."""
    async with asyncio.timeout(deadline):
        while not condition():  # noqa: ASYNC110 - what is waited for is not ours to announce
            await asyncio.sleep(0)


class Ledger:
    """An origin that writes down what became of its messages, in order, by their number."""

    topic = "events"
    address = "memory"
    is_lost = False

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.delays: dict[int, int] = {}  # of what goes back later: ms

    def batch(self, *numbers: int) -> Batch:
        """Messages by number; a body is as long as its number modulo 5, and one."""
        return Batch.of(
            self, Messages.of(Message(number, 1, b"%016d" % number, b"x" * (number % 5 + 1)) for number in numbers)
        )

    def finish(self, ids: Sequence[bytes]) -> None:
        self.told += [("finish", int(ident)) for ident in ids]

    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None:
        if delay_ms:
            self.delays |= {int(ident): delay_ms for ident in ids}
        self.told += [("requeue", int(ident)) for ident in ids]

    def touch(self, ids: Sequence[bytes]) -> None:
        raise AssertionError("the loop touches nothing")

    @property
    def finished(self) -> list[int]:
        return [number for what, number in self.told if what == "finish"]

    @property
    def requeued(self) -> list[int]:
        return [number for what, number in self.told if what == "requeue"]


def numbers(batch: Batch) -> list[int]:
    return [int(ident) for ident in batch.ids]


class Feed:
    """A Source: gives what is put into it. An exception that is put in is raised, None is the end."""

    def __init__(self, *items: Batch | BaseException | None) -> None:
        self.given = 0  # messages handed over
        self.reads = 0
        self._items = list(items)
        self._more = asyncio.Event()

    def put(self, *items: Batch | BaseException | None) -> None:
        self._items += items
        self._more.set()

    async def read(self) -> Batch | None:
        self.reads += 1
        while not self._items:
            self._more.clear()
            await self._more.wait()
        item = self._items.pop(0)
        if isinstance(item, BaseException):
            raise item
        self.given += len(item) if item is not None else 0
        return item

    async def close(self) -> None: ...


class Writing:
    """One write under way; it ends when told to."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.cancelled = False
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ok(self) -> None:
        self.end.set_result(None)

    def fail(self, error: BaseException) -> None:
        self.end.set_exception(error)


class Hold:
    """A Sink whose writes end when the test says so. `most` is how many were under way at once."""

    def __init__(self) -> None:
        self.writes: list[Writing] = []
        self.under_way = 0
        self.most = 0

    async def write(self, batch: Batch) -> None:
        writing = Writing(batch)
        self.writes.append(writing)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await writing.end
        except asyncio.CancelledError:
            writing.cancelled = True
            raise
        finally:
            self.under_way -= 1

    async def close(self) -> None: ...


class Calls:
    """A Sink that asks `write` what to do with each batch."""

    def __init__(self, write: Callable[[Batch], Awaitable[None]]) -> None:
        self.write = write

    async def close(self) -> None: ...

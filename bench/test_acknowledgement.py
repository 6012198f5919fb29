"""What it costs to acknowledge a message. Run: pytest bench/test_acknowledgement.py; each test shows ns per message.

A consumer reads from a connection whose socket is replaced by memory. Only the calls of `finish`, and the turns of the
event loop in which their bytes leave, are timed, in CPU time of this thread: other programs may run beside it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from qtools.engines.nsq import connection_pool
from qtools.engines.nsq.address import Address, Brokers
from qtools.engines.nsq.connection import Connection
from qtools.engines.nsq.consume.consumer import Consumer
from qtools.engines.nsq.protocol.frames import RESPONSE, encode_frame, encode_message
from qtools.engines.nsq.protocol.identify import IdentifyResponse
from qtools.engines.nsq.protocol.session import ClientSession
from qtools.engines.nsq.settings import Settings
from qtools.message import Batch, Message
from qtools.names import Subscription

COUNT = 20_000  # messages of one measurement
ROUNDS = 15  # of which the best counts
BODY = b"x" * 190


class MemoryTransport(asyncio.Transport):
    """Answers IDENTIFY and SUB, and drops everything else."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def write(self, data: bytes | bytearray | memoryview) -> None:
        data = bytes(data)
        if b"IDENTIFY" in data:
            answer = IdentifyResponse(max_rdy_count=COUNT).encode()
            asyncio.get_running_loop().call_soon(self._connection.data_received, encode_frame(RESPONSE, answer))
        elif data.startswith(b"SUB "):
            asyncio.get_running_loop().call_soon(self._connection.data_received, encode_frame(RESPONSE, b"OK"))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self._connection.connection_lost(None)


async def acknowledge(per_read: int, per_batch: int, finish: Callable[[Batch], object], **how: Any) -> float:
    """s of CPU time to acknowledge COUNT messages, which come `per_read` in a read of the socket and are read from the
    consumer after every `per_batch` messages. how: further arguments of Consumer."""
    made: list[Connection] = []

    async def connect(address: Address, settings: Settings) -> Connection:
        connection = Connection(address, ClientSession(settings.identify_request()), 15.0)
        made.append(connection)
        connection.connection_made(MemoryTransport(connection))
        await connection.wait_established()
        return connection

    patch = pytest.MonkeyPatch()
    patch.setattr(connection_pool, "connect", connect)
    consumer = Consumer(
        [Subscription("t", "c")], Brokers(nsqd=(Address("h", 1),)), Settings(), max_in_flight=COUNT, **how
    )
    try:
        await consumer.start()
        (connection,) = made
        ids = [b"%016x" % nth for nth in range(COUNT)]
        frames = [encode_message(Message(1, 1, ident, BODY)) for ident in ids]
        batches = []
        for begin in range(0, COUNT, per_batch):
            for start in range(begin, begin + per_batch, per_read):
                connection.data_received(b"".join(frames[start : start + per_read]))
            batch = await consumer.read()
            assert batch is not None
            batches.append(batch)
        await asyncio.sleep(0)
        begun = time.thread_time()
        for batch in batches:
            finish(batch)
            await asyncio.sleep(0)
        spent = time.thread_time() - begun
        assert consumer.in_flight == 0
        connection.abort()
        return spent
    finally:
        patch.undo()
        await consumer.close()


def one_by_one(batch: Batch) -> None:
    for place in range(len(batch)):
        batch.pick([place]).finish()


def in_halves(batch: Batch) -> None:
    for half in batch.split(len(batch) // 2):
        half.finish()


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[[float], None]:
    def show(spent: float) -> None:
        with capsys.disabled():
            print(f"\n{request.node.name:60} {spent / COUNT * 1e9:8.1f} ns per message", end="")

    return show


@pytest.mark.parametrize(
    ("per_read", "per_batch", "finish", "how"),
    [
        pytest.param(1000, 1000, Batch.finish, {}, id="reads of 1000"),
        pytest.param(10, 1000, Batch.finish, {}, id="reads of 10, batches of 1000"),
        pytest.param(1, 1000, Batch.finish, {}, id="reads of 1, batches of 1000"),
        pytest.param(1, 1, Batch.finish, {}, id="reads of 1"),
        pytest.param(10, 10, Batch.finish, {}, id="reads of 10"),
        pytest.param(10, 10, Batch.finish, {"limit": 1_000_000}, id="reads of 10, with a limit"),
        pytest.param(1000, 1000, in_halves, {}, id="reads of 1000, finished in two halves"),
        pytest.param(10, 1000, in_halves, {}, id="reads of 10, batches of 1000, finished in two halves"),
        pytest.param(100, 100, one_by_one, {}, id="reads of 100, finished one by one"),
    ],
)  # fmt: skip
def test_finish(
    show: Callable[[float], None], per_read: int, per_batch: int, finish: Callable[[Batch], object], how: dict[str, Any]
) -> None:
    show(min(asyncio.run(acknowledge(per_read, per_batch, finish, **how)) for _ in range(ROUNDS)))

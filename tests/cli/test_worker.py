"""What blocks, blocks in a thread: the loop goes on, and every call has its result."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

from qtools.cli.worker import Worker


async def test_a_call_that_blocks_does_not_stop_the_loop() -> None:
    worker = Worker("test")
    may_end = threading.Event()
    blocking = worker.call(may_end.wait, 10)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not blocking.done()
    may_end.set()
    assert await blocking is True


async def test_calls_are_done_one_after_the_other_in_one_thread() -> None:
    worker = Worker("test")
    done: list[tuple[int, int]] = []
    await asyncio.gather(*(worker.call(lambda n=n: done.append((n, threading.get_ident()))) for n in range(50)))
    assert [n for n, _ in done] == list(range(50))
    assert len({thread for _, thread in done}) == 1
    assert done[0][1] != threading.get_ident()


async def test_what_a_call_raises_is_raised_to_who_waits_and_the_next_one_works() -> None:
    worker = Worker("test")
    with pytest.raises(ZeroDivisionError):
        await worker.call(lambda: 1 // 0)
    with pytest.raises(SystemExit):
        await worker.call(exit_here)
    assert await worker.call(int, "7") == 7


def exit_here() -> None:
    raise SystemExit(3)


async def test_a_call_nobody_waits_for_any_more_is_done_all_the_same() -> None:
    worker = Worker("test")
    done: list[str] = []
    worker.call(done.append, "a").cancel()
    await worker.call(done.append, "b")
    assert done == ["a", "b"]


async def test_there_is_no_thread_before_the_first_call() -> None:
    Worker("idle")
    assert not [thread for thread in threading.enumerate() if thread.name == "idle"]


async def test_nothing_is_kept_of_a_call_that_is_over() -> None:
    class Block:
        pass

    worker = Worker("test")
    block = Block()
    gone = weakref.ref(block)
    await worker.call(lambda _: None, block)
    del block
    async with asyncio.timeout(5):
        while gone() is not None:
            gc.collect()
            await asyncio.sleep(0.001)


def test_a_loop_that_is_closed_is_no_trouble_to_the_thread() -> None:
    may_end = threading.Event()
    done = threading.Event()

    def block() -> None:
        may_end.wait(10)

    async def begin() -> Worker:
        worker = Worker("orphan")
        worker.call(block)
        worker.call(done.set)
        await asyncio.sleep(0)
        return worker

    asyncio.run(begin())
    may_end.set()
    assert done.wait(10)  # it has got beyond the first, whose loop was closed
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "orphan"]
    assert thread.daemon

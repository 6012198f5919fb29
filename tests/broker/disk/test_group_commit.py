"""For how many publishers a commit waits."""

from __future__ import annotations

import asyncio

from qtools.broker.disk import group_commit
from qtools.broker.disk.group_commit import GroupCommit

from ..inside import come_true


def made() -> tuple[GroupCommit, list[int]]:
    calls: list[int] = []
    return GroupCommit(asyncio.get_running_loop(), lambda: calls.append(1)), calls


async def test_who_comes_alone_waits_for_nobody() -> None:
    waiting, _ = made()
    for _ in range(3):
        waiting.add(10)
        assert waiting.is_complete
        assert waiting.take() == 10
        waiting.answered()


async def test_two_crowds_become_one() -> None:
    waiting, calls = made()
    for _ in range(3):
        waiting.add(1)
    waiting.take()
    for _ in range(2):  # while it is being written
        waiting.add(1)
    waiting.answered()
    assert not waiting.is_complete
    for _ in range(2):
        waiting.add(1)
        assert not waiting.is_complete
    assert not calls
    waiting.add(1)
    assert waiting.is_complete
    assert calls
    assert waiting.take() == 5


async def test_who_does_not_come_back_is_waited_for_once_and_not_for_long() -> None:
    waiting, calls = made()
    for _ in range(5):
        waiting.add(1)
    waiting.take()
    waiting.answered()
    waiting.add(1)
    assert not waiting.is_complete
    waiting.wait()
    waiting.wait()
    await come_true(lambda: calls)
    assert len(calls) == 1
    assert waiting.is_complete
    waiting.take()
    waiting.answered()
    waiting.add(1)
    assert waiting.is_complete


async def test_what_is_large_does_not_wait() -> None:
    waiting, calls = made()
    for _ in range(5):
        waiting.add(1)
    waiting.take()
    waiting.answered()
    waiting.add(group_commit.ENOUGH)
    assert waiting.is_complete
    assert calls


async def test_nobody_is_called_for_those_who_were_taken() -> None:
    waiting, calls = made()
    for _ in range(2):
        waiting.add(1)
    waiting.take()
    waiting.answered()
    waiting.add(1)
    waiting.wait()
    waiting.take()
    await asyncio.sleep(3 * group_commit.PATIENCE)
    assert not calls

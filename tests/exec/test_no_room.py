"""q-exec where the system has no room for another process or file, and what becomes of commands at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from harness.brokers import Broker
from harness.shell import Shell, words_for

from qtools.exec.arguments import CommandArguments
from qtools.exec.jobs import Jobs
from qtools.exec.outcomes import Exit
from qtools.message import Batch
from tests.tail.messages import batch_of

FEW_FILES = ["sh", "-c", 'ulimit -n 30; exec "$@"', "sh", *words_for("q-exec")]


@pytest.mark.parametrize("form", ["--tag", "--group"])
def test_messages_wait_for_descriptors(shell: Shell, broker: Broker, topic: str, form: str) -> None:
    """Sixty commands need more files than a process may open here. No message is a dead letter because of it."""
    broker.create(topic, "me")
    broker.fill(topic, [b"x"] * 60)
    words = [f"{topic}/me", "-n60", form, "-j60", "--max-attempts", "1", *broker.flags, "--", "sleep", "0.2"]
    done = shell.run("q-exec", *words, argv=FEW_FILES)
    assert done.status == 0
    assert "could not be started: Too many open files" in done.err
    assert "dead-lettered" not in done.err
    assert "Traceback" not in done.err


class _StalledOutput:
    """The output of commands, whose reader has stalled: it is never written until the test says so."""

    def __init__(self) -> None:
        self.descriptors: dict[int, int] = {}
        self.ended: asyncio.Future[Callable[[str], None]] = asyncio.get_running_loop().create_future()

    def of_job(self, tag: bytes) -> _StalledOutput:
        return self

    def started(self) -> None: ...
    def abandon(self) -> None: ...

    def end(self, then: Callable[[str], None]) -> None:
        self.ended.set_result(then)


async def test_a_command_that_has_ended_is_not_given_up() -> None:
    """Its output waits for a reader when the run gives up: its message is finished all the same, and not run again."""
    ends: list[tuple[Batch, Exit]] = []
    output, batch = _StalledOutput(), batch_of(b"x")
    arguments = CommandArguments(["true"], replace="", form="raw", delimiter=b"\n", channels={})
    jobs = Jobs(
        arguments, "true", cast("Any", output), most=1, timeout=0.0, on_end=lambda *each: ends.append(each)
    )  # fmt: skip
    try:
        await jobs.send(batch)
        write = await output.ended
        killing = asyncio.ensure_future(jobs.kill())
        await asyncio.sleep(0)
        write("")
        assert await killing == []
    finally:
        await jobs.close()
    assert ends == [(batch, Exit(0))]

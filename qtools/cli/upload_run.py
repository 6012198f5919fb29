"""What commands that send an input to its end have in common: q-pipe, and q-to-file replay.

In: a flow, its ends, and where it is noted how far it came. Out: what ended it too early, and what is said of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from qtools.cli import logs
from qtools.cli.progress_line import ProgressLine
from qtools.errors import InputError, MessageRefused, QtoolsError
from qtools.message import Batch

Name = Callable[[Batch, int], str]  # what the message at a place of a batch is called


class UploadSource(Protocol):
    @property
    def confirmed(self) -> Any:
        """How far everything is safe, as the checkpoint keeps it."""
        ...

    async def close(self) -> None: ...


class Closing(Protocol):
    async def close(self) -> None: ...


class Running(Protocol):
    async def run(self) -> object: ...


class Keeping(Protocol):
    def save(self, position: Any, *, sync: bool = False) -> None: ...


async def send_all(
    flow: Running, publisher: Closing, source: UploadSource, checkpoint: Keeping | None, meter: ProgressLine
) -> QtoolsError | None:
    """Run `flow`, close its ends, and note how far it came. Answers what went wrong first."""
    error: QtoolsError | None = None
    try:
        await flow.run()
    except QtoolsError as caught:
        error = caught
    finally:
        await publisher.close()
        await source.close()
        meter.close()
    if checkpoint is not None:
        try:
            checkpoint.save(source.confirmed, sync=True)
        except QtoolsError as caught:
            error = error or caught
    return error


class UploadTotals(Protocol):
    finished: int
    finished_bytes: int


class Filtered(Protocol):
    passed: int
    passed_bytes: int


def sent(totals: UploadTotals, filtered: Filtered | None) -> tuple[int, int]:
    """What was sent: messages, bytes."""
    if filtered is not None:
        return filtered.passed, filtered.passed_bytes
    return totals.finished, totals.finished_bytes


def oversize(name: Name, skip: bool) -> Callable[[Batch, dict[int, QtoolsError]], bool]:
    """For what no broker takes: it is named, and left out or the end, as --on-oversize says."""

    def refused(batch: Batch, why: dict[int, QtoolsError]) -> bool:
        for nth, error in enumerate(why.values()):
            if not isinstance(error, MessageRefused):  # the filter's word that this is the end
                raise error
            told = f"{name(batch, nth)} was not sent: {error}"
            if not skip:
                raise InputError(f"{told} (--on-oversize skip leaves such messages out)")
            logs.say(logging.WARNING, told)
        return True

    return refused

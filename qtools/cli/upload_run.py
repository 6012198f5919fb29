"""A run that sends a whole input: shared by q-pipe and q-to-file replay.

In: a flow, its source and publisher, and a checkpoint. Out: the error that ended the run early, if any.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Sequence
from typing import Any, Protocol

from qtools.attributes import Attributes
from qtools.cli import logs
from qtools.cli.progress_line import ProgressLine
from qtools.cli.types import plural
from qtools.errors import InputError, MessageRefused, QtoolsError, RouteFailed
from qtools.message import Batch, Messages

MessageName = Callable[[Batch, int], str]  # a batch and an index in it → the name of the message in log lines


class FileOrigin:
    """The origin of messages of a file (message.RecordOrigin), without `finish`. Their records are those of envelopes
    (formats/envelope_records.py)."""

    __slots__ = ()

    topic = ""
    address = ""
    is_lost = False

    def requeue(self, ids: Sequence[int], delay_ms: int) -> None:
        """There is nothing to do: a message that is not confirmed is read again by the next run."""

    def touch(self, ids: Sequence[int]) -> None:
        """There is nothing to do: a file has no message timeout."""

    def messages_of(self, records: Sequence[Any], bodies: list[bytes]) -> Messages:
        from qtools.formats.envelope_records import messages_of

        return messages_of(records, bodies)

    def attributes_of(self, records: Sequence[Any], only: Container[str] = Attributes._fields) -> Attributes:
        from qtools.formats.envelope_records import attributes_of

        return attributes_of(records, only)

    def delivered_more_than(self, times: int, records: Sequence[Any]) -> dict[int, int]:
        from qtools.formats.envelope_records import delivered_more_than

        return delivered_more_than(times, records)


class UploadSource(Protocol):
    @property
    def confirmed(self) -> Any:
        """The position in the input up to which all messages are safe, as the checkpoint stores it."""
        ...

    async def close(self) -> None: ...


class Closable(Protocol):
    async def close(self) -> None: ...


class Runnable(Protocol):
    async def run(self) -> object: ...


class UploadCheckpoint(Protocol):
    def save(self, position: Any, *, sync: bool = False) -> None: ...


async def send_all(
    flow: Runnable, publisher: Closable, source: UploadSource, checkpoint: UploadCheckpoint | None, meter: ProgressLine
) -> QtoolsError | None:
    """Run `flow`, close its source and its publisher, and save the checkpoint. Returns the first error, or None."""
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


class FlowTotals(Protocol):
    finished: int
    finished_bytes: int


class FilterTotals(Protocol):
    passed: int
    passed_bytes: int


def sent_totals(totals: FlowTotals, filtered: FilterTotals | None) -> tuple[int, int]:
    """The number of messages that were sent, and the bytes of their bodies."""
    if filtered is not None:
        return filtered.passed, filtered.passed_bytes
    return totals.finished, totals.finished_bytes


class RefusalHandler:
    """The `on_refused` of a flow that sends a whole input: it logs each refused message and leaves it out, or raises
    InputError.

    name: the name of a message. skip_oversize: whether messages over the broker's limit are left out. skip_failed:
    whether messages are left out on which --key or --header failed, which count in `failed`; else the error says
    `advice`.
    """

    def __init__(self, name: MessageName, *, skip_oversize: bool, skip_failed: bool = False, advice: str = "") -> None:
        self.failed = 0
        self._name = name
        self._skip_oversize = skip_oversize
        self._skip_failed = skip_failed
        self._advice = advice

    def __call__(self, batch: Batch, why: dict[int, QtoolsError]) -> bool:
        for nth, error in enumerate(why.values()):
            name = self._name(batch, nth)
            if isinstance(error, RouteFailed):
                self._handle_failed(name, error)
                continue
            if not isinstance(error, MessageRefused):  # the filter ends the run with this error
                raise error
            text = f"{name} was not sent: {error}"
            if not self._skip_oversize:
                raise InputError(f"{text} (--on-oversize skip leaves such messages out)")
            logs.log(logging.WARNING, text)
        return True

    def _handle_failed(self, name: str, error: RouteFailed) -> None:
        if not self._skip_failed:
            raise InputError(f"{name}: {error} ({self._advice})")
        logs.log(logging.WARNING, f"{name}: {error}: left out")
        self.failed += 1

    def notes(self, refused: int) -> list[str]:
        """Notes for the summary: how many of the `refused` messages were left out, and why."""
        found = []
        if refused > self.failed:
            found.append(f"{plural(refused - self.failed, 'message')} too big and left out")
        if self.failed:
            found.append(f"{plural(self.failed, 'message')} without a key or header left out")
        return found

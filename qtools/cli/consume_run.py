"""A run that reads channels: shared by q-tail, q-bridge, q-to-file and q-exec.

Two tasks run beside the loop: one waits for the end conditions, one logs warnings. In: a source. Out: their errors.

    __init__ ─▶ the loop runs ─▶ settle ─▶ stop ─▶ check

And the filter before a sink, and notes for the summary.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from qtools.cli import logs
from qtools.cli.types import plural
from qtools.engines.contract import Source
from qtools.message import Batch
from qtools.names import Subscription

if TYPE_CHECKING:
    from qtools.flow.contract import Sink
    from qtools.flow.stepped_sink import SteppedSink
    from qtools.flow.steps import Steps

PATIENCE = 3.0  # s for which a run that has ended waits for the warnings


class RunWatch:
    """The tasks beside one run. named: the subscriptions that the user has named."""

    def __init__(self, source: Source, named: Sequence[Subscription]) -> None:
        self._source = source
        self._ending = asyncio.create_task(source.wait_for_end())
        self._warning = asyncio.create_task(source.warn_later(named))
        self._tasks: list[asyncio.Task[Any]] = [self._ending, self._warning]

    def add(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as one more task; `check` raises its error."""
        self._tasks.append(asyncio.create_task(work))

    async def settle(self) -> None:
        """If the run ended by itself and received no message, wait up to PATIENCE for the warning that says why."""
        ending = self._ending
        ended = ending.done() and not ending.cancelled() and not ending.exception() and ending.result()
        if ended and not self._source.received and not self._warning.done():
            await asyncio.wait((self._warning,), timeout=PATIENCE)

    async def stop(self) -> None:
        """Cancel the tasks, and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    def check(self) -> None:
        """Raise the error of the first task that failed, if one did."""
        for task in self._tasks:
            if not task.cancelled():
                task.result()


def sink_after(steps: Steps, sink: Sink) -> SteppedSink:
    """`sink` with `steps` before it. It logs the first message on which a step fails as a warning, and the others as
    information."""
    from qtools.flow.stepped_sink import SteppedSink  # few runs have one, and its modules take time to import

    def warn(text: str) -> None:
        logs.log(logging.INFO if made.left_out else logging.WARNING, text)

    made = SteppedSink(sink, steps, name=name_of_message, warn=warn)
    return made


def name_of_message(batch: Batch, place: int) -> str:
    """The name of a message in log lines: its topic and its id."""
    topic = next(origin.topic for origin, start, stop in batch.parts if start <= place < stop)
    return f"{topic}: message {batch.messages.ids[place].decode('latin-1')}"


def notes_of_source(source: Source) -> list[str]:
    """Notes for the summary: what is left to read, and what could not be acknowledged."""
    notes = []
    if source.lag_messages:
        notes.append(f"{source.lag_messages:,} left")
    if source.acknowledgements_failed:
        late = plural(source.acknowledgements_failed, "message")
        notes.append(f"{late} could not be finished any more and will be delivered again")
    return notes

"""Acknowledges messages as their outcome says, and counts them. In: batches and outcomes. Out: calls of batches, dead
letters.

    finish ─▶ Batch.finish, for all messages of a turn of the event loop at once
    requeue ─▶ Batch.requeue with the delay of --backoff, or, after --max-attempts, a dead letter
    dead-letter ─▶ published ─▶ Batch.finish
    stop ─▶ Batch.requeue at once, and the run ends
    no command could be started now ─▶ Batch.requeue after a moment
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from qtools.cli.failure_log import FailureLog
from qtools.errors import Postponed, QtoolsError, RouteFailed
from qtools.exec.outcomes import DEAD_LETTER, FINISH, REQUEUE, Outcome
from qtools.message import Batch
from qtools.routing.dead_letter_sink import DeadLetterSink

LONGEST_DELAY = 3600.0  # s, the default of nsqd's --max-req-timeout: it refuses a longer delay


@dataclass(slots=True)
class ExecCounts:
    """What became of the messages that were read. returned: requeued by the end of the run, not by their command."""

    done: int = 0
    requeued: int = 0
    dead_lettered: int = 0
    filtered: int = 0
    dropped: int = 0
    returned: int = 0


class Settling:
    """What becomes of messages.

    backoff, longest_backoff: s. max_attempts: 0 for never.
    on_failure: called with the error that ends the run.
    """

    def __init__(
        self,
        dead_letters: DeadLetterSink,
        *,
        backoff: float,
        longest_backoff: float,
        max_attempts: int,
        on_failure: Callable[[Exception], None],
    ) -> None:
        self.counts = ExecCounts()
        self._dead_letters = dead_letters
        self._backoff = backoff
        self._longest_backoff = longest_backoff
        self._max_attempts = max_attempts
        self._on_failure = on_failure
        self._log = FailureLog("qtools.exec")
        self._loop = asyncio.get_running_loop()
        self._finished: list[Batch] = []
        self._letters: list[tuple[Batch, str]] = []  # to be published
        self._publishing: asyncio.Task[None] | None = None

    def settle(self, batch: Batch, outcome: Outcome) -> None:
        """Do with all messages of `batch` what `outcome` says."""
        if outcome.action == FINISH:
            self.counts.done += len(batch)
            self._finish(batch)
        elif outcome.action == REQUEUE:
            self._requeue(batch, outcome)
        elif outcome.action == DEAD_LETTER:
            self._send_letters(batch, outcome.reason)
        else:
            self.give_back(batch)
            error = QtoolsError(f"{_name(batch)}: {outcome.reason}; the run ends, and gives it back")
            error.exit_status = outcome.exit_status
            self._on_failure(error)

    def postpone(self, batch: Batch, error: Postponed) -> None:
        """Requeue messages for which no command could be started now. Such attempts do not count for --max-attempts: a
        message that was never worked on is not a dead letter."""
        self.counts.requeued += len(batch)
        self._log.log("requeued", [str(error)] * len(batch))
        batch.requeue(error.delay_ms)

    def give_back(self, batch: Batch) -> None:
        """Requeue messages that were not worked on, or not to their end."""
        self.counts.returned += len(batch)
        batch.requeue()

    def leave_out(self, batch: Batch) -> None:
        """Finish messages that --where does not select."""
        self.counts.filtered += len(batch)
        self._finish(batch)

    def drop(self, batch: Batch, reason: str) -> None:
        """Finish messages on which an expression fails (--on-error skip)."""
        self.counts.dropped += len(batch)
        self._log.log("left out", [reason] * len(batch))
        self._finish(batch)

    async def drain(self) -> None:
        """Return when all dead letters are published, and all finished messages acknowledged."""
        while self._publishing is not None:
            await asyncio.wait((self._publishing,))
        self._flush()

    async def close(self) -> None:
        """Acknowledge what is finished, and give back what waits for its dead letter."""
        if self._publishing is not None:
            self._publishing.cancel()
            await asyncio.wait((self._publishing,))
        self._flush()
        self._log.flush()

    def _finish(self, batch: Batch) -> None:
        if not self._finished:
            self._loop.call_soon(self._flush)
        self._finished.append(batch)

    def _flush(self) -> None:
        if self._finished:
            finished, self._finished = self._finished, []
            Batch.joined(finished).finish()

    def _requeue(self, batch: Batch, outcome: Outcome) -> None:
        worn_out: list[int] = []
        for place, message in enumerate(batch.messages):
            if self._max_attempts and message.attempts >= self._max_attempts:
                worn_out.append(place)
                continue
            delay = outcome.delay
            if delay is None:
                doubled = self._backoff * 2.0 ** min(message.attempts - 1, 30)
                delay = min(self._longest_backoff, doubled)
            batch.pick([place]).requeue(round(min(delay, LONGEST_DELAY) * 1000))
        if count := len(batch) - len(worn_out):
            self.counts.requeued += count
            self._log.log("requeued", [outcome.reason] * count)
        if worn_out:
            self._send_letters(batch.pick(worn_out), f"{outcome.reason} (--max-attempts {self._max_attempts} reached)")

    # ── dead letters ──

    def _send_letters(self, batch: Batch, reason: str) -> None:
        self._letters.append((batch, reason))
        if self._publishing is None:
            self._publishing = asyncio.create_task(self._publish())

    async def _publish(self) -> None:
        """Publish the dead letters that wait, until none does."""
        sending: list[tuple[Batch, str]] = []
        try:
            while self._letters:
                sending, self._letters = self._letters, []
                await self._publish_all(sending)
                sending = []
        except Exception as error:
            self._on_failure(error)
        finally:
            for batch, _ in [*sending, *self._letters]:
                self.give_back(batch)
            self._letters = []
            self._publishing = None

    async def _publish_all(self, letters: list[tuple[Batch, str]]) -> None:
        batch = Batch.joined([each for each, _ in letters])
        reasons = [reason for each, reason in letters for _ in range(len(each))]
        failed: dict[int, QtoolsError] = {place: RouteFailed(reason) for place, reason in enumerate(reasons)}
        sent, postponed = await self._dead_letters.send(batch, failed)
        for topic, errors in sent.items():
            self._log.log(f"sent to {topic}", map(str, errors.values()))
        self._finish(batch.without(list(postponed)))
        self.counts.dead_lettered += len(batch) - len(postponed)
        for place, error in postponed.items():
            self.counts.requeued += 1
            batch.pick([place]).requeue(error.delay_ms if isinstance(error, Postponed) else 0)


def _name(batch: Batch) -> str:
    """Such as `message 0f3a… of orders`."""
    message = batch.messages[0].id.decode("latin-1")
    return f"message {message} of {batch.parts[0][0].topic}"

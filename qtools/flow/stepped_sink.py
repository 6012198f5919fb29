"""A sink with steps before it. In: batches. Out: those of their messages that pass, to the sink; and counts.

Messages that a step drops are finished together with those that were written, in the order of the batch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import compress

from qtools.errors import EvaluationError, PartialFailure, QtoolsError, SinkError
from qtools.flow.contract import Sink
from qtools.flow.steps import ADVICE, Passed, Steps
from qtools.message import Batch


class SteppedSink:
    """`sink` with `steps` before it.

    name: returns the name of a message for the log, given its batch and place. warn: takes a line about a message that
    is left out because a step fails. passed, passed_bytes: messages that the sink took. filtered: messages that
    did not match. left_out, let_through: messages on which a step failed; the latter are in `passed` too.
    """

    def __init__(
        self, sink: Sink, steps: Steps, *, name: Callable[[Batch, int], str], warn: Callable[[str], None]
    ) -> None:
        self.passed = 0
        self.passed_bytes = 0
        self.filtered = 0
        self.left_out = 0
        self.let_through = 0
        self._sink = sink
        self._steps = steps
        self._name = name
        self._warn = warn

    async def write(self, batch: Batch) -> None:
        """Write the messages that pass. Raises what the sink raises, with the places of `batch`. With `on_error`
        "fail", raises SinkError at the first message on which a step fails; the messages before it are safe."""
        passed = await self._steps.apply(batch)
        failed = passed.failed
        end, stop = len(batch), None
        if failed and self._steps.on_error == "fail":
            end = min(failed)
            stop = SinkError(f"{self._name(batch, end)}: {failed[end]} ({ADVICE})", end)
            before, _ = passed.batch.split(bisect_left(passed.places, end))
            passed = passed._replace(batch=before, places=passed.places[: len(before)])
        places, bodies = passed.places, passed.batch.bodies
        refused: dict[int, QtoolsError] = {}
        try:
            await self._write(passed, settles=stop is None)
        except PartialFailure as error:
            refused = {places[place]: why for place, why in sorted(error.failed.items())}
        except SinkError as error:
            # Messages up to the last one that the sink took are finished; those after it are delivered again.
            taken = error.taken
            error.taken = places[taken - 1] + 1 if taken else 0
            self._count(batch, places[:taken], bodies[:taken], failed, error.taken)
            raise
        if refused:
            fit = [place not in refused for place in places]
            self._count(batch, list(compress(places, fit)), list(compress(bodies, fit)), failed, end, len(refused))
            if stop is not None:
                refused |= dict.fromkeys(range(end, len(batch)), stop)
            raise PartialFailure(refused)
        self._count(batch, places, bodies, failed, end)
        if stop is not None:
            raise stop

    async def _write(self, passed: Passed, *, settles: bool) -> None:
        """Write what has passed, if there is something. settles: whether all messages of the reservations are written
        then."""
        try:
            if len(passed.batch):
                await self._sink.write(passed.batch)
        except BaseException:
            settles = False
            raise
        finally:
            for reservation in passed.reservations:
                await (reservation.settle() if settles else reservation.release())

    async def close(self) -> None:
        await self._sink.close()

    @property
    def unmatched(self) -> int:
        """Messages that a summary has to mention: those that did not match, and those on which a step failed."""
        return self.filtered + self.left_out + self.let_through

    def notes(self, done: str) -> list[str]:
        """Notes for the summary: how many messages were not `done` ("sent", "printed"), and why."""
        notes = []
        if self.filtered:
            notes.append(f"{self.filtered:,} did not match")
        if self.left_out:
            notes.append(f"{self.left_out:,} failed and {_were(self.left_out)} left out")
        if self.let_through:
            notes.append(f"{self.let_through:,} failed and {_were(self.let_through)} {done} unchanged")
        return notes

    def _count(
        self,
        batch: Batch,
        taken: Sequence[int],
        bodies: Sequence[bytes],
        failed: dict[int, EvaluationError],
        end: int,
        refused: int = 0,
    ) -> None:
        """Count the messages before `end`: those at the places `taken` were written as `bodies`, the sink refused
        `refused`."""
        self.passed += len(taken)
        self.passed_bytes += sum(map(len, bodies))
        undecided = [place for place in failed if place < end]
        if self._steps.on_error == "skip":
            self.filtered -= len(undecided)
            for place in undecided:
                self._warn(f"{self._name(batch, place)}: {failed[place]}: left out")
                self.left_out += 1
        else:
            self.let_through += len(undecided)
        self.filtered += end - len(taken) - refused


def _were(count: int) -> str:
    return "was" if count == 1 else "were"

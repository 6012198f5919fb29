"""Steps between a source and a sink: decoding, filters, encoding, --dedupe. In: a batch. Out: the messages that go on.

    source.read ─▶ decode ─▶ the loop ─▶ where, select, encode ─▶ dedupe ─▶ sink.write
                                  │            │         └─▶ duplicates: finished with their batch, and counted
                                  │            ├─▶ do not match: the same
                                  │            └─▶ an expression fails: fail, skip or pass, as --on-error says
                                  └─▶ the throttle delays messages, and changes none: it is a part of the loop

A step that waits for something before messages are taken (decode waits for a registry) is applied while the source is
read; the others are applied before a write (stepped_sink.py). Keys and headers belong to the copies of a message that a
topic gets, of which there may be several: they are made when these are published (keying.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from qtools.errors import EvaluationError
from qtools.message import Batch

OnError = Literal["fail", "skip", "pass"]
ADVICE = "--on-error skip leaves such messages out, --on-error pass passes them on unchanged"


class Reservation(Protocol):
    """What a step has noted about messages that are not safe yet. One of the two is called, once."""

    async def settle(self) -> None:
        """The messages are safe. SinkError if that cannot be stored."""

    async def release(self) -> None:
        """The messages are not safe, and will come again."""


class Passed(NamedTuple):
    """What a step made of a batch.

    batch: the messages that go on, in their order. places: where each of them stood in the batch that was given; a
    range, which begins with 0, if none before them is missing. failed: why the step failed on a message, by its place
    there; such messages are not in `batch`. Messages that are in neither are dropped: they are finished with their
    batch. reservations: settled once `batch` is safe.
    """

    batch: Batch
    places: Sequence[int]
    failed: dict[int, EvaluationError]
    reservations: tuple[Reservation, ...] = ()


class Step(Protocol):
    """Takes batches, in their order. A message whose step is undone, as its write fails, comes in a later batch."""

    async def start(self) -> None:
        """Called once, before the first batch is read. StartError, UsageError if what the step needs cannot be had."""

    async def apply(self, batch: Batch) -> Passed:
        """Returns the messages of `batch` that go on. An error of a message is in `failed`; a QtoolsError concerns all
        messages."""

    async def close(self) -> None:
        """Called once, after the last batch."""


class Steps:
    """Several steps as one, and what becomes of a message on which one of them fails.

    on_error: "skip": it does not go on. "pass": it goes on past the remaining steps, with the body that the failing
    step was given. "fail": the run ends there (SteppedSink). chosen: whether the user gave `on_error`, so that it is
    not the default.
    """

    def __init__(self, steps: Sequence[Step], on_error: OnError = "fail", *, chosen: bool = False) -> None:
        self.on_error, self.chosen = on_error, chosen
        self._steps = steps

    async def start(self) -> None:
        for step in self._steps:
            await step.start()

    async def apply(self, batch: Batch) -> Passed:
        """As Step.apply. With `on_error` "pass", the messages in `failed` are in `batch` too."""
        passing = batch
        places: Sequence[int] = range(len(batch))
        failed: dict[int, EvaluationError] = {}
        aside: dict[int, bytes] = {}  # the bodies of messages in `failed`
        reservations: tuple[Reservation, ...] = ()
        for step in self._steps:
            made = await step.apply(passing)
            for place, why in made.failed.items():
                failed[places[place]], aside[places[place]] = why, passing.bodies[place]
            places = made.places if isinstance(places, range) else [places[place] for place in made.places]
            passing = made.batch
            reservations += made.reservations
        if aside and self.on_error == "pass":
            bodies = aside | dict(zip(places, passing.bodies, strict=True))
            places = sorted(bodies)
            passing = batch.pick(places).with_bodies([bodies[place] for place in places])
        return Passed(passing, places, failed, reservations)

    async def failures(self, batch: Batch) -> dict[int, EvaluationError]:
        """The error of each message on which a step fails, by place. Not for steps that make reservations."""
        return (await self.apply(batch)).failed

    async def close(self) -> None:
        for step in reversed(self._steps):
            await step.close()

"""--dedupe: a message that was sent twice is archived once. In: batches. Out: batches without duplicates.

The key of a message is what an expression returns for its JSON; a message without a key is always archived. A key is
remembered once its message is safe: after a crash between the two the message is archived twice rather than never.
"""

from __future__ import annotations

from qtools.cli.dedupe import Classified, DedupeStage
from qtools.errors import EvaluationError
from qtools.flow.json_values import parser_for
from qtools.flow.steps import Passed
from qtools.flow.variables import rows_of
from qtools.message import Batch
from qtools.to_file.options import DedupeOptions


class DedupeStep:
    """A step that passes the messages whose key was not written before. One batch at a time, until it is safe."""

    def __init__(self, options: DedupeOptions) -> None:
        self.duplicates = 0
        self.keyless = 0
        self._expression = options.key
        self._stage = DedupeStage(options.key, options.path, window=options.window, max_keys=options.most)

    async def start(self) -> None:
        """Open the file of keys; StartError when it cannot be used."""
        await self._stage.start()

    async def apply(self, batch: Batch) -> Passed:
        """The messages of `batch` that are no duplicates."""
        keys: dict[int, bytes] = {}
        found = self._keys(batch)
        for origin, start, stop in batch.parts:
            prefix = origin.topic.encode() + b"\0"
            for place in range(start, stop):
                if (key := found[place]) is not None:
                    keys[place] = prefix + key
        self.keyless += len(batch) - len(keys)
        classified = await self._stage.classify(keys)
        reservations = (_ReservedKeys(self, self._stage, classified),)
        repeated = classified.pending.keys() | set(classified.duplicates)
        if not repeated:
            return Passed(batch, range(len(batch)), {}, reservations)
        places = [place for place in range(len(batch)) if place not in repeated]
        return Passed(batch.pick(places), places, {}, reservations)

    async def close(self) -> None:
        """Close the file of keys."""
        await self._stage.close()

    def _keys(self, batch: Batch) -> list[bytes | None]:
        """The key of each message; None if the expression needs the body and this is not JSON, or if the expression
        fails or returns nothing."""
        find, rows = self._stage.key, rows_of(batch, self._expression.variables)
        loads = parser_for(batch.bodies) if self._expression.reads_body else None
        keys: list[bytes | None] = []
        for body, row in zip(batch.bodies, rows, strict=True):
            try:
                keys.append(find(None if loads is None else loads(body), body, row))
            except EvaluationError:
                keys.append(None)
        return keys


class _ReservedKeys:
    """The keys of the messages of one batch."""

    def __init__(self, step: DedupeStep, stage: DedupeStage, classified: Classified) -> None:
        self._step = step
        self._stage = stage
        self._classified = classified

    async def settle(self) -> None:
        """Remember the keys. All that was new is safe, so no message with the same key has to come again."""
        duplicates, _ = await self._stage.settle(self._classified)
        self._step.duplicates += duplicates

    async def release(self) -> None:
        """Remember no key."""
        await self._stage.release(self._classified)

"""--dedupe: a message that was sent twice is archived once. In: batches. Out: batches without duplicates, to a sink.

The key of a message is what an expression returns for its JSON; a message without a key is always archived. A key is
remembered once its message is safe: after a crash between the two the message is archived twice rather than never.
Duplicates are finished together with their batch.
"""

from __future__ import annotations

from qtools.cli.dedupe import DedupeStage
from qtools.errors import EvaluationError
from qtools.flow.contract import Sink
from qtools.flow.json_values import parser_for
from qtools.flow.variables import rows_of
from qtools.message import Batch
from qtools.to_file.options import DedupeOptions


class DedupedSink:
    """A Sink that writes to `sink` the messages whose key was not written before. One write at a time."""

    def __init__(self, sink: Sink, options: DedupeOptions) -> None:
        self.duplicates = 0
        self.keyless = 0
        self._sink = sink
        self._expression = options.key
        self._stage = DedupeStage(options.key, options.path, window=options.window, max_keys=options.most)

    async def start(self) -> None:
        """Open the file of keys; StartError when it cannot be used."""
        await self._stage.start()

    async def write(self, batch: Batch) -> None:
        """Write the messages of `batch` that are no duplicates. If the sink raises, no key is remembered."""
        keys: dict[int, bytes] = {}
        found = self._keys(batch)
        for origin, start, stop in batch.parts:
            prefix = origin.topic.encode() + b"\0"
            for place in range(start, stop):
                if (key := found[place]) is not None:
                    keys[place] = prefix + key
        self.keyless += len(batch) - len(keys)
        classified = await self._stage.classify(keys)
        repeated = classified.pending.keys() | set(classified.duplicates)
        try:
            if len(repeated) < len(batch):
                await self._sink.write(batch.without(list(repeated)) if repeated else batch)
        except BaseException:
            await self._stage.release(classified)
            raise
        duplicates, _ = await self._stage.settle(classified)  # all that was new is safe, so none has to come again
        self.duplicates += duplicates

    async def close(self) -> None:
        """Close the file of keys; the sink is closed by its owner."""
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

"""--dedupe: a message that was sent twice is archived once. In: batches. Out: batches without duplicates, to a sink.

The key of a message is what an expression returns for its JSON; a message without a key is always archived. A key is
remembered once its message is safe: after a crash between the two the message is archived twice rather than never.
Duplicates are finished together with their batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from qtools.cli.dedupe import DedupeStage
from qtools.errors import EvaluationError
from qtools.flow.contract import Sink
from qtools.flow.dedupe import NEW
from qtools.flow.filter import parser_for
from qtools.message import Batch
from qtools.to_file.options import DedupeOptions


class DedupedSink:
    """A Sink that writes to `sink` what was not written to it before. One write at a time."""

    def __init__(self, sink: Sink, options: DedupeOptions) -> None:
        self.duplicates = 0
        self.keyless = 0
        self._sink = sink
        self._stage = DedupeStage(options.key, options.path, window=options.window, max_keys=options.most)

    async def start(self) -> None:
        """Open the file of keys; StartError when it cannot be used."""
        await self._stage.start()

    async def write(self, batch: Batch) -> None:
        """Write the new messages of `batch`. Raises what the sink raises; then no key of the batch is remembered."""
        keyed: list[tuple[int, bytes]] = []
        fresh: list[int] = []
        for origin, start, stop in batch.parts:
            prefix = origin.topic.encode() + b"\0"
            for place, key in enumerate(self._keys(batch.bodies[start:stop]), start):
                if key is None:
                    fresh.append(place)
                else:
                    keyed.append((place, prefix + key))
        self.keyless += len(fresh)
        verdicts = await self._stage.check([key for _, key in keyed])
        new = [each for each, verdict in zip(keyed, verdicts, strict=True) if verdict is NEW]
        # A PENDING key occurs earlier in this batch, as no other batch is being written.
        fresh = sorted([*fresh, *(place for place, _ in new)])
        keys = [key for _, key in new]
        try:
            if fresh:
                await self._sink.write(batch if len(fresh) == len(batch) else batch.pick(fresh))
        except BaseException:
            await self._stage.release(keys)
            raise
        await self._stage.commit(keys)
        self.duplicates += len(batch) - len(fresh)

    async def close(self) -> None:
        """Close the file of keys; the sink is closed by its owner."""
        await self._stage.close()

    def _keys(self, bodies: Sequence[bytes]) -> list[bytes | None]:
        """The key of each of `bodies`; None if it is not JSON, or the expression fails or returns nothing."""
        find, loads = self._stage.key, parser_for(bodies)
        keys: list[bytes | None] = []
        for body in bodies:
            try:
                keys.append(find(loads(body), body))
            except EvaluationError:
                keys.append(None)
        return keys

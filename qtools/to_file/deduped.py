"""What producers sent twice is archived once. In: batches. Out: batches without what was archived before, to a sink.

A message's key is what an expression finds in its JSON; one without a key always passes. A key is remembered when its
message is safe: a crash between the two archives twice rather than never. Duplicates are finished in the queue with the
batch they came in.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import orjson

from qtools.cli.worker import Worker
from qtools.errors import EvaluationError
from qtools.flow.contract import Sink
from qtools.flow.dedupe import Dedupe, Verdict
from qtools.flow.expression import NOTHING
from qtools.message import Batch
from qtools.to_file.options import DedupeOptions


class DedupedSink:
    """`sink`, without what it had before. One write at a time."""

    def __init__(self, sink: Sink, options: DedupeOptions) -> None:
        """StartError where the keys cannot be read."""
        self.duplicates = 0
        self.keyless = 0
        self._sink = sink
        self._key = options.key
        self._dedupe = Dedupe(options.path, window=options.window, max_keys=options.most)
        self._worker = Worker("dedupe")

    async def write(self, batch: Batch) -> None:
        """Write what is new of `batch`. Raises what the sink raises; then nothing of it is remembered."""
        fresh, keys = await self._worker.call(self._judge, batch)
        try:
            if fresh:
                await self._sink.write(batch if len(fresh) == len(batch) else batch.pick(fresh))
        except BaseException:
            await self._worker.call(self._dedupe.release, keys)
            raise
        if keys:
            await self._worker.call(self._dedupe.commit, keys, time.time())
        self.duplicates += len(batch) - len(fresh)

    async def close(self) -> None:
        """Let go of the keys; the sink is somebody else's."""
        await self._worker.call(self._dedupe.close)

    def _judge(self, batch: Batch) -> tuple[list[int], list[bytes]]:
        """The places of what is to be written, and the keys that are reserved for it."""
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
        verdicts = self._dedupe.check_and_reserve([key for _, key in keyed], time.time())
        new = [each for each, verdict in zip(keyed, verdicts, strict=True) if verdict is Verdict.NEW]
        # What is PENDING has an equal one earlier in this batch, as there is no other under way.
        return sorted([*fresh, *(place for place, _ in new)]), [key for _, key in new]

    def _keys(self, bodies: Sequence[bytes]) -> list[bytes | None]:
        find, loads, dumps = self._key.evaluate, orjson.loads, orjson.dumps
        keys: list[bytes | None] = []
        for body in bodies:
            try:
                found = find(loads(body))
                keys.append(None if found is None or found is NOTHING else dumps(found))
            except (ValueError, TypeError, EvaluationError):  # not JSON, no such path, a number beyond 64 bits
                keys.append(None)
        return keys

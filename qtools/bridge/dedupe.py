"""--dedupe of a bridge: a message whose key was sent within the window is not sent again. In: a plan. Out: the plan
without such messages.

The stage that decides is cli/dedupe.py. Here a message has a key only if it would be sent: not if it is filtered out or
cannot be routed. A message whose key is null or nothing is always sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Sequence
from pathlib import Path

from qtools.cli.dedupe import Classified, DedupeStage
from qtools.errors import EvaluationError, QtoolsError, RouteFailed
from qtools.expressions.expression import Expression
from qtools.flow.variables import rows_of
from qtools.message import Batch
from qtools.names import Subscription
from qtools.paths import local_broker_paths, make_private
from qtools.routing.routes import Plan

LONGEST_NAME = 100  # bytes of a file name: systems allow 255, and SQLite appends suffixes


def default_path(sources: Sequence[Subscription]) -> Path:
    """The file of keys of a bridge that reads `sources`, unless --dedupe-file names one; creates its directory."""
    name = "+".join(sorted(f"{source.topic},{source.channel}" for source in sources))
    if len(name) > LONGEST_NAME:
        name = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    directory = local_broker_paths().data.parent / "dedupe"
    make_private(directory)
    return directory / f"{name}.keys"


class PlanDedupe:
    """Keys by `key`, kept in the file at `path` for `window` s, at most `most` of them."""

    def __init__(self, key: Expression, path: Path, window: float, most: int) -> None:
        self._key = key
        self._stage = DedupeStage(key, path, window=window, max_keys=most)

    async def start(self) -> None:
        """Open the file; StartError when it cannot be used."""
        await self._stage.start()

    async def classify(self, plan: Plan, batch: Batch, failed: dict[int, QtoolsError]) -> Classified:
        """Remove from `plan`, the plan for `batch`, the messages that are not to be sent now. A message on which the
        expression fails is removed too, and added to `failed` by its place."""
        bodies, rows = batch.bodies, rows_of(batch, self._key.variables)
        keys: dict[int, bytes] = {}
        for place in sorted(set().union(*plan.places)):
            try:
                key = self._stage.key(plan.values[place] if plan.values else None, bodies[place], rows[place])
                if key is not None:
                    keys[place] = key
            except EvaluationError as error:
                failed[place] = RouteFailed(f"--dedupe has no key for it: {error}")
        classified = await self._stage.classify(keys)
        if classified.duplicates or classified.pending or failed:
            _take_out(plan, failed.keys() | classified.pending.keys() | set(classified.duplicates))
        return classified

    async def settle(self, classified: Classified, unsent: Container[int]) -> tuple[int, list[int]]:
        """As `DedupeStage.settle`: the number of duplicates, and the places of the messages that have to come again."""
        return await self._stage.settle(classified, unsent)

    async def release(self, classified: Classified) -> None:
        """Release the keys of a batch that could not be sent."""
        await self._stage.release(classified)

    async def close(self) -> None:
        await self._stage.close()


def _take_out(plan: Plan, gone: set[int]) -> None:
    """Remove the places `gone` from every group of `plan`."""
    groups, homes = [], []
    for (topic, bodies), places in zip(plan.groups, plan.places, strict=True):
        left = [(place, body) for place, body in zip(places, bodies, strict=True) if place not in gone]
        if left:
            groups.append((topic, [body for _, body in left]))
            homes.append([place for place, _ in left])
    plan.groups[:] = groups
    plan.places[:] = homes

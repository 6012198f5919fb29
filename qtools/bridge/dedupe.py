"""--dedupe: a message whose key was sent within the window is not sent again. In: a plan. Out: the plan without it.

    plan ─▶ sift ─▶ NEW         stays in the plan, its key reserved; `keep` once it is sent, else `release`
                    DUPLICATE   leaves the plan and is finished: a message with the same key is safe
                    PENDING     leaves the plan: a message with the same key is being sent; checked again afterwards

Only a message that would be sent has a key: not one that is filtered out or cannot be routed. A message whose key is
null or nothing is always sent. The file of keys is used in a thread, twice a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qtools.cli.dedupe import DedupeStage
from qtools.errors import EvaluationError, QtoolsError, RouteFailed
from qtools.expressions.expression import Expression
from qtools.flow.dedupe import DUPLICATE, NEW, PENDING
from qtools.names import Subscription
from qtools.paths import local_places, make_private
from qtools.routing.routes import Plan

LONGEST_NAME = 100  # bytes of a file name: systems allow 255, and SQLite appends suffixes


def default_path(sources: Sequence[Subscription]) -> Path:
    """The file of keys of a bridge that reads `sources`, unless --dedupe-file names one; creates its directory."""
    name = "+".join(sorted(f"{source.topic},{source.channel}" for source in sources))
    if len(name) > LONGEST_NAME:
        name = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    directory = local_places().data.parent / "dedupe"
    make_private(directory)
    return directory / f"{name}.keys"


@dataclass(slots=True)
class Sifted:
    """The result for a batch. keys: of the messages that are sent, by place; duplicates: how many are finished unsent;
    pending: keys of those to be checked again, by place."""

    keys: dict[int, bytes] = field(default_factory=dict)
    duplicates: int = 0
    pending: dict[int, bytes] = field(default_factory=dict)


class PlanDedupe:
    """Keys by `key`, kept in the file at `path` for `window` s, at most `most` of them."""

    def __init__(self, key: Expression, path: Path, window: float, most: int) -> None:
        self._stage = DedupeStage(key, path, window=window, max_keys=most)

    async def start(self) -> None:
        """Open the file; StartError when it cannot be used."""
        await self._stage.start()

    async def sift(self, plan: Plan, bodies: Sequence[bytes], failed: dict[int, QtoolsError]) -> Sifted:
        """Remove from `plan` the messages that were sent before. bodies: of the whole batch. A message on which the
        expression fails is removed too, and added to `failed` by its place."""
        sifted = Sifted()
        keys: dict[int, bytes] = {}
        for place in sorted(set().union(*plan.places)):
            try:
                key = self._stage.key(plan.values[place], bodies[place])
                if key is not None:
                    keys[place] = key
            except EvaluationError as error:
                failed[place] = RouteFailed(f"--dedupe has no key for it: {error}")
        verdicts = await self._stage.check(list(keys.values()))
        for (place, key), verdict in zip(keys.items(), verdicts, strict=True):
            if verdict is NEW:
                sifted.keys[place] = key
            elif verdict is PENDING:
                sifted.pending[place] = key
        sifted.duplicates = verdicts.count(DUPLICATE)
        if sifted.duplicates or sifted.pending or failed:
            gone = failed.keys() | (keys.keys() - sifted.keys.keys())
            _take_out(plan, gone)
        return sifted

    async def keep(self, keys: Sequence[bytes]) -> None:
        """Remember `keys`: what has them was sent."""
        await self._stage.commit(keys)

    def release(self, keys: Sequence[bytes]) -> None:
        """Forget the reservation of `keys`: what has them was not sent."""
        self._stage.release(keys)

    async def ask_again(self, pending: dict[int, bytes]) -> tuple[int, list[int]]:
        """Check the keys that were PENDING again: the number that are duplicates by now, and the places of the other
        messages, which have to be requeued."""
        if not pending:
            return 0, []
        verdicts = await self._stage.check(list(pending.values()))
        fresh = [key for key, verdict in zip(pending.values(), verdicts, strict=True) if verdict is NEW]
        if fresh:  # the other message was not sent: this one is requeued, and sent when it comes again
            self.release(fresh)
        others = [place for place, verdict in zip(pending, verdicts, strict=True) if verdict is not DUPLICATE]
        return len(pending) - len(others), others

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

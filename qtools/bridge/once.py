"""--dedupe: a message whose key was sent within the window is not sent again. In: a plan. Out: less of a plan.

    plan ─▶ sift ─▶ NEW         stays in the plan, its key reserved; `keep` once it is sent, `release` where it is not
                    DUPLICATE   leaves the plan: an equal one is safe, so it is finished
                    PENDING     leaves the plan: an equal one is on its way; asked again when this batch is through

Only what would be sent has a key: not what is filtered, nor what cannot be routed. A key that is null or nothing is
none: such a message is always sent. The disk is asked in a thread, twice a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qtools.cli.dedupe import DedupeStage
from qtools.errors import EvaluationError, QtoolsError, RouteFailed
from qtools.flow.dedupe import DUPLICATE, NEW, PENDING
from qtools.flow.expression import Expression
from qtools.flow.routes import Plan
from qtools.names import Subscription
from qtools.places import local_places, make_private

LONGEST_NAME = 100  # of a file: systems take 255 bytes, and SQLite adds to it


def default_path(sources: Sequence[Subscription]) -> Path:
    """Where the keys of a bridge that reads `sources` are kept, unless it is told; its directory is made."""
    name = "+".join(sorted(f"{source.topic},{source.channel}" for source in sources))
    if len(name) > LONGEST_NAME:
        name = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    directory = local_places().data.parent / "dedupe"
    make_private(directory)
    return directory / f"{name}.keys"


@dataclass(slots=True)
class Sifted:
    """What became of a batch: the keys of what is sent, by place, and what is not sent."""

    keys: dict[int, bytes] = field(default_factory=dict)
    duplicates: int = 0
    pending: dict[int, bytes] = field(default_factory=dict)


class Once:
    """Keys by `key`, kept in the file at `path` for `window` s, at most `most` of them."""

    def __init__(self, key: Expression, path: Path, window: float, most: int) -> None:
        self._stage = DedupeStage(key, path, window=window, max_keys=most)

    async def start(self) -> None:
        """Open the file; StartError when it cannot be used."""
        await self._stage.start()

    async def sift(self, plan: Plan, bodies: Sequence[bytes], failed: dict[int, QtoolsError]) -> Sifted:
        """Take out of `plan` what was sent before. `bodies` are those of the batch; what has no key for a reason goes
        into `failed`."""
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
        """Of what was on its way elsewhere: how many are duplicates by now, and the places of the others, which are
        to be given back."""
        if not pending:
            return 0, []
        verdicts = await self._stage.check(list(pending.values()))
        fresh = [key for key, verdict in zip(pending.values(), verdicts, strict=True) if verdict is NEW]
        if fresh:  # the one that was on its way did not arrive: this one comes again and is sent then
            self.release(fresh)
        others = [place for place, verdict in zip(pending, verdicts, strict=True) if verdict is not DUPLICATE]
        return len(pending) - len(others), others

    async def close(self) -> None:
        await self._stage.close()


def _take_out(plan: Plan, gone: set[int]) -> None:
    """Leave the places `gone` out of every group."""
    groups, homes = [], []
    for (topic, bodies), places in zip(plan.groups, plan.places, strict=True):
        left = [(place, body) for place, body in zip(places, bodies, strict=True) if place not in gone]
        if left:
            groups.append((topic, [body for _, body in left]))
            homes.append([place for place, _ in left])
    plan.groups[:] = groups
    plan.places[:] = homes

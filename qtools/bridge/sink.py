"""q-bridge's Sink: plans a batch, publishes it, and handles messages that cannot be routed, before `write` returns.

    batch ─▶ plan ─▶ one MPUB a topic, all at once ─▶ OK from every destination ─▶ counted
                └─▶ cannot be routed ─▶ dead letter to the source's brokers ─▶ OK ─▶ counted

Each message is counted once: as routed (which includes those passed on by --on-error pass), filtered, duplicate,
dead-lettered or dropped; the others are requeued, and counted by the loop. In: batches. Out: calls of publishers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qtools.bridge.lost_attributes import LostAttributes
from qtools.bridge.routing import Planning
from qtools.cli.failure_log import FailureLog
from qtools.errors import PartialFailure, Postponed, QtoolsError, RouteFailed
from qtools.flow.contract import GroupPublisher
from qtools.flow.topic_sink import publish_groups
from qtools.message import Batch
from qtools.routing.dead_letter_sink import DeadLetterSink
from qtools.routing.routes import Plan

if TYPE_CHECKING:  # few bridges have one, and its modules take time to import
    from qtools.bridge.dedupe import PlanDedupe

EQUAL_MS = 1000  # the delay of a message whose key is that of one that was not sent


@dataclass(slots=True)
class BridgeCounts:
    """What became of the messages that were not requeued."""

    routed: int = 0
    filtered: int = 0
    duplicates: int = 0
    dead_lettered: int = 0
    dropped: int = 0
    hits: Counter[str] = field(default_factory=Counter)  # copies sent, by route


class BridgeSink:
    """Sends what `planning` says, which may be exchanged between two batches.

    dead_letters: publishes the dead letters. on_error: "dead-letter", "drop", "fail" or "pass".
    max_attempts: deliveries after which a message counts as failed; 0 for never. dedupe: --dedupe, if it was given.
    lost: looks at what the destination cannot keep, if there is something.
    """

    def __init__(
        self,
        planning: Planning,
        publisher: GroupPublisher,
        dead_letters: DeadLetterSink,
        *,
        on_error: str,
        max_attempts: int = 0,
        dedupe: PlanDedupe | None = None,
        lost: LostAttributes | None = None,
    ) -> None:
        self.planning = planning
        self.counts = BridgeCounts()
        self._publisher = publisher
        self._dead_letters = dead_letters
        self._on_error = on_error
        self._max_attempts = max_attempts
        self._dedupe = dedupe
        self._lost = lost
        self._failure_log = FailureLog("qtools.bridge")

    async def write(self, batch: Batch) -> None:
        """Return when every message is settled.

        PartialFailure names those that are not: Postponed messages are requeued; others end the run.
        """
        planning = self.planning
        if self._lost is not None:
            self._lost.look(batch)
        failed = self._over_max_attempts(batch) if self._max_attempts else {}
        plan = planning.planner.plan(batch, failed)
        failed.update(plan.failed)
        duplicates = 0
        pending: list[int] = []
        if self._dedupe is None:
            await self._publish(batch, plan, planning, failed)
        else:
            duplicates, pending = await self._publish_deduped(self._dedupe, batch, plan, planning, failed)
        back: dict[int, QtoolsError] = {
            place: Postponed("a message with the same key is still being sent", EQUAL_MS) for place in pending
        }
        if failed:
            await self._deal_with(batch, failed, back)
        counts = self.counts
        counts.routed += len(batch) - plan.filtered - duplicates - len(pending) - len(failed)
        counts.filtered += plan.filtered
        counts.duplicates += duplicates
        for name, copies in zip(planning.planner.names, plan.hits, strict=True):
            if copies:
                counts.hits[name] += copies
        if back:
            raise PartialFailure(back)

    async def failures(self, batch: Batch) -> dict[int, QtoolsError]:
        """Which messages of `batch` cannot be routed, by place, and why; nothing is sent."""
        return self.planning.planner.plan(batch).failed

    async def _publish(self, batch: Batch, plan: Plan, planning: Planning, failed: dict[int, QtoolsError]) -> None:
        """Send the planned messages. Adds refused messages to `failed`, and clears it if its messages are passed on."""
        if failed and self._on_error == "pass":
            plan.pass_on(batch.bodies, sorted(failed), planning.passing)
            self._log_failures("passed on as they are", failed)
            failed.clear()
        if plan.groups:
            refused = await publish_groups(
                self._publisher, plan.groups, plan.places,
                batch=batch, attributes=plan.attributes, fixed=planning.fixed,
            )  # fmt: skip
            for place, copy in refused.items():
                failed.setdefault(place, RouteFailed(f"to {copy.topic}: {copy.error}"))

    async def _publish_deduped(
        self, dedupe: PlanDedupe, batch: Batch, plan: Plan, planning: Planning, failed: dict[int, QtoolsError]
    ) -> tuple[int, list[int]]:
        """Send the messages whose key was not sent before. Returns how many messages are duplicates, and the places of
        those that have to come again, as a message with the same key was not sent."""
        classified = await dedupe.classify(plan, batch, failed)
        try:
            await self._publish(batch, plan, planning, failed)
        except BaseException:
            await dedupe.release(classified)
            raise
        return await dedupe.settle(classified, failed)

    async def _deal_with(self, batch: Batch, failed: dict[int, QtoolsError], back: dict[int, QtoolsError]) -> None:
        """Handle the messages that `failed`, as on_error says. Messages to requeue are added to `back`."""
        if self._on_error == "fail":
            back.update(failed)
        elif self._on_error == "drop":
            self._log_failures("dropped", failed)
            self.counts.dropped += len(failed)
        else:
            postponed = await self._dead_letter(batch, failed)
            self.counts.dead_lettered += len(failed) - len(postponed)
            back.update(postponed)

    async def close(self) -> None:
        """Log what was only counted so far. The caller that made the publishers closes them."""
        self._failure_log.flush()

    # ── what cannot be routed ──

    def _over_max_attempts(self, batch: Batch) -> dict[int, QtoolsError]:
        """The messages that were delivered more often than max_attempts, by place."""
        most = self._max_attempts
        return {
            place: RouteFailed(f"it was delivered {times} times, more than --max-attempts {most}")
            for place, times in batch.delivered_more_than(most).items()
        }

    async def _dead_letter(self, batch: Batch, failed: dict[int, QtoolsError]) -> dict[int, QtoolsError]:
        """Publish the messages that `failed` as dead letters. Returns the messages that no dead letter can hold."""
        sent, postponed = await self._dead_letters.send(batch, failed)
        for topic, errors in sent.items():
            self._log_failures(f"sent to {topic}", errors)
        if postponed:
            self._log_failures("given back for a while, as not even a dead letter can hold them", postponed)
        return postponed

    def _log_failures(self, fate: str, failed: Mapping[int, QtoolsError]) -> None:
        self._failure_log.log(fate, map(str, failed.values()))

    def __repr__(self) -> str:
        return f"<BridgeSink {self._publisher!r} {self.counts}>"

"""q-bridge's Sink: plans a batch, publishes it, and handles messages that cannot be routed, before `write` returns.

    batch ─▶ plan ─▶ one MPUB a topic, all at once ─▶ OK from every destination ─▶ counted
                └─▶ cannot be routed ─▶ dead letter to the source's brokers ─▶ OK ─▶ counted

Each message is counted once: as routed (which includes those passed on by --on-error pass), filtered, duplicate,
dead-lettered or dropped; the others are requeued, and counted by the loop. In: batches. Out: calls of publishers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qtools.attributes import Attributes
from qtools.bridge.lost_attributes import LostAttributes
from qtools.bridge.routing import Planning
from qtools.engines.contract import Publisher
from qtools.errors import BrokerError, DeadLettersRefused, PartialFailure, Postponed, QtoolsError, RouteFailed
from qtools.flow.contract import GroupPublisher
from qtools.flow.topic_sink import publish_groups
from qtools.message import Batch
from qtools.names import Subscription
from qtools.routing.dead_letter import encode_dead_letter
from qtools.routing.routes import Plan

if TYPE_CHECKING:  # few bridges have one, and its modules take time to import
    from qtools.bridge.dedupe import PlanDedupe

logger = logging.getLogger("qtools.bridge")

QUIET = 5.0  # s between two lines about messages that could not be routed
NAMED_REASONS = 3  # that such a line names; the other messages are counted together
MOST_REASONS = 100  # that are counted one by one until the next line: a reason may quote the message
OTHER_REASONS = "other reasons"
POSTPONE_MS = 60_000  # for each attempt: the delay of a message that is too large even for a dead letter
EQUAL_MS = 1000  # the delay of a message whose key is that of one that was not sent
MOST_POSTPONED_MS = 3_600_000  # nsqd's --max-req-timeout


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

    dead_letters: publishes the dead letters. on_error: "dead-letter", "drop", "fail" or "pass". dead_topics: source's
    topic → topic of its dead letters. sources: what the bridge reads; a dead letter names its channel.
    max_attempts: deliveries after which a message counts as failed; 0 for never. dedupe: --dedupe, if it was given.
    lost: looks at what the destination cannot keep, if there is something.
    """

    def __init__(
        self,
        planning: Planning,
        publisher: GroupPublisher,
        dead_letters: Publisher,
        *,
        on_error: str,
        dead_topics: Mapping[str, str],
        sources: Sequence[Subscription],
        max_attempts: int = 0,
        dedupe: PlanDedupe | None = None,
        lost: LostAttributes | None = None,
    ) -> None:
        self.planning = planning
        self.counts = BridgeCounts()
        self._publisher = publisher
        self._dead_letters = dead_letters
        self._on_error = on_error
        self._dead_topics = dead_topics
        self._channels: dict[str, str] = {}  # topic → its channel, or channels, as a message does not say which
        for source in sources:
            known = self._channels.get(source.topic)
            self._channels[source.topic] = f"{known},{source.channel}" if known else source.channel
        self._max_attempts = max_attempts
        self._dedupe = dedupe
        self._lost = lost
        self._failure_log = FailureLog()

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

    def failures(self, batch: Batch) -> dict[int, QtoolsError]:
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
        """The caller that made the publishers closes them."""

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
        places = sorted(failed)
        some = batch.pick(places)
        attributes = some.attributes() or Attributes()
        keys = attributes.keys or [None] * len(some)
        headers = attributes.headers or [()] * len(some)
        groups: dict[str, tuple[list[bytes], list[int]]] = {}
        for origin, start, stop in some.parts:
            letters, at = groups.setdefault(self._dead_topics[origin.topic], ([], []))
            channel = self._channels[origin.topic]
            for nth, message in enumerate(some.messages[start:stop], start):
                place = places[nth]
                letters.append(
                    encode_dead_letter(
                        message, origin.topic, channel, origin.address, failed[place],
                        key=keys[nth], headers=headers[nth],
                    )
                )  # fmt: skip
                at.append(place)
        try:
            refused = await publish_groups(
                self._dead_letters,
                [(topic, letters) for topic, (letters, _) in groups.items()],
                [at for _, at in groups.values()],
            )
        except BrokerError as error:
            raise DeadLettersRefused(failed[places[0]], len(places), error) from error
        postponed: dict[int, QtoolsError] = {}
        for place, copy in refused.items():
            delay = min(MOST_POSTPONED_MS, POSTPONE_MS * max(1, batch.messages[place].attempts))
            postponed[place] = Postponed(f"{failed[place]}; as a dead letter {copy.error}", delay)
        for topic, (_, at) in groups.items():
            sent = {place: failed[place] for place in at if place not in postponed}
            if sent:
                self._log_failures(f"sent to {topic}", sent)
        if postponed:
            self._log_failures("given back for a while, as not even a dead letter can hold them", postponed)
        return postponed

    def _log_failures(self, fate: str, failed: Mapping[int, QtoolsError]) -> None:
        self._failure_log.log(fate, map(str, failed.values()))

    def __repr__(self) -> str:
        return f"<BridgeSink {self._publisher!r} {self.counts}>"


class FailureLog:
    """Logs messages that could not be routed: the first of each fate at once, later ones as counts, at most one line
    every QUIET s."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._last: dict[str, float] = {}
        self._unlogged: dict[str, Counter[str]] = {}  # messages since the last line, by fate and reason

    def log(self, fate: str, reasons: Iterable[str]) -> None:
        """Note messages with the same `fate`: why each could not be routed."""
        counts = self._unlogged.setdefault(fate, Counter())
        for why in reasons:
            counts[why if why in counts or len(counts) < MOST_REASONS else OTHER_REASONS] += 1
        now = self._loop.time()
        if now - self._last.get(fate, -QUIET) < QUIET:
            return
        self._last[fate] = now
        del self._unlogged[fate]
        count = counts.total()
        logger.warning("%s %s: %s", f"{count:,} message{'' if count == 1 else 's'}", fate, _listed(counts))


def _listed(counts: Counter[str]) -> str:
    """`REASON`, or `REASON (20), REASON (12), other reasons (7)`, the most frequent first."""
    if len(counts) == 1:
        return next(iter(counts))
    others = counts.pop(OTHER_REASONS, 0)
    named = counts.most_common(NAMED_REASONS)
    others += counts.total() - sum(count for _, count in named)
    texts = [f"{why} ({count:,})" for why, count in named] + ([f"{OTHER_REASONS} ({others:,})"] if others else [])
    return ", ".join(texts)

"""Sends messages to topics by a routes file, as a Sink. In: batches. Out: one MPUB for each topic, answered OK.

Messages that match no route, and those that cannot be routed and are left out, are confirmed with their batch, in its
order.
"""

from __future__ import annotations

from collections.abc import Callable

from qtools.errors import PartialFailure, QtoolsError, SinkError, UsageError
from qtools.expressions.expression import Expression
from qtools.flow.contract import GroupPublisher
from qtools.flow.steps import ADVICE, OnError
from qtools.flow.topic_sink import publish_groups
from qtools.message import Batch
from qtools.names import MAX_NAME_LENGTH
from qtools.routing.routes import Plan, fixed_topics
from qtools.routing.routes_file import tested_routes


class RoutedSink:
    """Publishes by the routes in the file at `path`.

    where: only messages for which it is true are routed. on_error: what to do with a message that cannot be routed.
    name: returns the name of a message for the log, given its batch and place. warn: takes a line about a message that
    is left out. longest_topic: the most characters of a topic.
    """

    def __init__(
        self,
        publisher: GroupPublisher,
        path: str,
        where: Expression | None,
        on_error: OnError,
        *,
        name: Callable[[Batch, int], str],
        warn: Callable[[str], None],
        longest_topic: int = MAX_NAME_LENGTH,
    ) -> None:
        file = tested_routes(path, longest_topic)
        self.passed = 0  # messages that were sent to at least one topic
        self.passed_bytes = 0
        self.filtered = 0
        self.left_out = 0
        self.let_through = 0
        self._publisher = publisher
        self._routes = file.make(where=where)
        self._on_error = on_error
        self._passing = fixed_topics(file.default)
        self._name = name
        self._warn = warn
        if on_error == "pass" and not self._passing:
            raise UsageError(f"--on-error pass needs a [default] with a fixed topic, and {path} has none")

    async def write(self, batch: Batch) -> None:
        """Publish the batch. PartialFailure names the messages that no broker accepts. With `on_error` "fail",
        SinkError at the first message that cannot be routed; the messages before it are safe."""
        plan = self._routes.plan(batch)
        if not plan.failed or self._on_error != "fail":
            refused = await self._send(batch, plan)
            if refused:
                raise PartialFailure(refused)
            return
        end = min(plan.failed)
        stop = SinkError(f"{self._name(batch, end)}: {plan.failed[end]} ({ADVICE})", end)
        before = batch.pick(range(end))
        refused = await self._send(before, self._routes.plan(before))
        if refused:
            raise PartialFailure(refused | dict.fromkeys(range(end, len(batch)), stop))
        raise stop

    async def _send(self, batch: Batch, plan: Plan) -> dict[int, QtoolsError]:
        """Publish by `plan`. Returns the messages that no broker accepts, by place."""
        failed = sorted(plan.failed)
        if failed and self._on_error == "pass":
            plan.pass_on(batch.bodies, failed, self._passing)
        refused = await publish_groups(self._publisher, plan.groups, plan.places, batch=batch)
        left_out = failed if self._on_error == "skip" else []
        for place in left_out:
            self._warn(f"{self._name(batch, place)}: {plan.failed[place]}: left out")
        self.left_out += len(left_out)
        self.let_through += len(failed) - len(left_out)
        self.filtered += plan.filtered
        self.passed += len(batch) - plan.filtered - len(left_out) - len(refused)
        self.passed_bytes += sum(len(body) for _, bodies in plan.groups for body in bodies)
        return {place: copy.error for place, copy in refused.items()}

    async def close(self) -> None:
        """The caller that made the publisher closes it."""

    def notes(self, done: str) -> list[str]:
        """Notes for the summary: how many messages were not `done`, and why."""
        notes = []
        if self.filtered:
            notes.append(f"{self.filtered:,} went nowhere")
        if self.left_out:
            notes.append(f"{self.left_out:,} that could not be routed left out")
        if self.let_through:
            notes.append(f"{self.let_through:,} that could not be routed {done} as they were")
        return notes

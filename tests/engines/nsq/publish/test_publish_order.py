"""With one broker the order of what is published is the order in the topic, whatever happens on the way.

A scripted broker refuses what is over its limits, loses connections before and after it has stored a command, refuses
for a while and for good, and answers late; the HTTP API that knows its limits answers late too, or not at all.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from qtools.engines.connections import keep_connected
from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.protocol.client_commands import Command, Publish
from qtools.engines.nsq.publish import batch_splitter, publish_queue
from qtools.engines.nsq.publish.publisher import NsqPublisher
from qtools.errors import BrokerError, MessageRefused, QtoolsError

from ..scripted import Caller, Scripted, settings, web

LIMIT = 20  # bytes of a message
BODY_LIMIT = 100  # bytes of an MPUB's body
REFUSED_TOPIC = "secret"

NONE, CUT_BEFORE, CUT_AFTER, REFUSE_FOR_NOW, ANSWER_LATE = range(5)


@dataclass
class Faulty:
    """What the broker does to each publish in turn; after the list has ended, nothing is wrong."""

    faults: Sequence[int]
    seen: int = 0
    late: dict[Caller, deque[Callable[[], object]]] = field(default_factory=dict)  # what is not done or said yet

    def __call__(self, caller: Caller, command: Command) -> bool:
        if not isinstance(command, Publish):
            return False
        if caller.transport.is_closing():
            return True
        # The reader hands over a run of single PUBs as one command: take each as nsqd does.
        for bodies in [command.bodies] if command.command == "MPUB" else [[body] for body in command.bodies]:
            if self.late.get(caller):  # answers come in the order of the commands
                self._later(caller, partial(self._take, caller, command, bodies))
            elif not self._take(caller, command, bodies):
                break
        return True

    def _later(self, caller: Caller, call: Callable[[], object], *, first: bool = False) -> None:
        """Call it in a later turn of the event loop, before all that is to be called later already, or after it."""
        late = self.late.setdefault(caller, deque())
        if first:
            late.appendleft(call)
        else:
            late.append(call)
        asyncio.get_running_loop().call_soon(self._next, caller)

    def _next(self, caller: Caller) -> None:
        call = self.late[caller].popleft()
        if not caller.transport.is_closing():
            call()

    def _take(self, caller: Caller, command: Publish, bodies: Sequence[bytes]) -> bool:
        if command.topic == REFUSED_TOPIC:
            caller.refuse("E_UNAUTHORIZED", "not this topic")
            return False
        if any(len(body) > LIMIT for body in bodies):
            caller.refuse("E_BAD_MESSAGE", f"{command.command} message too big")
            return False
        if 4 + sum(4 + len(body) for body in bodies) > BODY_LIMIT and command.command == "MPUB":
            caller.refuse("E_BAD_BODY", "MPUB body too big")
            return False
        fault = self.faults[self.seen] if self.seen < len(self.faults) else NONE
        self.seen += 1
        if fault == CUT_BEFORE:
            caller.cut()
            return False
        if fault == REFUSE_FOR_NOW:
            caller.refuse(f"E_{command.command}_FAILED", "the disk is full")
            return False
        caller.peer.published += bodies
        if fault == CUT_AFTER:
            caller.cut()
            return False
        if fault == ANSWER_LATE:
            self._later(caller, partial(caller.say, b"OK"), first=True)
        else:
            caller.say(b"OK")
        return True


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@dataclass
class Publishing:
    """One call of publish: how many turns of the event loop after the one before, the sizes, and the topic."""

    after: int
    sizes: Sequence[int]
    topic: str = "events"


async def run(publishings: Sequence[Publishing], faults: Sequence[int], http_turns: int | None, assumed: int) -> None:
    """Publish it all; `http_turns` is how late the limits are told, None for never; `assumed` the limits before."""
    numbers = itertools.count()
    most = LIMIT if http_turns is not None else min(LIMIT, assumed)
    broker = Faulty(faults)
    pages = {"/config/max_msg_size": (200, b"%d" % LIMIT), "/config/max_body_size": (200, b"%d" % BODY_LIMIT)}
    async with Scripted(broker) as peer, web(pages) as http:

        async def answer_late(_: str) -> None:
            await turns(http_turns or 0)

        http.before = answer_late
        peer.http = "" if http_turns is None else http.base
        publisher = NsqPublisher(Brokers(nsqd=(peer.address,)), settings(), batch_count=5, batch_bytes=assumed * 4)
        await publisher.start()
        expected: list[bytes] = []
        tasks: list[asyncio.Task[dict[tuple[int, int], Exception]]] = []
        try:
            for each in publishings:
                await turns(each.after)
                bodies = [(b"%06d" % next(numbers)).ljust(size, b"x") for size in each.sizes]
                large = {(0, place): MessageRefused for place, body in enumerate(bodies) if len(body) > most}
                refused: dict[tuple[int, int], type[Exception]] = {**large}
                if each.topic == REFUSED_TOPIC:
                    refused = {(0, place): BrokerError for place in range(len(bodies))} | refused
                else:
                    expected += [body for body in bodies if len(body) <= most]
                tasks.append(asyncio.create_task(_publish(publisher, each.topic, bodies, refused)))
            async with asyncio.timeout(20):
                await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await publisher.close()
        assert list(dict.fromkeys(peer.published)) == expected  # what comes again comes after what it was sent with


async def _publish(
    publisher: NsqPublisher, topic: str, bodies: list[bytes], refused: dict[tuple[int, int], type[Exception]]
) -> dict[tuple[int, int], Exception]:
    found = await publisher.publish([(topic, bodies)])
    assert found.keys() == refused.keys(), (found, refused)
    assert all(isinstance(found[place], QtoolsError) for place in found)
    assert all(isinstance(found[place], refused[place]) for place in found if topic != REFUSED_TOPIC)
    return dict(found)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "qtools.client")
    monkeypatch.setattr(publish_queue, "TRANSIENT_PAUSE", 0.0)
    monkeypatch.setattr(keep_connected, "next_delay", lambda failures: 0.0)


sizes = st.lists(st.sampled_from([6, 7, 15, LIMIT, LIMIT + 1, 40]), min_size=1, max_size=8)
publishing = st.builds(Publishing, st.integers(0, 4), sizes, st.sampled_from(["events"] * 5 + [REFUSED_TOPIC]))
faults = st.lists(st.sampled_from([NONE, NONE, CUT_BEFORE, CUT_AFTER, REFUSE_FOR_NOW, ANSWER_LATE]), max_size=12)


@given(
    publishings=st.lists(publishing, max_size=12),
    faults=faults,
    http_turns=st.sampled_from([None, 0, 1, 2, 5, 20]),
    assumed=st.sampled_from([15, 30, 1000]),
)
@example(
    publishings=[Publishing(0, [6]), Publishing(0, [40, 6]), *[Publishing(3, [6])] * 2],
    faults=[],
    http_turns=20,
    assumed=1000,
)
@example(publishings=[Publishing(0, [18]), *[Publishing(1, [6])] * 30], faults=[], http_turns=5, assumed=15)
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_in_the_topic_is_that_of_the_input(
    monkeypatch: pytest.MonkeyPatch,
    publishings: list[Publishing],
    faults: list[int],
    http_turns: int | None,
    assumed: int,
) -> None:
    monkeypatch.setattr(batch_splitter, "MAX_MSG_SIZE", assumed)
    asyncio.run(run(publishings, faults, http_turns, assumed))


@pytest.mark.parametrize("turn", range(16))
@pytest.mark.parametrize("http_turns", [None, 3])
async def test_a_publish_that_begins_at_any_moment_of_a_refusal_stays_behind_it(
    turn: int, http_turns: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for assumed in (15, 1000):
        monkeypatch.setattr(batch_splitter, "MAX_MSG_SIZE", assumed)
        refused_first = [Publishing(0, [6, 18, 40, 18, 6, 18, 18]), *[Publishing(turn, [6]) for _ in range(4)]]
        await run(refused_first, [], http_turns, assumed)


@pytest.mark.parametrize("step", range(10))
@pytest.mark.parametrize("fault", [CUT_BEFORE, CUT_AFTER, REFUSE_FOR_NOW, ANSWER_LATE])
async def test_a_fault_at_any_step_keeps_the_order(step: int, fault: int) -> None:
    publishings = [Publishing(n % 3, [6, 18, 6] if n % 4 else [6, 40, 18, 18, 18, 18, 18, 18]) for n in range(8)]
    await run(publishings, [*[NONE] * step, fault], 2, 1000)

"""What q-bridge cannot deliver, on engines that create no topics, or whose topics keep their messages."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

import pytest

from qtools.attributes import Attributes
from qtools.bridge.app import bridge
from qtools.bridge.dry_run import look
from qtools.bridge.options import BridgeOptions
from qtools.cli import trial
from qtools.cli.run import Signals
from qtools.engines.contract import EndConditions, PublisherOptions
from qtools.errors import BrokerError, QtoolsError
from qtools.flow.contract import GroupAttributes, Refused
from qtools.names import Subscription
from tests.engines.memory import EVERYTHING, MemoryEngine, MemoryPublisher

EVENTS, DEAD = Subscription("events", "own"), Subscription("events.dead", "own")
EMPTY = EndConditions(until_empty=True)
NO_TOPIC = "there is no such topic: create it"


class FewTopics(MemoryEngine):
    """Creates no topics: there are those of `made`."""

    made = frozenset({"events", "copy"})

    def publisher(self, options: PublisherOptions | None = None) -> MemoryPublisher:
        self.options = options or PublisherOptions()
        return FewTopicsPublisher(self, self.options)


class FewTopicsPublisher(MemoryPublisher):
    async def publish(
        self,
        groups: Sequence[tuple[str, Sequence[bytes]]],
        delay_ms: int | None = None,
        *,
        attributes: GroupAttributes | None = None,
    ) -> Refused:
        return {
            (number, place): BrokerError("UNKNOWN_TOPIC", NO_TOPIC)
            for number, (topic, bodies) in enumerate(groups)
            for place in range(len(bodies))
            if topic not in FewTopics.made
        } or await super().publish(groups, delay_ms, attributes=attributes)


@pytest.mark.parametrize(
    ("bodies", "more", "why"),
    [
        ([b"no JSON"], {"to": ("copy",), "where": ".n"}, "a message cannot be delivered: it is not JSON ("),
        (
            [b'{"t":"zzz"}'], {"to": ("out.\\(.t)",)},
            "a message cannot be delivered: to out.zzz: the broker says: UNKNOWN_TOPIC",
        ),
        (
            [b"x" * 2000, b"y" * 2000], {"to": ("copy",)},
            "2 messages cannot be delivered; the first one: to copy: ",
        ),
    ],
)  # fmt: skip
async def test_the_cause_is_named_before_the_topic_for_dead_letters(
    bodies: list[bytes], more: dict[str, object], why: str
) -> None:
    engine = FewTopics()
    engine.put("events", bodies)
    options = BridgeOptions((EVENTS,), engine, None, ends=EMPTY, show=False, **more)  # type: ignore[arg-type]
    with pytest.raises(QtoolsError) as ended:
        await bridge(options, Signals())
    assert str(ended.value).startswith(why)
    assert NO_TOPIC in str(ended.value)
    advice = "(--dead-letter-topic names another topic, --on-error drop leaves such messages out)"
    assert str(ended.value).endswith(advice)
    assert engine.left(EVENTS) == len(bodies)


@pytest.mark.parametrize(
    ("more", "warned"),
    [
        ({"to": ("copy",)}, ("events.dead",)),
        ({"to": ("copy",), "dead_letter_topic": "lost"}, ("lost",)),
        ({"to": ("copy",), "on_error": "drop"}, ()),
        ({"redrive": True}, ()),
    ],
)
async def test_topics_for_dead_letters_are_looked_at_only_where_one_is_possible(
    more: dict[str, object], warned: tuple[str, ...]
) -> None:
    engine = FewTopics()
    engine.put("events", [])
    await bridge(BridgeOptions((EVENTS,), engine, None, ends=EMPTY, show=False, **more), Signals())  # type: ignore[arg-type]
    assert engine.options.later_topics == warned


# ── a redrive where what is finished stays in its topic ──

LETTERS = [json.dumps({"topic": "events", "body": text}).encode() for text in ("a", "b")]


def redrive(engine: MemoryEngine) -> BridgeOptions:
    """As the flags make it for an engine with retention."""
    return BridgeOptions((DEAD,), engine, None, redrive=True, on_error="drop", on_trial=True, ends=EMPTY, show=False)


async def test_what_is_no_letter_is_skipped_and_the_letters_come_back_once(caplog: pytest.LogCaptureFixture) -> None:
    engine = MemoryEngine()
    engine.put("events.dead", [b"seed", *LETTERS, b"{}"])
    for _ in range(2):
        assert await bridge(redrive(engine), Signals()) == 0
    assert engine.bodies("events") == [b"a", b"b"]
    assert engine.left(DEAD) == 0
    assert "2 messages dropped: it is not a dead letter: it is not JSON" in caplog.text
    assert set(engine.all) == {"events", "events.dead"}


async def test_a_topic_without_any_letter_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "STRICT_PAUSE_SECONDS", 0.1)
    engine = MemoryEngine()
    engine.put("events.dead", [b"1", b"2"])
    with pytest.raises(QtoolsError, match=r"^these are no dead letters: --redrive failed on each of the first 2 "):
        await bridge(redrive(engine), Signals())
    assert engine.left(DEAD) == 2
    assert set(engine.all) == {"events.dead"}


# ── keys and headers that are lost ──


@pytest.mark.parametrize(
    ("attributes", "warnings"),
    [
        (None, 0),
        (Attributes(keys=[None, None, b"k"]), 1),
        (Attributes(headers=[[], [("a", b"1")], [("b", b"2")]]), 1),
    ],
)
async def test_a_destination_without_keys_is_warned_of_once(
    attributes: Attributes | None, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    engine, plain = MemoryEngine(), MemoryEngine(EVERYTHING._replace(keys_and_headers=False))
    engine.put("events", [b"1", b"2", b"3"], attributes)
    engine.put("events", [b"1", b"2", b"3"], attributes)
    options = BridgeOptions((EVENTS,), engine, plain, to=("copy",), ends=EMPTY, show=False, max_in_flight=2)
    with caplog.at_level(logging.WARNING):
        assert await bridge(options, Signals()) == 0
    assert caplog.text.count("Memory has no keys and no headers: those of the messages are left out") == warnings
    assert len(plain.bodies("copy")) == 6


async def test_no_warning_where_keys_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    engine, there = MemoryEngine(), MemoryEngine()
    engine.put("events", [b"1"], Attributes(keys=[b"k"]))
    assert await bridge(BridgeOptions((EVENTS,), engine, there, to=("copy",), ends=EMPTY, show=False), Signals()) == 0
    assert "no keys" not in caplog.text


# ── dry runs of what is there ──


@pytest.mark.parametrize(("since", "printed"), [(None, [b"1", b"2"]), (1.5, [b"2"])])
async def test_a_dry_run_begins_with_the_oldest_message(
    since: float | None, printed: list[bytes], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    engine = MemoryEngine()
    engine.channel(EVENTS)
    engine.put("events", [b"1", b"2"], Attributes(timestamps=[10**9, 2 * 10**9]))
    options = BridgeOptions(
        (EVENTS,), engine, None, to=("copy",), ends=EMPTY, dry_run=True, since=since, show=False
    )  # fmt: skip
    assert await look(options, Signals()) == 0
    assert capfdbinary.readouterr().out.splitlines() == [b"goes to copy\t" + body for body in printed]
    assert engine.left(EVENTS) == 2


async def test_a_dry_run_sees_new_messages_only_where_finished_ones_are_deleted(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    engine = MemoryEngine(EVERYTHING._replace(retention=False))
    engine.channel(EVENTS)
    engine.put("events", [b"1"])
    options = BridgeOptions((EVENTS,), engine, None, to=("copy",), ends=EMPTY, dry_run=True, show=False)
    assert await look(options, Signals()) == 0
    assert capfdbinary.readouterr().out == b""

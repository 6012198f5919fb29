"""Each command on an engine that is not NSQ: what it can do works, what it cannot do is refused at the start."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import orjson
import pytest

from qtools.attributes import TOMBSTONE, Attributes
from qtools.bridge.app import bridge
from qtools.bridge.dry_run import look
from qtools.bridge.options import BridgeOptions
from qtools.cli.run import Signals
from qtools.engines.capabilities import Capabilities
from qtools.engines.contract import EndConditions, Engine
from qtools.engines.nsq.engine import CAPABILITIES
from qtools.errors import QtoolsError, SourceDeleted, StartError, UsageError
from qtools.expressions.expression import compile_expression
from qtools.flow.filter import Filter, Rules
from qtools.message import Batch, Message, Messages
from qtools.names import Subscription
from qtools.pipe.app import pipe
from qtools.pipe.options import PipeOptions
from qtools.tail.app import tail
from qtools.tail.options import TailOptions
from qtools.tail.peek_source import MAX_MESSAGES, PeekFlowSource
from qtools.to_file.app import archive
from qtools.to_file.options import ArchiveOptions
from tests.engines.memory import EVERYTHING, MemoryEngine, MemorySource, PeekOrigin

EVENTS = Subscription("events", "own")
LINES = [b"%d" % number for number in range(500)]
EMPTY = EndConditions(until_empty=True)


@pytest.fixture(params=[False, True], ids=["each message", "cumulative"])
def engine(request: pytest.FixtureRequest) -> MemoryEngine:
    return MemoryEngine(cumulative=request.param)


def archive_options(engine: Engine, directory: Path, **more: Any) -> ArchiveOptions:
    work = directory / "work"
    work.mkdir(exist_ok=True)
    given = {"name": "<TOPIC><REV>.log", "ends": EMPTY, "show": False} | more
    return ArchiveOptions((EVENTS,), engine, directory, work, **given)


async def test_pipe(engine: MemoryEngine, tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"\n".join(LINES) + b"\n")
    options = PipeOptions("events", (str(tmp_path / "lines"),), engine, show=False)
    assert await pipe(options, Signals()) == 0
    assert engine.bodies("events") == LINES


async def test_pipe_names_what_the_engine_refuses(
    engine: MemoryEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lines").write_bytes(b"a\n" + b"x" * 2000 + b"\nb\n")
    options = PipeOptions("events", (str(tmp_path / "lines"),), engine, skip_oversize=True, show=False)
    assert await pipe(options, Signals()) == 0
    assert engine.bodies("events") == [b"a", b"b"]


async def test_tail(engine: MemoryEngine, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    engine.put("events", LINES)
    assert await tail(TailOptions((EVENTS,), engine, ends=EMPTY, max_in_flight=50), Signals()) == 0
    assert capfdbinary.readouterr().out == b"\n".join(LINES) + b"\n"
    assert engine.left(EVENTS) == 0


async def test_tail_gives_back_what_it_has_not_printed(
    engine: MemoryEngine, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    engine.put("events", LINES)
    assert await tail(TailOptions((EVENTS,), engine, count=7), Signals()) == 0
    assert engine.left(EVENTS) == len(LINES) - 7
    assert await tail(TailOptions((EVENTS,), engine, ends=EMPTY), Signals()) == 0
    assert capfdbinary.readouterr().out == b"\n".join(LINES) + b"\n"


async def test_a_filter_finishes_in_any_order(engine: MemoryEngine, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    engine.put("events", LINES)
    rules = Rules(Filter(compile_expression(". >= 490"), None), "skip")
    assert await tail(TailOptions((EVENTS,), engine, ends=EMPTY, rules=rules, max_in_flight=50), Signals()) == 0
    assert capfdbinary.readouterr().out == b"\n".join(LINES[490:]) + b"\n"
    assert engine.left(EVENTS) == 0


@pytest.mark.parametrize("run", ["tail", "to-file"])
async def test_a_warning_names_a_message_by_its_id_not_by_its_handle(
    engine: MemoryEngine, run: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine.put("events", [b"1", b"not json", b"2"])
    rules = Rules(Filter(compile_expression(". > 0"), None), "skip")
    if run == "tail":
        assert await tail(TailOptions((EVENTS,), engine, ends=EMPTY, rules=rules), Signals()) == 0
    else:
        assert await archive(archive_options(engine, tmp_path, rules=rules), Signals()) == 0
    assert "events: message 0000000000000001: it is not JSON" in caplog.text
    assert engine.left(EVENTS) == 0


async def test_a_peek_tells_messages_of_two_partitions_apart() -> None:
    """The handles of all partitions begin at 0."""

    class Partitioned(MemoryEngine):
        async def peek(self, subscription: Subscription, count: int) -> list[Batch]:
            found = []
            for number, topic in enumerate(("events", "events", "others")):
                some = [
                    Message(1, 1, b"%d-%014d" % (number % 2, place), b"%d" % number) for place in range(count // 3 + 1)
                ]
                handles = list(range(len(some)))
                messages = Messages.of(some)
                found.append(Batch([(PeekOrigin(topic), 0, len(some))], messages, messages.bodies, handles))
            return found

    source = PeekFlowSource([EVENTS], Partitioned(), None, selective=True)
    seen: list[tuple[str, bytes]] = []
    while (batch := await source.read()) is not None:
        seen += [(batch.parts[0][0].topic, ident) for ident in batch.messages.ids]
    assert len(seen) == len(set(seen))
    for topic, partition in (("events", b"0"), ("events", b"1"), ("others", b"0")):
        assert sum(name == topic and ident.startswith(partition) for name, ident in seen) == MAX_MESSAGES // 3 + 1


async def test_a_look_whose_end_cannot_be_found_fails(engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(source: MemorySource) -> bool:
        source.end()
        raise SourceDeleted("channel", "events/own", "memory")

    monkeypatch.setattr(MemorySource, "wait_for_end", gone)
    options = BridgeOptions((EVENTS,), engine, None, to=("copy",), ends=EMPTY, dry_run=True)
    with pytest.raises(SourceDeleted):
        await look(options, Signals())


async def test_bridge_to_another_cluster(engine: MemoryEngine) -> None:
    there = MemoryEngine(cumulative=not engine.cumulative)
    engine.put("events", LINES)
    options = BridgeOptions(
        (EVENTS,), engine, there, to=("copy",), ends=EMPTY, max_in_flight=50, on_trial=False, show=False
    )
    assert await bridge(options, Signals()) == 0
    assert there.bodies("copy") == LINES
    assert engine.left(EVENTS) == 0


KEYED = Attributes(
    keys=[b"k1", None, b"\xff"],
    headers=[[("a", b"1"), ("b", None), ("a", b"2")], (), [("n", b"\xfe")]],
    timestamps=[10**18, 10**18 + 1, 10**18 + 2],
)


def attributes_in(engine: MemoryEngine, topic: str) -> Attributes:
    found = engine.topic(topic)
    return Attributes(found.keys, found.headers, [message.timestamp for message in found.messages])


async def test_a_bridge_keeps_key_headers_timestamp_and_body(engine: MemoryEngine) -> None:
    there = MemoryEngine()
    engine.put("events", [b"1", b"", TOMBSTONE], KEYED)
    options = BridgeOptions((EVENTS,), engine, there, to=("copy",), ends=EMPTY, on_trial=False, show=False)
    assert await bridge(options, Signals()) == 0
    assert attributes_in(there, "copy") == KEYED
    assert [body is TOMBSTONE for body in there.bodies("copy")] == [False, False, True]


async def test_a_routed_message_keeps_its_own_key(engine: MemoryEngine) -> None:
    engine.put("events", [b"1", b"3", b"2"], KEYED)
    options = BridgeOptions((EVENTS,), engine, None, to=("copy",), where=". < 3", ends=EMPTY, show=False)
    assert await bridge(options, Signals()) == 0
    assert engine.bodies("copy") == [b"1", b"2"]
    assert attributes_in(engine, "copy") == KEYED.pick([0, 2])


async def test_to_an_engine_without_keys_and_headers(engine: MemoryEngine) -> None:
    there = MemoryEngine(EVERYTHING._replace(keys_and_headers=False))
    engine.put("events", [b"1", b"2", b"3"], KEYED)
    options = BridgeOptions((EVENTS,), engine, there, to=("copy",), ends=EMPTY, on_trial=False, show=False)
    assert await bridge(options, Signals()) == 0
    assert there.bodies("copy") == [b"1", b"2", b"3"]
    assert there.topic("copy").keys == [None] * 3


async def test_an_envelope_has_key_headers_and_the_place_in_the_log(
    engine: MemoryEngine, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    engine.put("events", [b"1", b"\xff", TOMBSTONE], KEYED)
    assert await tail(TailOptions((EVENTS,), engine, ends=EMPTY, format="envelope"), Signals()) == 0
    first, second, third = map(orjson.loads, capfdbinary.readouterr().out.splitlines())
    assert list(first) == [
        "topic", "id", "timestamp", "attempts", "source", "key", "headers", "partition", "offset", "body",
    ]  # fmt: skip
    assert (first["key"], first["headers"], first["offset"]) == ("k1", {"a": ["1", "2"], "b": None}, 0)
    assert (second["key"], second["body_base64"], second["offset"]) == (None, "/w==", 1)
    assert "headers" not in second
    assert (third["key_base64"], third["headers"], third["body"]) == ("/w==", {"n": {"base64": "/g=="}}, None)


async def test_a_bridge_within_a_cluster_must_not_feed_itself(engine: MemoryEngine) -> None:
    options = BridgeOptions((EVENTS,), engine, None, to=("events",), ends=EMPTY)
    with pytest.raises(UsageError, match="events"):
        await bridge(options, Signals())


async def test_dead_letters(engine: MemoryEngine) -> None:
    engine.put("events", [b"1", b"not JSON", b"2"])
    options = BridgeOptions((EVENTS,), engine, None, to=("copy",), where=". > 1", ends=EMPTY, show=False)
    assert await bridge(options, Signals()) == 0
    assert engine.bodies("copy") == [b"2"]
    (letter,) = engine.bodies("events.dead")
    assert b"not JSON" in letter
    assert engine.left(EVENTS) == 0


async def redrive(engine: MemoryEngine, **more: Any) -> None:
    dead = Subscription("events.dead", "q-bridge")
    assert (
        await bridge(BridgeOptions((dead,), engine, None, redrive=True, ends=EMPTY, show=False, **more), Signals()) == 0
    )
    assert engine.left(dead) == 0


async def test_a_dead_letter_keeps_key_headers_and_a_tombstone_for_the_redrive(engine: MemoryEngine) -> None:
    engine.put("events", [b"a", b"{}", b"", TOMBSTONE], Attributes(
        keys=[b"k1", b"routed", None, b"\xff"],
        headers=[[("a", b"1"), ("a", b"2"), ("b", None)], (), (), [("n", b"\xfe")]],
    ))  # fmt: skip
    options = BridgeOptions((EVENTS,), engine, None, to=("copy",), where="keys", ends=EMPTY, show=False)
    assert await bridge(options, Signals()) == 0
    assert engine.topic("copy").keys == [b"routed"]
    first, second, third = map(orjson.loads, engine.bodies("events.dead"))
    assert (first["key"], first["headers"], first["body"]) == ("k1", {"a": ["1", "2"], "b": None}, "a")
    assert ("key" in second, "headers" in second, second["body"]) == (False, False, "")
    assert (third["key_base64"], third["headers"], third["body"]) == ("/w==", {"n": {"base64": "/g=="}}, None)

    await redrive(engine)
    events = engine.topic("events")
    assert engine.bodies("events")[4:] == [b"a", b"", b""]
    assert [body is TOMBSTONE for body in engine.bodies("events")[4:]] == [False, False, True]
    assert events.keys[4:] == [b"k1", None, b"\xff"]
    assert [list(headers) for headers in events.headers[4:]] == [
        [("a", b"1"), ("a", b"2"), ("b", None)], [], [("n", b"\xfe")],
    ]  # fmt: skip


async def test_a_redrive_of_one_letter_in_a_batch_of_others(engine: MemoryEngine) -> None:
    """A letter that is none does not shift the keys of the others."""
    letters = [b'{"topic":"events","key":"%d","body":"%d"}' % (nth, nth) for nth in range(3)]
    engine.put("events.dead", [letters[0], b"no letter", letters[1], letters[2]])
    await redrive(engine, on_error="drop")
    assert (engine.bodies("events"), engine.topic("events").keys) == ([b"0", b"1", b"2"],) * 2


async def test_a_redrive_from_an_engine_without_keys_and_headers() -> None:
    engine, there = MemoryEngine(EVERYTHING._replace(keys_and_headers=False)), MemoryEngine()
    engine.put("events.dead", [b'{"topic":"events","key":"k","headers":{"h":"1"},"body":null}'])
    dead = Subscription("events.dead", "q-bridge")
    options = BridgeOptions((dead,), engine, there, redrive=True, ends=EMPTY, show=False)
    assert await bridge(options, Signals()) == 0
    assert there.topic("events").keys == [b"k"]
    assert there.topic("events").headers == [[("h", b"1")]]
    assert there.bodies("events")[0] is TOMBSTONE


async def test_to_file(engine: MemoryEngine, tmp_path: Path) -> None:
    engine.put("events", LINES)
    assert await archive(archive_options(engine, tmp_path), Signals()) == 0
    assert (tmp_path / "events.log").read_bytes() == b"\n".join(LINES) + b"\n"
    assert engine.left(EVENTS) == 0


async def test_an_engine_that_is_away(engine: MemoryEngine, tmp_path: Path) -> None:
    engine.is_down = True
    (tmp_path / "lines").write_bytes(b"x\n")
    runs: list[Coroutine[Any, Any, int]] = [
        pipe(PipeOptions("events", (str(tmp_path / "lines"),), engine), Signals()),
        tail(TailOptions((EVENTS,), engine), Signals()),
        bridge(BridgeOptions((EVENTS,), engine, None, to=("copy",)), Signals()),
        archive(archive_options(engine, tmp_path), Signals()),
    ]
    for run in runs:
        with pytest.raises(StartError, match="nothing listens there"):
            await run


async def test_a_pause_ends_the_run_where_that_is_asked_for(engine: MemoryEngine) -> None:
    engine.put("events", LINES)
    engine.channel(EVENTS).paused = True
    ends = EndConditions(until_empty=True, fail_if_paused=True)
    with pytest.raises(QtoolsError, match="events/own is paused"):
        await tail(TailOptions((EVENTS,), engine, ends=ends), Signals())


Run = Callable[[Engine, Path], Coroutine[Any, Any, int]]
OWN = Subscription("events", "q-tail#ephemeral")

REFUSED: list[tuple[str, str, Run]] = [
    ("deferred_publishing", "--defer", lambda e, d: pipe(PipeOptions("t", (str(d / "f"),), e, defer=1.0), Signals())),
    ("replication", "--replicate", lambda e, d: pipe(PipeOptions("t", (str(d / "f"),), e, replicate=True), Signals())),
    ("peek", "--peek", lambda e, d: tail(TailOptions((EVENTS,), e, peek=True), Signals())),
    ("since", "--since", lambda e, d: tail(TailOptions((EVENTS,), e, since=1.0), Signals())),
    ("temporary_channels", "TOPIC", lambda e, d: tail(TailOptions((OWN,), e, guarded=(OWN,)), Signals())),
    ("depths", "--until-empty", lambda e, d: tail(TailOptions((EVENTS,), e, ends=EMPTY), Signals())),
    ("depths", "--until-empty", lambda e, d: archive(archive_options(e, d), Signals())),
    (
        "depths",
        "--until-now",
        lambda e, d: bridge(
            BridgeOptions((EVENTS,), e, None, to=("t",), ends=EndConditions(until_now=True)), Signals()
        ),
    ),
    (
        "deferred_publishing",
        "--defer",
        lambda e, d: bridge(BridgeOptions((EVENTS,), e, None, to=("t",), defer=1.0), Signals()),
    ),
    (
        "temporary_channels",
        "--dry-run",
        lambda e, d: look(BridgeOptions((EVENTS,), e, None, to=("t",), dry_run=True), Signals()),
    ),
    (
        "pause",
        "--fail-if-paused",
        lambda e, d: tail(
            TailOptions((EVENTS,), e, ends=EndConditions(until_empty=True, fail_if_paused=True)), Signals()
        ),
    ),
    (
        "depths",
        "--complete-marker",
        lambda e, d: archive(
            archive_options(e, d, ends=EndConditions(), lateness=1.0, partition="dt={time}", datetime_format="%Y"),
            Signals(),
        ),
    ),
]


@pytest.mark.parametrize(("capability", "flag", "run"), REFUSED, ids=[f"{each[0]}-{each[1]}" for each in REFUSED])
async def test_what_an_engine_cannot_do_is_refused_and_never_ignored(
    capability: str, flag: str, run: Run, tmp_path: Path
) -> None:
    engine = MemoryEngine(EVERYTHING._replace(**{capability: False}))  # type: ignore[arg-type]
    engine.put("events", LINES)
    (tmp_path / "f").write_bytes(b"x\n")
    with pytest.raises(UsageError) as refused:
        await run(engine, tmp_path)
    assert str(refused.value).startswith(f"{flag}")
    assert ": Memory " in str(refused.value)
    assert set(engine.all) <= {"events"}
    assert not engine.topic("events").channels


def test_the_engine_in_memory_has_all_capabilities_that_these_commands_use() -> None:
    flags = {name for name, default in Capabilities._field_defaults.items() if default is False}
    assert set(EVERYTHING.names()) == flags - {"creation", "emptying", "dedupe_ids"}
    assert set(CAPABILITIES.names()) == flags - {
        "keys_and_headers", "empty_messages", "tombstones", "retention", "partitions", "replicas",
        "exclusive_partitions", "cumulative", "dedupe_ids",
    }  # fmt: skip

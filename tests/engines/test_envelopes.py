"""Envelopes as input: key, headers and a missing body are published as written, or left out with a warning."""

from __future__ import annotations

import logging
from pathlib import Path

import orjson
import pytest

from qtools.attributes import TOMBSTONE, Attributes
from qtools.cli.run import Signals
from qtools.engines.capabilities import Capabilities
from qtools.engines.contract import EndConditions
from qtools.expressions.expression import compile_expression
from qtools.flow.filter import Filter, Rules
from qtools.flow.keying import Keying
from qtools.names import Subscription
from qtools.pipe.app import pipe
from qtools.pipe.options import PipeOptions
from qtools.tail.app import tail
from qtools.tail.options import TailOptions
from qtools.to_file.app import archive
from qtools.to_file.options import ArchiveOptions
from qtools.to_file.read.replay_run import ReplayOptions, replay
from tests.engines.memory import EVERYTHING, MemoryEngine

EVENTS = Subscription("events", "own")
EMPTY = EndConditions(until_empty=True)
KEYED = Attributes(
    keys=[b"k1", None, b"\xff\x00", b""],
    headers=[[("a", b"1"), ("b", None), ("a", b"\xfe")], (), [("ü", b"")], [("c", b"x")]],
    timestamps=[10**18, 10**18 + 1, 10**18 + 2, 10**18 + 3],
)
BODIES = [b"text", b"\xff binary", TOMBSTONE, b""]


def engine_with(bodies: list[bytes], attributes: Attributes) -> MemoryEngine:
    made = MemoryEngine()
    made.put("events", bodies, attributes)
    return made


async def written(form: str, directory: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> str:
    """The path of a file that holds what q-tail prints of the messages."""
    engine = engine_with(BODIES, KEYED)
    assert await tail(TailOptions((EVENTS,), engine, ends=EMPTY, format=form), Signals()) == 0
    path = directory / "messages"
    path.write_bytes(capfdbinary.readouterr().out)
    return str(path)


def read(engine: MemoryEngine, topic: str) -> list[tuple[bytes | None, list[tuple[str, bytes | None]], bytes, bool]]:
    found = engine.topic(topic)
    return [
        (key, list(headers), body, body is TOMBSTONE)
        for key, headers, body in zip(found.keys, found.headers, engine.bodies(topic), strict=True)
    ]


@pytest.mark.parametrize("follow", [False, True], ids=["a file", "a log"])
@pytest.mark.parametrize("form", ["envelope", "msgpack"])
async def test_what_q_tail_has_written_is_published_byte_for_byte(
    form: str, follow: bool, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = await written(form, tmp_path, capfdbinary)
    there = MemoryEngine()
    more = {"checkpoint": str(tmp_path / "checkpoint")} if follow else {}
    assert await pipe(PipeOptions("copy", (path,), there, format=form, show=False, **more), Signals()) == 0
    # Headers of one name follow each other.
    expected = read(engine_with(BODIES, KEYED), "events")
    expected[0] = (b"k1", [("a", b"1"), ("a", b"\xfe"), ("b", None)], b"text", False)
    assert read(there, "copy") == expected
    assert there.topic("copy").messages[0].timestamp > 10**18 + 10  # it is published now


@pytest.mark.parametrize("form", ["envelope", "msgpack"])
async def test_expressions_see_what_is_in_an_envelope(
    form: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = await written(form, tmp_path, capfdbinary)
    there = MemoryEngine()
    options = PipeOptions(
        "copy", (path,), there, format=form, show=False,
        rules=Rules(
            Filter(
                compile_expression("$key != null and $offset < 3"),
                compile_expression("[$topic, $id, $timestamp, $attempts, $partition, $offset]"),
            )
        ),
        keying=Keying(compile_expression('"new-\\($offset)"'), (("a", compile_expression("$headers.b")), )),
    )  # fmt: skip
    assert await pipe(options, Signals()) == 0
    assert read(there, "copy") == [
        (b"new-0", [("a", b"1"), ("a", b"\xfe"), ("b", None)],
         b'["events","0000000000000000",1000000000000000000,1,0,0]', False),
        (b"new-2", [("ü", b"")], b'["events","0000000000000002",1000000000000000002,1,0,2]', False),
    ]  # fmt: skip


@pytest.mark.parametrize("where", [None, '$key == "k1"'])
@pytest.mark.parametrize("form", ["envelope", "msgpack"])
async def test_an_engine_without_keys_leaves_them_out_and_says_so_once(
    form: str,
    where: str | None,
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = await written(form, tmp_path, capfdbinary)
    there = MemoryEngine(EVERYTHING._replace(engine="NSQ", keys_and_headers=False))
    rules = None if where is None else Rules(Filter(compile_expression(where), None), "fail")
    with caplog.at_level(logging.WARNING):
        options = PipeOptions("copy", (path, path), there, format=form, rules=rules, show=False)
        assert await pipe(options, Signals()) == 0
    once = [b"text"] if where else [b"text", b"\xff binary"]  # it has no empty messages either
    assert there.bodies("copy") == once * 2
    assert caplog.messages == ["NSQ has no keys and no headers: those of the envelopes are left out"]


async def test_envelopes_without_keys_are_no_reason_for_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "lines").write_bytes(b'{"body":"a"}\n{"body":"b","key":null,"headers":{}}\n')
    there = MemoryEngine(EVERYTHING._replace(keys_and_headers=False))
    with caplog.at_level(logging.WARNING):
        options = PipeOptions("copy", (str(tmp_path / "lines"),), there, format="envelope", show=False)
        assert await pipe(options, Signals()) == 0
    assert (there.bodies("copy"), caplog.messages) == ([b"a", b"b"], [])


@pytest.mark.parametrize(
    ("envelope", "why"),
    [
        ({"body": "x", "key": 5}, 'line 2 (at byte 13) has a "key" that is not a string'),
        ({"body": "x", "key_base64": "?"}, "line 2 (at byte 13) has a key_base64 that is not base64"),
        ({"body": "x", "headers": [1]}, 'line 2 (at byte 13) has "headers" that are not an object'),
        (
            {"body": "x", "headers": {"a": 1}},
            "line 2 (at byte 13) has a header 'a' that is neither a string nor base64",
        ),
    ],
)
async def test_a_broken_key_is_named_by_its_line(
    envelope: dict[str, object], why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "lines").write_bytes(b'{"body":"a"}\n' + orjson.dumps(envelope) + b"\n")
    there = MemoryEngine()
    status = await pipe(
        PipeOptions("copy", (str(tmp_path / "lines"),), there, format="envelope", show=False), Signals()
    )
    assert there.bodies("copy")[0] == b"a"
    assert why in caplog.text
    assert status == 1


@pytest.mark.parametrize("form", ["envelope", "msgpack"])
async def test_a_replay_publishes_key_headers_and_tombstones(form: str, tmp_path: Path) -> None:
    engine, work = engine_with(BODIES, KEYED), tmp_path / "work"
    work.mkdir()
    options = ArchiveOptions(
        (EVENTS,), engine, tmp_path / "out", work, name="<TOPIC><REV>.x", format=form, ends=EMPTY, show=False
    )
    assert await archive(options, Signals()) == 0
    there = MemoryEngine()
    assert await replay(ReplayOptions(str(tmp_path / "out"), "copy", there, show=False), Signals()) == 0
    expected = read(engine, "events")
    expected[0] = (b"k1", [("a", b"1"), ("a", b"\xfe"), ("b", None)], b"text", False)
    assert read(there, "copy") == expected
    rules = Rules(Filter(compile_expression('$headers.c == "x" and $topic == "events" and $offset == 3'), None), "fail")
    assert await replay(ReplayOptions(str(tmp_path / "out"), "one", there, rules=rules, show=False), Signals()) == 0
    assert read(there, "one") == [expected[3]]


@pytest.mark.parametrize("capabilities", [EVERYTHING, EVERYTHING._replace(keys_and_headers=False)])
@pytest.mark.parametrize("is_default", [True, False])
async def test_an_archive_of_bodies_only_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capabilities: Capabilities, is_default: bool
) -> None:
    engine, work = MemoryEngine(capabilities), tmp_path / "work"
    engine.put("events", BODIES, KEYED)
    work.mkdir()
    options = ArchiveOptions(
        (EVENTS,), engine, tmp_path / "out", work, name="<TOPIC><REV>.x", ends=EMPTY, show=False,
        is_default_format=is_default,
    )  # fmt: skip
    assert await archive(options, Signals()) == 0
    expected = is_default and capabilities.keys_and_headers
    assert caplog.text.count("the format raw stores bodies only: keys and headers are left out") == expected
